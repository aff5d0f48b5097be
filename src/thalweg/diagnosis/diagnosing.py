"""`diagnose`: every rule over a run, causes before their symptoms, and what could not be judged."""

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from thalweg.core.errors import UsageError
from thalweg.core.method_index import of_kind
from thalweg.diagnosis.contracts import Rule
from thalweg.diagnosis.findings import Diagnosis, Finding, NotEvaluable
from thalweg.diagnosis.grouping import group
from thalweg.diagnosis.view import RunView, keys_of
from thalweg.record import Run, open_run

_OF_TWO = "runs-differ"


def diagnose(
    run: Run | str | os.PathLike[str],
    *,
    against: Run | str | os.PathLike[str] | None = None,
    ignore: Iterable[str] = (),
    only: Iterable[str] = (),
    map: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Say what went wrong in a run, and how sure.

    Args:
        run: a run, or the path of a run file or of another tool's log.
        against: a run that should be the same: adds where the two part.
        ignore: kinds to leave out.
        only: look for these kinds alone; all by default.
        map: what the names in the log mean (`open_run`), for a path.

    Returns:
        The findings, most severe and most likely cause first, and the rules that could not be judged.

    Raises:
        RunFileError: the path is no log that can be read.
        UsageError: no rule has a name in ``ignore`` or ``only``.
    """
    opened = run if isinstance(run, Run) else open_run(run, map=map)
    rules = load_rules()
    silenced, wanted = _known(ignore, rules), _known(only, rules)
    chosen = {
        name: rule for name, rule in rules.items() if name not in silenced and (not wanted or name in wanted)
    }
    findings: list[Finding] = []
    lacking: dict[str, NotEvaluable] = {}
    judged: list[str] = []
    failed: dict[str, str] = {}
    for key in keys_of(opened):
        view = RunView(opened, key)
        for name, rule in chosen.items():
            try:
                outcome = rule(view)
            except Exception as error:  # one rule that fails must not hide what the others found
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            if isinstance(outcome, NotEvaluable):
                lacking.setdefault(name, outcome)
                continue
            judged.append(name)
            findings += [_of_key(finding, key) for finding in outcome]
    grouped = group(findings, {name: rule.page.explains for name, rule in rules.items()})
    if against is not None and _OF_TWO in chosen:  # what was asked for comes first
        other = against if isinstance(against, Run) else open_run(against, map=map)
        grouped = (*_parting(opened, other), *grouped)
        judged.append(_OF_TWO)
    elif _OF_TWO not in wanted:
        lacking.pop(_OF_TWO, None)  # nobody asked for it
    return Diagnosis(
        opened.name,
        grouped,
        tuple(one for name, one in lacking.items() if name not in judged),
        judged=tuple(dict.fromkeys(judged)),
        ignored=tuple(sorted(silenced)),
        failed=failed,
        warnings=tuple(opened.warnings),
        source=opened,
    )


def load_rules() -> dict[str, Rule]:
    """All rules by name, third parties' included."""
    rules = {}
    for row in of_kind("rule"):
        rules[row.card.name] = importlib.import_module(row.module).RULE
    return rules


def _known(names: Iterable[str], rules: Mapping[str, Rule]) -> set[str]:
    wanted = set(names)
    if unknown := wanted - set(rules):
        raise UsageError(
            f"no rule is named {', '.join(sorted(unknown))}; there are: {', '.join(sorted(rules))}"
        )
    return wanted


def _of_key(finding: Finding, key: str) -> Finding:
    return replace(finding, where=f"{key}:{finding.where}".rstrip(":")) if key else finding


def _parting(run: Run, other: Run) -> list[Finding]:
    from thalweg.diagnosis.comparing import part_ways

    return part_ways(run, other)
