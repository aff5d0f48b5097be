"""``thalweg data``: the real data sets that the experiments use, and fetching one."""

from typing import Annotated

from typer import Argument, Option


def list_data(
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """List the data sets: what each is, where it comes from, its size and licence."""
    from thalweg.cli.output import print_json, size, table, write
    from thalweg.data import sets

    if json:
        print_json([vars(one) | {"source": one.source} for one in sets()])
        return
    columns = ("name", "what", "as loaded", "comes from", "size", "fetch", "licence")
    rows = [
        (s.name, s.title, s.shape, s.source, size(s.size), "needed" if s.archive else "no", s.licence)
        for s in sets()
    ]
    write(table(columns, rows, right=("size",)))


def fetch_data(
    names: Annotated[
        list[str], Argument(metavar="NAME...", help="The sets to fetch, as `thalweg data list` names them.")
    ],
    json: Annotated[bool, Option("--json", help="Write a list of records.")] = False,
) -> None:
    """Fetch data sets into the cache, unless they are there, and check them against their checksums."""
    from thalweg.cli.output import print_json, write
    from thalweg.data import fetch
    from thalweg.record.plotting import safe_text

    paths = {name: fetch(name) for name in names}
    if json:
        print_json({"name": name, "path": path} for name, path in paths.items())
        return
    for path in paths.values():
        write(safe_text(path))
