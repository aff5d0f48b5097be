"""``import thalweg``: light, lazy, and whole with and without PyTorch."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import thalweg as tw

SOURCE = Path(tw.__file__).parents[1]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import thalweg as tw\n"
HEAVY = [
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "typer",
    "rich",
    "plotly",
    "sqlite3",
    "importlib.metadata",
]


def run(code: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_nothing_heavy():
    code = f"import sys, thalweg as tw\ntw.__version__, tw.__all__, dir(tw)\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_the_light_rooms_load_no_torch():
    code = (
        "import sys, thalweg as tw\n"
        "tw.methods(), tw.papers(), tw.data.sets(), tw.Card\n"
        "print([m for m in ('torch', 'scipy', 'typer', 'rich', 'plotly', 'mlxtend', 'sklearn', 'PIL') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_every_listed_name_is_there_and_is_kept_once_asked_for():
    pytest.importorskip("torch")
    assert {"watch", "HeldBatch"} <= set(tw.__all__)
    for name in tw.__all__:
        value = getattr(tw, name)
        assert vars(tw)[name] is value
        assert name in dir(tw)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'thalweg' has no attribute 'wacth'"):
        tw.wacth
    assert not hasattr(tw, "no_such_thing")


def test_without_torch_its_names_are_left_out():
    code = "print('watch' in tw.__all__, 'watch' in dir(tw), hasattr(tw, 'watch'), hasattr(tw, 'HeldBatch'))"
    assert run(WITHOUT_TORCH + code) == "False False False False"


def test_without_torch_star_import_and_help_work():
    code = (
        "namespace = {}\n"
        "exec('from thalweg import *', namespace)\n"
        "import pydoc\n"
        "print(set(tw.__all__) <= set(namespace), 'open_run' in pydoc.render_doc(tw))"
    )
    assert run(WITHOUT_TORCH + code) == "True True"


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("tw.watch", "AttributeError"),
        ("from thalweg import watch", "ImportError"),
        ("tw.HeldBatch", "AttributeError"),
    ],
)
def test_without_torch_the_error_says_what_to_install(statement, error):
    code = f"try:\n    {statement}\nexcept {error} as e:\n    print(type(e).__name__, e)"
    said = run(WITHOUT_TORCH + code)
    assert said.startswith("Missing") and "pip install 'thalweg[torch]'" in said


def test_the_version_is_that_of_the_package():
    project = SOURCE.parent / "pyproject.toml"
    if not project.exists():
        pytest.skip("not a source checkout")
    assert tomllib.loads(project.read_text())["project"]["version"] == tw.__version__
