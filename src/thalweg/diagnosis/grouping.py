"""Findings explain one another: of several, the cause comes first and its symptoms under it.

A finding is a symptom of another if the other's page says that it explains that kind, and the other began no later
(within a hundredth of the run, since signals are sampled). A symptom goes to its strongest cause.
"""

from collections.abc import Mapping, Sequence

from thalweg.diagnosis.findings import SEVERITIES, Finding

_SLACK = 0.01


def group(findings: Sequence[Finding], explains: Mapping[str, Sequence[str]]) -> tuple[Finding, ...]:
    """Causes with their symptoms, most severe first; of equal severity the surer, then the earlier."""
    ordered = sorted(findings, key=_rank)
    slack = _SLACK * max((f.last_step for f in findings), default=0)
    cause_of: dict[int, int] = {}
    for index in sorted(range(len(ordered)), key=lambda i: -ordered[i].first_step):
        for other, cause in enumerate(ordered):
            later = cause.first_step > ordered[index].first_step + slack
            named = ordered[index].kind in explains.get(cause.kind, ())
            if named and not later and _root(other, cause_of) != index:
                cause_of[index] = other
                break
    out = []
    for index, finding in enumerate(ordered):
        if index not in cause_of:
            below = [ordered[i] for i in range(len(ordered)) if i != index and _root(i, cause_of) == index]
            out.append(finding.with_symptoms(tuple(below)))
    return tuple(sorted(out, key=lambda f: _rank(min((f, *f.symptoms), key=_rank))))


def _rank(finding: Finding) -> tuple[int, float, int]:
    return -SEVERITIES.index(finding.severity), -finding.confidence, finding.first_step


def _root(index: int, cause_of: Mapping[int, int]) -> int:
    while index in cause_of:
        index = cause_of[index]
    return index
