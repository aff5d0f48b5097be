"""Lines of a text file of any size, with bounded memory: streamed, cut where they are too long, decoded with care.

A carriage return ends a line as well: progress bars draw over what they drew before. UTF-8 with or without a mark, and
UTF-16 with one (what a redirection in PowerShell writes) are read; bytes that are no text become question
marks of that kind (U+FFFD).

Lines that a program prints again and again differ in their numbers only: `shape_of` tells a line's numbers from what is
around them, and `samples` makes lines of the same shape.
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
_NUMBERS = re.compile(  # standing free, with a fraction or groups of thousands; no sign, no exponent
    r"([0-9](?:(?<![\w@.,+\-][0-9])|(?<=[,+\-][0-9])(?<![0-9],[0-9])(?<![0-9][eE][-+][0-9]))"
    r"(?=[0-9]{0,8}+([.,](?=[0-9])|(?![0-9]))|[0-9]{9,14}+(?![0-9]))"
    r"(?:[0-9]{0,8}+(?:\.[0-9]{1,20}+)?|[0-9]{0,2}(?:,[0-9]{3}){1,4}(?:\.[0-9]{1,20})?|[0-9]{9,14}+)(?![.,]?[0-9]))"
)
_MOST_NUMBERS = 256  # of a line with a shape
_LONGEST_SHAPED = 1 << 12
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


Shape = tuple[str | None, ...]
"""What is between the numbers of a line and, before each of those, what sort of number follows it."""


def shape_of(line: str) -> tuple[Shape, list[str]] | None:
    """A line's shape, and its numbers as they stand; None for a line of more than 4,096 characters or 256 numbers.

    The shape has the text before the first number, then for each number its kind and the text behind it. Kinds are ""
    for up to 9 digits, None for 10 to 15, "." for a fraction of up to 20 digits and "," for groups of thousands. Signs,
    exponents, digits that belong to a word ("Acc@1") and longer numbers are part of the text.
    """
    if len(line) > _LONGEST_SHAPED:
        return None
    pieces = _NUMBERS.split(line)
    numbers = pieces[1::3]
    if len(numbers) > _MOST_NUMBERS:
        return None
    del pieces[1::3]
    return tuple(pieces), numbers


NARROW = 10
"""Characters of a number in a narrow sample."""


def samples(shape: Shape, *, narrow: bool = False) -> list[list[str]]:
    """Numbers for lines of a shape: the longest, ascending; the longest, descending; the shortest.

    No two of the longest are the same. A reader that treats all digits alike, and for which a length matters only by
    being within bounds, treats every line of the shape as it treats these; or, if `narrow`, every such line whose
    numbers have at most `NARROW` characters.
    """
    kinds = shape[1::2]
    widest = _NARROW if narrow else _WIDE
    places = range(len(kinds))
    return [
        [widest[kind].format(100 + place) for place, kind in zip(places, kinds, strict=True)],
        [widest[kind].format(899 - place) for place, kind in zip(places, kinds, strict=True)],
        [_SHORT[kind].format(1 + place % 9) for place, kind in zip(places, kinds, strict=True)],
    ]


_WIDE = {
    "": "{}739182",
    None: "{}739182645917",
    ".": "{}739182.64591728364591728365",
    ",": "{},739,182,645,917.28364591728364591728",
}
_NARROW = {"": "{}739182", None: "{}7391826", ".": "{}7.64591", ",": "{},739.64"}
_SHORT = {"": "{}", None: "{}739182645", ".": "{}.7", ",": "{},739"}


def filled(shape: Shape, numbers: list[str]) -> str:
    """The line of a shape that has these numbers."""
    pieces: list[str] = [text or "" for text in shape]
    pieces[1::2] = numbers
    return "".join(pieces)
