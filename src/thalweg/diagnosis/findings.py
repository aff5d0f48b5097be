"""What a diagnosis says: findings with their evidence, and the rules that could not be judged, with what they lacked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["note", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "critical")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What to look at to believe a finding.

    Attributes:
        signals: names of the signals to draw, over one axis of steps.
        first: first step to draw; None for the beginning.
        last: last step to draw; None for the end.
        marks: steps to mark, with a word for each.
    """

    signals: tuple[str, ...]
    first: int | None = None
    last: int | None = None
    marks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Why a rule says what it says.

    Attributes:
        text: the observation in a sentence or two, with its numbers.
        numbers: the same numbers by name, for programs and tests.
        plot: what to draw.
    """

    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    plot: Plot | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing, in a run.

    Attributes:
        kind: the stable name of the rule that found it ("loss-spike").
        title: what it is, in one line with its most telling number.
        severity: "note" < "warning" < "critical": worth knowing, costs quality or time, ruins the run.
        confidence: how sure the rule is that it is this and not a look-alike, from 0 to 1.
        first_step: where it begins.
        last_step: where it ends; the run's last step if it goes on.
        where: the layer or parameter group in which it began; "" for the whole model or if that can't be told.
        evidence: the numbers and the plot.
        remedy: what to do, so that a person can do it.
        papers: ids in the bibliography.
        symptoms: findings that this one explains, the most severe first.
        run: name of the run, where several were looked at.
    """

    kind: str
    title: str
    severity: Severity
    confidence: float
    first_step: int
    last_step: int
    evidence: Evidence
    remedy: str
    where: str = ""
    papers: tuple[int, ...] = ()
    symptoms: tuple["Finding", ...] = ()
    run: str = ""

    @property
    def paper(self) -> str:
        """The first paper, as a person would cite it; "" if there is none."""
        from thalweg.core import paper

        return str(paper(self.papers[0])) if self.papers else ""

    def with_symptoms(self, symptoms: tuple["Finding", ...]) -> "Finding":
        """The same with the findings it explains, and as severe as the worst of them: that is what it led to."""
        worst = max((self, *symptoms), key=lambda f: SEVERITIES.index(f.severity)).severity
        return replace(self, symptoms=symptoms, severity=worst)


@dataclass(frozen=True, kw_only=True)
class NotEvaluable:
    """A rule that could not be judged: silence is not health.

    Attributes:
        kind: the rule's name.
        lacked: what it needs and did not find, in words.
        record: the line of code that would record it; "" if nothing would.
    """

    kind: str
    lacked: str
    record: str = ""


class Diagnosis:
    """The findings of a run: iterate over them, the most likely and most severe cause first.

    Attributes:
        run: name of the run.
        findings: causes, each with the symptoms it explains.
        not_evaluable: rules that could not be judged.
        judged: names of the rules that were judged.
        ignored: kinds that were silenced.
        failed: rule -> what went wrong in it; a rule that fails never hides the others.
        warnings: what the record itself could not give.
        source: the run itself, for the plots.
    """

    def __init__(
        self,
        run: str,
        findings: tuple[Finding, ...],
        not_evaluable: tuple[NotEvaluable, ...],
        *,
        judged: tuple[str, ...] = (),
        ignored: tuple[str, ...] = (),
        failed: Mapping[str, str] | None = None,
        warnings: tuple[str, ...] = (),
        source: Any = None,
    ) -> None:
        self.run = run
        self.findings = findings
        self.not_evaluable = not_evaluable
        self.judged = judged
        self.ignored = ignored
        self.failed = dict(failed or {})
        self.warnings = warnings
        self.source = source

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, index: int) -> Finding:
        return self.findings[index]

    def flat(self) -> list[Finding]:
        """All findings, causes and symptoms alike."""
        return [one for finding in self.findings for one in (finding, *finding.symptoms)]

    @property
    def clock(self) -> str:
        """What its steps count: "updates", or "epochs" or "rows" where the log has nothing better."""
        clocks = list(self.source.clocks) if self.source is not None else []
        return "updates" if "updates" in clocks or not clocks else clocks[0]

    @property
    def worst(self) -> Severity | None:
        """The highest severity found; None if nothing was."""
        return max((f.severity for f in self.flat()), key=SEVERITIES.index, default=None)

    def __str__(self) -> str:
        from thalweg.diagnosis.rendering import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from thalweg.diagnosis.rendering import as_html

        return as_html(self)

    def __repr__(self) -> str:
        return f"<Diagnosis of {self.run!r}: {len(self.findings)} findings, {len(self.not_evaluable)} not evaluable>"


def instruction(*parts: str) -> str:
    """A finding's remedy of parts as a page lists them: with a capital first, semicolons between, and a full stop."""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
