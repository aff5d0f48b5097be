"""What every test gets: a working folder of its own, one thread for torch, and no watch that outlives it."""

import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_finish() -> None:
    """One thread: small tensors on few cores are faster so, and sums come out the same every time."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_leaked_watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    session = sys.modules.get("thalweg.watching.session")
    if session is None:
        yield
        return
    made: weakref.WeakSet[object] = weakref.WeakSet()
    plain = session.Watch.__init__

    def remembering(self: object, *args: object, **kwargs: object) -> None:
        made.add(self)
        plain(self, *args, **kwargs)

    monkeypatch.setattr(session.Watch, "__init__", remembering)
    yield
    for watch in list(made):
        watch.close()
