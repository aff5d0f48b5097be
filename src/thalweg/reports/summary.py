"""The top of the page: a card for each run, what differs between their settings, and the table of events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thalweg.record import Event, Run
from thalweg.record.plotting import number
from thalweg.reports.figures import SEVERITIES, Source
from thalweg.reports.markup import Markup, element, join
from thalweg.reports.words import cost_in_words, duration, flat, how_it_ended, moment

EVENTS_LISTED = 500
_SETTINGS_LISTED = 300


def run_card(source: Source, among: int) -> Markup:
    """Return the card of one run of several: what it is, how it ended, what it cost, and its settings to unfold."""
    run = source.run
    swatch = element("span", "", class_="swatch", data_run=source.index)
    toggle = element(
        "button", "shown", type="button", class_="toggle", data_run=source.index, aria_pressed="true"
    )
    facts = [(name, value) for name, value in _facts(source) if value]
    rows = join(*(element("div", element("dt", name), element("dd", value)) for name, value in facts))
    tags = (
        element("p", *(element("span", tag, class_="tag") for tag in run.tags), class_="tags")
        if run.tags
        else None
    )
    cost = run.meta.get("cost")
    periods = cost.get("periods") if isinstance(cost, Mapping) else None
    notes = join(*(element("p", warning, class_="warning") for warning in run.warnings))
    return element(
        "article",
        element("header", swatch, element("h3", source.label), toggle if among > 1 else None),
        tags,
        notes,
        element("dl", rows),
        _unfold("Settings", run.config),
        _unfold("Environment", run.environment),
        _unfold("Measured every so many steps", periods) if isinstance(periods, Mapping) else None,
        class_="card",
    )


def _facts(source: Source) -> Iterator[tuple[str, str]]:
    run = source.run
    yield "Id", run.id
    yield "Started", moment(source.start)
    yield "Ended", how_it_ended(run.live, run.segments[-1].reason if run.segments else "")
    step, time = last_update(run)
    yield "Lasted", duration(max(0.0, time - source.start)) if source.start and time else ""
    yield "Steps", number(step)
    for role, label in (("train loss", "Last loss"), ("evaluation loss", "Last evaluation loss")):
        for series in run.all_by_role(role)[:1]:
            if len(series) and not series.spec.shape:
                yield label, f"{float(series.values[-1]):.5g} at step {int(series.steps[-1]):,}"
    environment = flat(run.environment)
    for label, words in (
        ("Device", ("device", "gpu", "accelerator", "cpu")),
        ("Versions", ("torch", "python", "thalweg")),
    ):
        yield label, _matching(environment, words)
    yield "Cost of the watch", cost_in_words(run.meta.get("cost"))
    if len(run.segments) > 1:
        yield "Segments", str(len(run.segments))


def last_update(run: Run) -> tuple[int, float]:
    """Return the last step of a run and when it was, in Unix seconds; zeros if nothing was recorded."""
    if not run.clocks:
        return 0, 0.0
    wall = run.wall_time("updates" if "updates" in run.clocks else run.clocks[0])
    return (int(wall.steps[-1]), float(wall.values[-1])) if len(wall) else (0, 0.0)


def _matching(settings: Mapping[str, Any], words: Sequence[str]) -> str:
    """Return the first few settings whose last name is one of the words, as text."""
    found = [(w, v) for w in words for k, v in settings.items() if k.rpartition(".")[2].lower() == w and v]
    return ", ".join(str(v) if words[0] == "device" else f"{w} {v}" for w, v in found[:3])


def _unfold(title: str, settings: Mapping[str, Any]) -> Markup | None:
    pairs = list(flat(settings).items())
    if not pairs:
        return None
    rows = [
        element("tr", element("th", key, scope="row"), element("td", value))
        for key, value in pairs[:_SETTINGS_LISTED]
    ]
    more = (
        f" ({len(pairs)}, the first {_SETTINGS_LISTED} shown)"
        if len(pairs) > _SETTINGS_LISTED
        else f" ({len(pairs)})"
    )
    return element("details", element("summary", title, more), _table(None, rows))


def differences(sources: Sequence[Source]) -> Markup | None:
    """Return a table of the settings in which several runs differ, or None if they differ in none."""
    settings = [flat(source.run.config) for source in sources]
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]
    if len(sources) < 2 or not differing:
        return None
    head = ("setting", *(source.label for source in sources))
    rows = [
        element(
            "tr", element("th", key, scope="row"), *(element("td", one.get(key, "—")) for one in settings)
        )
        for key in differing[:_SETTINGS_LISTED]
    ]
    return element("section", element("h2", "What differs"), _table(head, rows), id="differences")


def event_table(sources: Sequence[Source]) -> Markup:
    """Return the table of events of all runs, most severe first, then in time; at most 500, and it says so."""
    events = [(source, event) for source in sources for event in source.run.events()]
    listed = sorted(events, key=lambda pair: _severity(pair[1]))[:EVENTS_LISTED]
    heading = element("h2", "Events")
    if not events:
        return element(
            "section", heading, element("p", "Nothing happened that was recorded as an event."), id="events"
        )
    said = f"The {EVENTS_LISTED} most severe of {len(events):,}." if len(events) > EVENTS_LISTED else None
    note = element("p", said, class_="about") if said else None
    head = ("severity", "run", "step", "after", "what", "details")
    return element(
        "section", heading, note, _table(head, [_event_row(*pair) for pair in listed]), id="events"
    )


def _severity(event: Event) -> int:
    return SEVERITIES.index(event.severity) if event.severity in SEVERITIES else len(SEVERITIES)


def _event_row(source: Source, event: Event) -> Markup:
    badge = element("span", event.severity, class_="badge", data_severity=event.severity)
    after = duration(max(0.0, event.time - source.start)) if source.start else ""
    step = "" if event.step is None else f"{event.step:,}"
    details = "; ".join(f"{key}: {value}" for key, value in flat(event.details).items())
    cells = (badge, source.label, step, after, event.kind, details[:2_000])
    return element("tr", *(element("td", cell) for cell in cells))


def _table(head: Sequence[str] | None, rows: Sequence[Markup]) -> Markup:
    top = (
        element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
        if head
        else None
    )
    # A table wider than a phone scrolls by itself; that needs a focus to be reached by keyboard.
    return element("div", element("table", top, element("tbody", *rows)), class_="table", tabindex="0")


def numbers_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a folded table of numbers: what a figure shows, for those who can't see it or want the digits."""
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("details", element("summary", "Numbers"), _table(head, body), class_="numbers")
