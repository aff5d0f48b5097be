"""Lines of a text file of any size, with bounded memory: streamed, cut where they are too long, decoded with care.

A carriage return ends a line as well: progress bars draw over what they drew before. UTF-8 with or without a mark, and
UTF-16 with one (what a redirection in PowerShell writes) are read; bytes that are no text become question
marks of that kind (U+FFFD).
"""

import codecs
import re
import time
from collections.abc import Iterator
from pathlib import Path

from thalweg.core.errors import RunFileError
from thalweg.record.importing import progress

LONGEST = 1 << 16
"""Characters of a line that are read; no log line that a person would read is longer."""
_CHUNK = 1 << 20
_ENDS = re.compile(r"\r\n|\n|\r")
_STILL = 30.0  # seconds without a change after which a log counts as ended
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def lines_of(path: Path, *, cut: int = LONGEST) -> Iterator[str]:
    """The lines of a file without their ends; a longer line is cut, and what is behind the cut is left out.

    Raises:
        RunFileError: it can't be read.
    """
    kept, skipping = "", False
    for text in _chunks(path):
        pieces = _ENDS.split(kept + text)
        kept = pieces.pop()
        for piece in pieces:
            if not skipping:
                yield piece[:cut]
            skipping = False
        if len(kept) > cut:
            if not skipping:
                yield kept[:cut]
            kept, skipping = "", True
    if kept and not skipping:
        yield kept


def head_of(path: Path, size: int = 1 << 15) -> str:
    """The beginning of a file as text; empty for one that can't be read, or that is no text."""
    try:
        with path.open("rb") as file:
            start = file.read(size)
    except OSError:
        return ""
    mark, name = _encoding(start)
    text = start[mark:].decode(name, "replace")
    return "" if "\0" in text else text


def still_written(path: Path) -> bool:
    """Whether a file was changed within the last half minute."""
    try:
        return time.time() - path.stat().st_mtime < _STILL
    except OSError:
        return False


def _chunks(path: Path) -> Iterator[str]:
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_CHUNK)
            mark, name = _encoding(start)
            decoder = codecs.getincrementaldecoder(name)("replace")
            done, data = len(start), start[mark:]
            while data:
                progress.say(done, total)
                yield decoder.decode(data).replace("\0", "")
                data = file.read(_CHUNK)
                done += len(data)
            yield decoder.decode(b"", final=True)
    except OSError as error:
        raise RunFileError(f"{path} can't be read ({error.strerror or error})") from error


def _encoding(start: bytes) -> tuple[int, str]:
    """The length of a byte order mark, and the encoding it says."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return len(mark), name
    return 0, "utf-8"
