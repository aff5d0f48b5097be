"""``thalweg explain``: what a kind of trouble is, how it is told from its look-alikes, what to do, and the paper."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from thalweg.diagnosis import Rule


def explain_kind(
    kind: Annotated[
        str | None, Argument(help="The name of a kind of finding; all are listed without it.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Explain a kind of finding, with a picture of the trouble and of health; without a name, list all."""
    from thalweg.cli import output
    from thalweg.diagnosis import explain, kinds

    if json:
        output.print_json([_record(explain(name)) for name in ([kind] if kind else kinds())])
    elif kind is None:
        rows = [(name, explain(name).card.summary) for name in kinds()]
        output.write(output.table(("kind", "what it is"), rows))
    else:
        output.write(_page(explain(kind)))


def _record(rule: "Rule") -> dict[str, Any]:
    from thalweg.diagnosis.pictures import picture_of

    return {
        "kind": rule.card.name,
        "card": rule.card,
        "page": rule.page,
        "picture": picture_of(rule.card.name),
    }


def _page(rule: "Rule") -> str:
    from textwrap import fill

    from thalweg.cli.output import heading
    from thalweg.diagnosis.rendering import citations
    from thalweg.record.plotting import safe_text

    def listed(items: Any) -> list[str]:
        return [fill(safe_text(item), 98, initial_indent="  - ", subsequent_indent="    ") for item in items]

    card, page = rule.card, rule.page
    parts = [
        heading(card.name),
        fill(page.what, 98),
        "",
        *_pictures(card.name),
        heading("What brings it about"),
    ]
    parts += [*listed(page.causes), "", heading("Its look-alikes, and how it is told from them")]
    parts += [*listed(f"{name}: {how}" for name, how in page.apart.items()), "", heading("What to do")]
    parts += [*listed(page.remedy), ""]
    if page.explains:
        parts += [f"Explains, where they come later: {', '.join(page.explains)}"]
    if card.formula:
        parts += [f"Definition: {card.formula}"]
    if card.needs:
        parts += [f"Needs: {card.needs}"]
    parts += [fill(f"Thresholds: {page.tried}", 98)]
    parts += [fill(f"Paper: {text}", 98) for text in citations(card.papers)]
    return "\n".join(parts)


def _pictures(kind: str) -> list[str]:
    """The first signal of the trouble, and the same of a healthy run, as terminal plots."""
    from thalweg.diagnosis.pictures import picture_of
    from thalweg.record.plotting import terminal_plot

    picture = picture_of(kind)
    if picture is None:
        return []
    parts = []
    for side, words in (("sick", "the trouble"), ("healthy", "health")):
        for name, (steps, values) in list(picture[side]["signals"].items())[:1]:
            values = [float("nan") if v is None else v for v in values]
            parts += [terminal_plot(steps, values, 98, 9, f"{words}: {name} ({picture[side]['run']})"), ""]
    return parts
