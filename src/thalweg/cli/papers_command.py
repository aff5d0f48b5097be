"""``thalweg papers``: the bibliography that the methods refer to."""

from typing import Annotated

from typer import Argument, Option


def list_papers(
    word: Annotated[
        str | None, Argument(help="Only papers with this in the title, or with this number.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """List the papers that the methods come from: number, year, title, where to read it."""
    from thalweg.cli.output import print_json, table, write
    from thalweg.core import papers
    from thalweg.record.plotting import safe_text

    wanted = (word or "").casefold()
    chosen = [paper for paper in papers() if wanted in paper.title.casefold() or wanted == str(paper.id)]
    if json:
        print_json(chosen)
    elif not chosen:
        write(f"No paper's title holds {safe_text(word)}.")
    else:
        rows = [(paper.id, paper.year or "", paper.title, paper.url) for paper in chosen]
        write(table(("number", "year", "title", "read at"), rows, right=("number",)))
