"""A diagnosis for reading: as text for a terminal, as HTML for a notebook. Never more than a person would read.

The first findings are shown whole, with their plot; further ones in a line each; symptoms in a line under their cause;
what could not be judged is gathered by the line of code that would record it.
"""

import textwrap
from collections.abc import Iterator
from html import escape

import numpy as np

from thalweg.core import paper
from thalweg.diagnosis.findings import Diagnosis, Finding, NotEvaluable, Plot
from thalweg.record import Run, Series
from thalweg.record.plotting import safe_text, terminal_plot
from thalweg.record.sketching import Strip, sketch

WHOLE = 4  # findings with evidence, plot and remedy; the rest in a line
_LINES = 12
_SYMPTOMS = 4
_PLOTTED = 2  # signals of a finding's plot that a terminal shows
_MARKS = {"critical": "✖", "warning": "▲", "note": "·"}


def as_text(diagnosis: Diagnosis, *, width: int = 100, plots: bool = True) -> str:
    """Findings with their evidence and remedy, then what could not be judged."""
    parts = [headline(diagnosis)]
    for place, finding in enumerate(diagnosis.findings[: WHOLE + _LINES]):
        parts.append("")
        if place < WHOLE:
            parts += _whole(finding, diagnosis.source if plots else None, width)
        else:
            parts.append(_wrap(one_line(finding), width, "  "))
    if len(diagnosis.findings) > WHOLE + _LINES:
        parts += ["", f"and {len(diagnosis.findings) - WHOLE - _LINES} more: --json lists them all"]
    if diagnosis.not_evaluable:
        parts += ["", "Could not be judged:"]
    for line, kinds in by_record(diagnosis.not_evaluable).items():
        if line:
            parts.append(_wrap(f"{len(kinds)} with  {line}", width, "  "))
            parts.append(_wrap(", ".join(kinds), width, "      "))
        else:
            parts.append("  for a log that is too short or too coarse:")
            parts += [_wrap(words, width, "      ") for words in kinds]
    parts += [f"The rule {name} failed: {safe_text(why)}" for name, why in diagnosis.failed.items()]
    parts += [_wrap(f"Warning: {warning}", width, "") for warning in diagnosis.warnings[:_LINES]]
    return "\n".join(parts)


def headline(diagnosis: Diagnosis) -> str:
    """The name of the run, how many findings of which severity, how many rules were judged."""
    counts = [
        f"{n} {severity}{'s' if n > 1 and severity != 'critical' else ''}"
        for severity in ("critical", "warning", "note")
        if (n := sum(f.severity == severity for f in diagnosis.findings))
    ]
    found = ", ".join(counts) if counts else "nothing found"
    lacking = f", {len(diagnosis.not_evaluable)} could not be judged" if diagnosis.not_evaluable else ""
    unit = f"; steps are {diagnosis.clock} here" if diagnosis.clock != "updates" else ""
    return f"{safe_text(diagnosis.run)}: {found} ({len(diagnosis.judged)} rules judged{lacking}{unit})"


def one_line(finding: Finding) -> str:
    """Kind, title, place and steps of a finding in one line."""
    where = f" in {finding.where}" if finding.where else ""
    return f"{_MARKS[finding.severity]} {finding.kind}: {finding.title}{where} ({steps_of(finding)})"


def steps_of(finding: Finding) -> str:
    """ "step 1,200" or "steps 1,200 to 1,260"."""
    if finding.first_step == finding.last_step:
        return f"step {finding.first_step:,}"
    return f"steps {finding.first_step:,} to {finding.last_step:,}"


def citations(papers: tuple[int, ...]) -> list[str]:
    """The papers of a finding or a card: title, year and address where known."""
    out = []
    for number in papers:
        one = paper(number)
        year = f" ({one.year})" if one.year else ""
        out.append(f"{one.title}{year}" + (f", {one.url}" if one.url else ""))
    return out


