"""The page itself: one HTML file with its style, script, figures and numbers inside, that opens without a network.

A content security policy in the page forbids every request, and every script but its own two (by their hashes), so
that not even a mistake in escaping would let a name from a file run.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

from thalweg.core.errors import UsageError
from thalweg.diagnosis import Diagnosis, diagnose
from thalweg.record import Run
from thalweg.record.plotting import DARK, DASHES, LIGHT
from thalweg.reports.arrays import ArrayStore, pack
from thalweg.reports.figures import NUMBERS, Drawn, Source, as_sources, draw, draw_events
from thalweg.reports.findings_section import findings_section
from thalweg.reports.markup import Markup, element, join, script_json
from thalweg.reports.summary import differences, event_table, numbers_table, run_card

Reportable = Run | str | os.PathLike[str]


def report(
    runs: Reportable | Sequence[Reportable],
    out: str | os.PathLike[str],
    *,
    diagnoses: Sequence[Diagnosis] | None = None,
) -> Path:
    """Write one HTML page about a run, or about several overlaid, and return its path.

    The file needs no network and no other file. Curves are thinned so that no spike is lost, heat maps so that each
    column keeps its largest value; two runs of a million points make at most 6 MB. An earlier page of that name
    is replaced, in one step.

    Args:
        runs: a run, the path of one, or several of either.
        out: where to write; its folder is made if it is missing.
        diagnoses: what was found in each run, in their order; by default every run is diagnosed.

    Raises:
        UsageError: no run was given.
        RunFileError: a path is not a run that can be read.
    """
    several = [runs] if isinstance(runs, Run | str | os.PathLike) else list(runs)
    if not several:
        raise UsageError("a report needs at least one run, and none was given")
    opened = [run if isinstance(run, Run) else _open(run) for run in several]
    text = _page(opened, [diagnose(run) for run in opened] if diagnoses is None else diagnoses)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)
    return path


def _open(path: str | os.PathLike[str]) -> Run:
    from thalweg.record import open_run

    return open_run(path)


def _page(runs: Sequence[Run], diagnoses: Sequence[Diagnosis]) -> str:
    sources = as_sources(runs)
    store = ArrayStore()
    figures = draw(sources, store)
    data = {
        "runs": [{"label": source.label} for source in sources],
        "panels": [
            {"kind": f.panel.kind, "unit": f.unit, "logarithmic": f.logarithmic, "traces": f.traces}
            for f in figures
        ],
        "events": [
            draw_events(source, store, diagnosis)
            for source, diagnosis in zip(sources, diagnoses, strict=True)
        ],
        "colors": {"light": LIGHT, "dark": DARK},
        "dashes": DASHES,
    }
    title = f"Thalweg: {', '.join(source.label for source in sources[:4])}{' …' if len(sources) > 4 else ''}"
    body = join(
        _top(sources, ["Findings", *dict.fromkeys(figure.panel.section for figure in figures), "Events"]),
        element(
            "main",
            element(
                "section",
                *(run_card(source, len(sources)) for source in sources),
                class_="cards",
                aria_label="Runs",
                id="runs",
            ),
            findings_section(diagnoses),
            differences(sources),
            *_sections(figures),
            event_table(sources),
            id="main",
        ),
        element(
            "footer", "Written by Thalweg. This page holds all its data and asks nothing of the network."
        ),
    )
    return _document(title, body, data, store)


def _top(sources: Sequence[Source], sections: Sequence[str]) -> Markup:
    """Return the bar at the top: title, links to the sections, choice of the horizontal axis, theme."""
    tokens = any("tokens" in source.axes for source in sources)
    axes = [
        element(
            "button",
            axis,
            type="button",
            data_axis=axis,
            aria_pressed="true" if axis == "step" else "false",
            disabled=axis == "tokens" and not tokens,
            title="no run recorded tokens: watch.log(loss=loss, tokens=n)"
            if axis == "tokens" and not tokens
            else None,
        )
        for axis in ("step", "time", "tokens")
    ]
    count = "one run" if len(sources) == 1 else f"{len(sources)} runs"
    return element(
        "header",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        element("h1", "Thalweg ", element("small", count)),
        element(
            "nav", *(element("a", name, href=f"#{_anchor(name)}") for name in sections), aria_label="Sections"
        ),
        element("div", *axes, role="group", aria_label="Horizontal axis", class_="buttons"),
        element("div", element("button", "Theme", type="button", id="theme"), class_="buttons"),
        class_="top",
    )


def _sections(figures: Sequence[Drawn]) -> list[Markup]:
    numbered = list(enumerate(figures))
    return [
        element(
            "section", element("h2", name), element("div", *(_figure(i, f) for i, f in group), class_="grid")
        )
        for name, group in groupby(numbered, key=lambda pair: pair[1].panel.section)
    ]


def _anchor(section: str) -> str:
    return section.lower().replace(" ", "-")


def _figure(index: int, drawn: Drawn) -> Markup:
    panel = drawn.panel
    heading = f"panel-{index}"
    plots = None
    if drawn.traces and panel.kind == "layers":
        names = len({trace["name"] for trace in drawn.traces}) > 1
        plots = join(
            *(_plot(index, i, f": {t['name']}" if names else "") for i, t in enumerate(drawn.traces))
        )
    elif drawn.traces:
        plots = _plot(index, 0, "")
    scale = element("button", "log", type="button", class_="scale", data_panel=index, aria_pressed="false")
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", panel.title, id=heading),
            scale if drawn.traces and panel.kind == "lines" else None,
            element("p", panel.about, class_="about") if drawn.traces or not panel.missing else None,
        ),
        plots,
        _not_recorded(drawn),
        _left_out(drawn),
        numbers_table(("run", "signal", *NUMBERS), drawn.numbers) if drawn.numbers else None,
        role="group",
        aria_labelledby=heading,
        class_=f"panel {panel.kind}{'' if drawn.traces else ' empty'}",
    )


def _plot(panel: int, trace: int, subtitle: str) -> Markup:
    return element("div", "", class_="plot", data_panel=panel, data_trace=trace, data_subtitle=subtitle)


def _not_recorded(drawn: Drawn) -> Markup | None:
    """Say, in the place of a figure or under it, what was not recorded and what would record it."""
    panel = drawn.panel
    if not panel.missing or not drawn.without:
        return None
    whom = f" in {', '.join(drawn.without)}" if drawn.traces else ""
    hint = join(" To record it: ", element("code", panel.hint)) if panel.hint else None
    return element("p", f"{panel.missing[:1].upper()}{panel.missing[1:]}{whom}.", hint, class_="missing")


def _left_out(drawn: Drawn) -> Markup | None:
    if not drawn.left_out:
        return None
    named = ", ".join(drawn.left_out[:40]) + (" …" if len(drawn.left_out) > 40 else "")
    return element("p", f"{len(drawn.left_out)} more not drawn: {named}", class_="about")


# ------------------------------------------------------------------------------------------- the document
def _document(title: str, body: Markup, data: object, store: ArrayStore) -> str:
    plotly = _plotly_source()
    script = _asset("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(script)} {_hash(plotly)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Markup(_asset("page.css"))),
    )
    unsupported = element(
        "p",
        "The figures are drawn by a script inside this page. They need a browser of 2023 or later (Chrome 80, "
        "Firefox 113, Safari 16.4) with JavaScript on; the tables are complete without it.",
        id="unsupported",
        role="status",
    )
    blocks = join(
        element("script", script_json(data), type="application/json", id="data"),
        element("script", Markup(store.packed()), type="text/plain", id="arrays"),
        element("script", Markup(pack(plotly.encode("utf-8"))), type="text/plain", id="plotly"),
        element("script", Markup(script)),
    )
    page = element("html", element("head", head), element("body", unsupported, body, blocks), lang="en")
    return f"<!doctype html>\n{page}\n"


def _plotly_source() -> str:
    """Return plotly.js as the installed package ships it, with the line ends a browser hashes."""
    file = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    return file.read_text(encoding="utf-8").replace("\r\n", "\n")


def _asset(name: str) -> str:
    return resources.files("thalweg.reports").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
