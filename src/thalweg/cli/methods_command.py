"""``thalweg methods``: what the library can do, a line each, with the papers it comes from."""

from typing import Annotated

from typer import Option


def list_methods(
    kind: Annotated[
        str | None, Option("--kind", help="Only one kind: instrument, schedule, rule, ...")
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """List the methods: name, kind, what each says or does, and its papers (numbers of `thalweg papers`)."""
    from thalweg.cli.output import print_json, table, write
    from thalweg.core import methods

    cards = methods(kind)
    if json:
        print_json(cards)
        return
    rows = [(card.name, card.kind, card.summary, ", ".join(map(str, card.papers))) for card in cards]
    write(table(("name", "kind", "summary", "papers"), rows))
