"""The findings of each run, first on the page: what, how sure, where, why with its picture, what to do, the paper."""

from collections.abc import Sequence

from thalweg.diagnosis import Diagnosis, Finding
from thalweg.diagnosis.rendering import WHOLE, by_record, citations, headline, steps_of, strips_of
from thalweg.record import Run
from thalweg.record.sketching import sketch
from thalweg.reports.markup import Markup, element, join

_LISTED = 20
_STRIPS = 3


def findings_section(diagnoses: Sequence[Diagnosis]) -> Markup:
    """The section of all runs: a list of findings each, then what could not be judged and what would record it."""
    return element(
        "section",
        element("h2", "Findings"),
        *(_of_run(diagnosis, len(diagnoses)) for diagnosis in diagnoses),
        id="findings",
        class_="findings",
    )


def _of_run(diagnosis: Diagnosis, among: int) -> Markup:
    shown = diagnosis.findings[:_LISTED]
    more = len(diagnosis.findings) - len(shown)
    return element(
        "article",
        element("h3", headline(diagnosis))
        if among > 1
        else element("p", headline(diagnosis), class_="about"),
        *(_finding(f, diagnosis.source, place < WHOLE) for place, f in enumerate(shown)),
        element("p", f"and {more} more", class_="about") if more else None,
        _not_judged(diagnosis),
        class_="card",
    )


def _finding(finding: Finding, run: Run | None, unfolded: bool) -> Markup:
    where = f" · {finding.where}" if finding.where else ""
    summary = element(
        "summary",
        element("span", finding.severity, class_="badge", data_severity=finding.severity),
        " ",
        element("strong", finding.title),
        element(
            "span",
            f" {finding.kind}{where} · {steps_of(finding)} · {finding.confidence:.0%} sure",
            class_="about",
        ),
    )
    papers = citations(finding.papers[:2])
    return element(
        "details",
        summary,
        element("p", finding.evidence.text),
        _picture(finding, run),
        element("p", element("strong", "Do: "), finding.remedy),
        element("p", "Paper: ", "; ".join(papers), class_="about") if papers else None,
        _symptoms(finding),
        open=unfolded,
        class_="finding",
    )


def _picture(finding: Finding, run: Run | None) -> Markup | None:
    plot = finding.evidence.plot
    strips = strips_of(run, plot)[:_STRIPS] if run is not None and plot is not None else []
    if plot is None or not strips:
        return None
    drawing = Markup(
        sketch(strips, marks=plot.marks, title=f"{finding.kind}: {finding.title}")
    )  # escapes by itself
    return element("div", drawing, class_="sketch")


def _symptoms(finding: Finding) -> Markup | None:
    if not finding.symptoms:
        return None
    rows = (element("li", f"{s.kind}: {s.title} ({steps_of(s)})") for s in finding.symptoms)
    return join(element("p", "It explains:"), element("ul", *rows))


def _not_judged(diagnosis: Diagnosis) -> Markup | None:
    lines = by_record(diagnosis.not_evaluable)
    failed = [element("li", f"{name} failed: {why}") for name, why in diagnosis.failed.items()]
    if not lines and not failed:
        return None
    rows = [
        element("li", ", ".join(kinds), join(". To record it: ", element("code", line)) if line else None)
        for line, kinds in lines.items()
    ]
    count = len(diagnosis.not_evaluable) + len(failed)
    return element(
        "details", element("summary", f"{count} rules could not be judged"), element("ul", *rows, *failed)
    )
