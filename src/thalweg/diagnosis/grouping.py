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
    cause_of = {index: _cause(index, ordered, explains, slack) for index in range(len(ordered))}
    roots = {index: _root(index, cause_of) for index in cause_of}
    out = []
    for index, finding in enumerate(ordered):
        if roots[index] == index:
            out.append(
                finding.with_symptoms(tuple(ordered[i] for i in roots if roots[i] == index and i != index))
            )
    return tuple(sorted(out, key=lambda f: _rank(min((f, *f.symptoms), key=_rank))))


def _rank(finding: Finding) -> tuple[int, float, int]:
    return -SEVERITIES.index(finding.severity), -finding.confidence, finding.first_step


def _cause(
    index: int, ordered: Sequence[Finding], explains: Mapping[str, Sequence[str]], slack: float
) -> int | None:
    symptom = ordered[index]
    for other, cause in enumerate(ordered):
        if (
            other != index
            and symptom.kind in explains.get(cause.kind, ())
            and cause.first_step <= symptom.first_step + slack
        ):
            return other
    return None


def _root(index: int, cause_of: Mapping[int, int | None]) -> int:
    seen = {index}
    while (above := cause_of[index]) is not None and above not in seen:
        seen.add(above)
        index = above
    return index
