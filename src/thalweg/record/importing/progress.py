"""How far reading has come: importers say it, and whoever waits for them listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[int, int], None]
"""Called with the bytes read and the bytes there are."""

_LISTENER: ContextVar[Tell | None] = ContextVar("thalweg_import_progress", default=None)


@contextmanager
def listening(tell: Tell | None) -> Iterator[None]:
    """Within the block, `tell` is called with what importers say."""
    token = _LISTENER.set(tell)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def say(done: int, total: int) -> None:
    """Say that `done` of `total` bytes are read; for importers, every megabyte or so."""
    tell = _LISTENER.get()
    if tell is not None:
        tell(done, total)
