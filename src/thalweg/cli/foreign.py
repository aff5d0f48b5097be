"""Opening what a user names, run file or log of another tool, with what they say of its names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thalweg.core.errors import UsageError

if TYPE_CHECKING:
    from thalweg.record import Run


def open_any(text: str, maps: Sequence[str] = (), pattern: str = "") -> "Run":
    """Open the run that ``text`` means: a path, ``PATH::NAME``, or the beginning of a name or id in runs/.

    Args:
        text: what the user typed.
        maps: ``loss=train/my_loss``, each.
        pattern: for text logs, a regular expression with named groups.

    Raises:
        RunFileError: nothing is there, it can't be read, or it holds several runs (the message lists them).
        UsageError: a map is not of that form, or a name fits several runs.
    """
    from thalweg.cli.choosing import find_run
    from thalweg.record import open_run
    from thalweg.record.importing import import_runs

    if pattern:
        return import_runs(text, map=as_map(maps), pattern=pattern)[0]
    return open_run(find_run(text), map=as_map(maps))


def as_map(maps: Sequence[str]) -> dict[str, str]:
    """``["loss=train/my_loss"]`` as ``{"loss": "train/my_loss"}``.

    Raises:
        UsageError: one is not of that form.
    """
    out = {}
    for item in maps:
        word, equals, name = item.partition("=")
        if not (word and equals and name):
            raise UsageError(f"--map takes WORD=NAME, as in loss=train/my_loss; it got {item!r}")
        out[word.strip()] = name.strip()
    return out
