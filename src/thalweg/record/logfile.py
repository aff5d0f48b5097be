"""The writing side of a log: whole frames appended to a file that one process owns.

Nothing a disk does reaches the caller: what can't be written now is kept within a bound and tried again, and
what goes beyond the bound is dropped and counted.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from thalweg.core.errors import RunFileError
from thalweg.record.frames import file_header

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_LOOK_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A frame ready to be written, and how many points are lost if it is not; 0 for what must be kept."""

    data: bytes
    points: int = 0


class LogFile:
    """An append-only file, created exclusively.

    Args:
        path: where; its folder is made if it isn't there.
        keep: bytes of unwritten frames kept while the disk refuses them.
        tell: called with one sentence when the disk begins to refuse, or the file is gone.

    Raises:
        RunFileError: the file exists, or can't be created or written.
    """

    def __init__(self, path: Path, *, keep: int, tell: Callable[[str], None]) -> None:
        self.path = path
        self.size = 0
        self.dropped = 0
        self.gone = False
        self._keep = keep
        self._tell = tell
        self._waiting: list[Piece] = []
        self._next_try = 0.0
        self._wait = 0.0
        self._looked = time.monotonic()
        self._syncing: threading.Thread | None = None
        try:
            _make_folder(path.parent)
            flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
            self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)
        except FileExistsError:
            raise RunFileError(
                f"{path} exists, and a run is never overwritten: choose another name, or resume the run"
            ) from None
        except OSError as error:
            raise RunFileError(
                f"{path} can't be created ({error.strerror}): choose another folder"
            ) from error

    def begin(self, frames: list[bytes]) -> None:
        """Write the header and the first frames; here a disk that refuses is an error."""
        try:
            self._append(file_header() + b"".join(frames))
        except OSError as error:
            os.close(self._fd)
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise RunFileError(f"{self.path} can't be written ({error.strerror})") from error

    def write(self, pieces: list[Piece], *, now: bool = False) -> bool:
        """Append frames; True if everything that waited is in the file."""
        self._look()
        if self.gone:
            self.dropped += sum(p.points for p in pieces)
            return False
        self._waiting += pieces
        if not now and time.monotonic() < self._next_try:
            self._bound()
            return False
        before = self.size
        try:
            self._append(b"".join(p.data for p in self._waiting))
        except OSError as error:
            self._refused(error, self.size - before)
            return False
        self._waiting = []
        self._wait = self._next_try = 0.0
        return True

    def touch(self) -> None:
        """Say "still alive" to readers on other machines without writing anything."""
        with contextlib.suppress(OSError):
            os.utime(self._fd)

    def sync(self) -> None:
        """Ask for what was written to reach the disk, without waiting for it."""
        if self._syncing is None or not self._syncing.is_alive():
            self._syncing = threading.Thread(target=_sync, args=(os.dup(self._fd),), daemon=True)
            self._syncing.start()

    def close(self) -> None:
        """Give the file back; what could not be written until now is counted as dropped."""
        self.dropped += sum(p.points for p in self._waiting)
        self._waiting = []
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.write(self._fd, view)
            self.size += done
            view = view[done:]

    def _refused(self, error: OSError, written: int) -> None:
        """Keep what is not wholly written: a frame that was cut short is written again from its beginning."""
        for index, piece in enumerate(self._waiting):
            written -= len(piece.data)
            if written < 0:
                self._waiting = self._waiting[index:]
                break
        first = not self._wait
        self._wait = min(_LONGEST_WAIT, 2 * self._wait or _FIRST_WAIT)
        self._next_try = time.monotonic() + self._wait
        self._bound()
        if first:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "the disk is full" if full else error.strerror or str(error)
            self._tell(
                f"{self.path} can't be written ({why}): the run goes on, the record is kept in memory up to "
                f"{self._keep >> 20} MB and tried again"
            )

    def _bound(self) -> None:
        """Of the waiting blocks keep every second one until they fit; declarations are always kept."""
        while sum(len(p.data) for p in self._waiting if p.points) > self._keep:
            blocks = [i for i, p in enumerate(self._waiting) if p.points]
            out = set(blocks[1::2] or blocks)
            self.dropped += sum(self._waiting[i].points for i in out)
            self._waiting = [p for i, p in enumerate(self._waiting) if i not in out]

    def _look(self) -> None:
        """Notice that somebody removed or replaced the file."""
        if self.gone or time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        if not self.is_in_place():
            self.gone = True
            self.dropped += sum(p.points for p in self._waiting)
            self._waiting = []
            self._tell(f"{self.path} was removed while the run was being written: nothing more is recorded")

    def is_in_place(self) -> bool:
        """Whether the file under the name is still the one that is written."""
        try:
            there, ours = self.path.stat(), os.fstat(self._fd)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a file system that doesn't answer is not a file that is gone
        return (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _sync(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.fsync(fd)
    with contextlib.suppress(OSError):
        os.close(fd)
