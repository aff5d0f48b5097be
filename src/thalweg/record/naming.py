"""Names of run files: the default name, and how the files of one run are called.

``NAME.tw`` is a run's first segment, ``NAME~2.tw`` its second, ``NAME~r3.tw`` what rank 3 wrote of the first,
``NAME~2~r3.tw`` what it wrote of the second.
"""

import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

SELECTOR = "::"  # between the path of a log and the name of one of its runs
SUFFIX = ".tw"
_STEM = re.compile(r"^(?P<base>.+?)(?:~(?P<segment>[1-9]\d{0,5}))?(?:~r(?P<rank>\d{1,7}))?$", re.DOTALL)


@dataclass(frozen=True)
class FileName:
    """The parts of a run file's name; `segment` counts from 0."""

    base: str
    segment: int
    rank: int


def split_name(path: Path) -> FileName:
    """What a file's name says of its run, segment and rank."""
    stem = path.name.removesuffix(SUFFIX)
    match = _STEM.match(stem)
    if match is None:
        return FileName(stem, 0, 0)
    return FileName(match["base"], int(match["segment"] or 1) - 1, int(match["rank"] or 0))


def join_name(folder: Path, parts: FileName) -> Path:
    """The inverse of `split_name`."""
    segment = f"~{parts.segment + 1}" if parts.segment else ""
    rank = f"~r{parts.rank}" if parts.rank else ""
    return folder / f"{parts.base}{segment}{rank}{SUFFIX}"


def default_path(folder: Path) -> Path:
    """A fresh name in a folder: local time and six random hexadecimal digits."""
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}{SUFFIX}"


def family(path: Path) -> list[Path]:
    """The existing files whose names make them one run with this one: by segment, then rank."""
    base = split_name(path).base
    try:
        others = list(path.parent.iterdir())
    except OSError:  # a folder that may be entered and not listed
        others = []
    starting = (p for p in others if p.name.startswith(base) and p.suffix == SUFFIX)
    members = [p for p in starting if split_name(p).base == base]
    if path not in members and path.exists():
        members.append(path)
    return sorted(members, key=lambda p: (split_name(p).segment, split_name(p).rank, p.name))


def segment_path(path: Path | str, segment: int, rank: int = 0) -> Path:
    """The name of the file that a rank writes of a segment (from 0) of this run, whatever files there are."""
    path = Path(path)
    return join_name(path.parent, FileName(split_name(path).base, segment, rank))


def next_segment_path(path: Path | str) -> Path:
    """The name for the segment after the last one of this run: ``NAME~2.tw``, ``NAME~3.tw``, ..."""
    path = Path(path)
    name = split_name(path)
    last = max((split_name(p).segment for p in family(path)), default=name.segment)
    return join_name(path.parent, FileName(name.base, last + 1, 0))


def rank_path(path: Path | str, rank: int) -> Path:
    """The name of the file that a rank of the same segment writes; rank 0's is the plain one."""
    path = Path(path)
    name = split_name(path)
    return join_name(path.parent, FileName(name.base, name.segment, rank))