def by_record(lacking: tuple[NotEvaluable, ...]) -> dict[str, list[str]]:
    """Rules that could not be judged, by the line of code that would let them; "" for a log too short or too coarse.

    Lines that would let most rules judge come first. Where no line would do, what a rule lacks is said with it.
    """
    out: dict[str, list[str]] = {}
    for one in lacking:
        out.setdefault(one.record, []).append(one.kind if one.record else f"{one.kind} needs {one.lacked}")
    return dict(sorted(out.items(), key=lambda item: (not item[0], -len(item[1]))))


def strips_of(run: Run, plot: Plot) -> list[Strip]:
    """The signals of a finding's plot that the run has, cut to its range."""
    out = []
    for name in plot.signals:
        series = run.get(name)
        if series is not None and not series.spec.shape:
            out.append(_cut(series, plot))
    return out


def _cut(series: Series, plot: Plot) -> Strip:
    low = -np.inf if plot.first is None else plot.first
    high = np.inf if plot.last is None else plot.last
    kept = (series.steps >= low) & (series.steps <= high)
    return Strip(series.name, series.steps[kept], series.values[kept].astype(np.float64))


def _whole(finding: Finding, run: Run | None, width: int) -> Iterator[str]:
    where = f" · {finding.where}" if finding.where else ""
    yield _wrap(
        f"{_MARKS[finding.severity]} {finding.severity.upper()}  {finding.kind}: {finding.title}", width, ""
    )
    yield f"  {steps_of(finding)}{safe_text(where)} · confidence {finding.confidence:.0%}"
    yield _wrap(finding.evidence.text, width, "  ")
    if run is not None and finding.evidence.plot is not None:
        for strip in strips_of(run, finding.evidence.plot)[:_PLOTTED]:
            if len(strip.steps) > 1:
                yield textwrap.indent(
                    terminal_plot(strip.steps, strip.values, min(width, 90) - 4, 8, strip.name), "    "
                )
    yield _wrap(f"Do: {finding.remedy}", width, "  ")
    for citation in citations(finding.papers[:1]):
        yield _wrap(f"Paper: {citation}", width, "  ")
    for symptom in finding.symptoms[:_SYMPTOMS]:
        yield _wrap(f"└ explains {one_line(symptom)}", width, "  ")
    if len(finding.symptoms) > _SYMPTOMS:
        yield f"  └ and {len(finding.symptoms) - _SYMPTOMS} more"


def _wrap(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        safe_text(text), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def as_html(diagnosis: Diagnosis) -> str:
    """The same as a fragment of HTML in which nothing of the log is markup."""
    parts = [f"<p><b>{escape(headline(diagnosis))}</b></p>"]
    for place, finding in enumerate(diagnosis.findings[: WHOLE + _LINES]):
        words = escape(safe_text(one_line(finding)))
        if place >= WHOLE:
            parts.append(f"<p>{words}</p>")
            continue
        picture = ""
        if diagnosis.source is not None and finding.evidence.plot is not None:
            strips = strips_of(diagnosis.source, finding.evidence.plot)[:3]
            picture = sketch(strips, marks=finding.evidence.plot.marks, title=finding.title) if strips else ""
        papers = "".join(f"<br><i>{escape(text)}</i>" for text in citations(finding.papers[:1]))
        symptoms = "".join(f"<li>{escape(safe_text(one_line(s)))}</li>" for s in finding.symptoms)
        parts.append(
            f"<details {'open' if place == 0 else ''}><summary>{words}</summary><p>{escape(safe_text(finding.evidence.text))}"
            f'</p><div style="max-width:640px">{picture}</div><p><b>Do:</b> {escape(safe_text(finding.remedy))}{papers}</p>'
            + (f"<p>Explains:</p><ul>{symptoms}</ul>" if symptoms else "")
            + "</details>"
        )
    rows = "".join(
        f"<li>{escape(safe_text(', '.join(kinds)))}{f': <code>{escape(line)}</code>' if line else ''}</li>"
        for line, kinds in by_record(diagnosis.not_evaluable).items()
    )
    if rows:
        parts.append(f"<details><summary>Could not be judged</summary><ul>{rows}</ul></details>")
    return "\n".join(parts)
