"""What the commands write: tables for people, strict JSON for programs. Text from files never steers the terminal."""

import dataclasses
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thalweg.record.plotting import safe_text

FOLLOW_EVERY = 1.0  # seconds; a writer flushes every half second, a reader sees it within the next
_NARROWEST = 8  # columns; less of a name tells nothing


def write(*parts: str) -> None:
    """Write parts of text, each on lines of its own; characters that the terminal lacks become "?"."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    sys.stdout.write("\n".join(parts) + "\n")
    sys.stdout.flush()


def heading(text: object) -> str:
    """Return a line of text, bold where a person reads it in a terminal."""
    bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[1m{safe_text(text)}\x1b[0m" if bold else safe_text(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> str:
    """Return a table as text, every cell as it is on one line, the columns named in ``right`` aligned to the right.

    In a terminal the widest columns are shortened until it fits; into a file or pipe it goes whole.
    """
    cells = [[safe_text(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    if sys.stdout.isatty():
        _narrow(widths, shutil.get_terminal_size().columns - 2 * (len(widths) - 1))
    flags = [column in right for column in columns]
    lines = [[*columns], ["─" * width for width in widths], *cells] if any(columns) else cells
    return "\n".join(
        "  ".join(_fit(c, w, r) for c, w, r in zip(line, widths, flags, strict=True)).rstrip()
        for line in lines
    )


def _narrow(widths: list[int], room: int) -> None:
    """Take from the widest column until all fit, or all are as narrow as makes sense."""
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _fit(cell: str, width: int, right: bool) -> str:
    if _width(cell) > width:
        cell = cell[: width - 1] + "…"
    padding = " " * (width - _width(cell))
    return padding + cell if right else cell + padding


def _width(text: str) -> int:
    """Return how many columns a text takes: two for each wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_json(records: Iterable[object]) -> None:
    """Write mappings or dataclasses as a list of records, in strict JSON on one line: NaN and infinity become null."""
    print(json.dumps([plain(record) for record in records], allow_nan=False, ensure_ascii=True), flush=True)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON knows it: mappings, lists, text, finite numbers, true, false and null."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # a NumPy array or scalar
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def near(path: Path) -> str:
    """Write a path for reading, as seen from the working directory if it lies below it."""
    absolute = path.absolute()
    return safe_text(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def size(count: int) -> str:
    """Write a number of bytes: "812 B", "4.1 kB", "37 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def follow(show: Callable[[], str], growing: Callable[[], bool]) -> None:
    """Show something again every second while it grows; Ctrl-C ends it like its own end."""
    from rich.live import Live
    from rich.text import Text

    going = growing()
    with Live(Text.from_ansi(show()), auto_refresh=False, vertical_overflow="crop") as live:
        repeat(lambda: live.update(Text.from_ansi(show()), refresh=True), going, growing)


def repeat(show: Callable[[], None], going: bool, growing: Callable[[], bool]) -> None:
    """Call ``show`` every second while ``growing`` says so, and once after; Ctrl-C ends it like its own end."""
    try:
        while going:
            time.sleep(FOLLOW_EVERY)
            going = growing()
            show()
    except KeyboardInterrupt:
        return


def follow_json(records: Callable[[], Iterable[object]], growing: Callable[[], bool]) -> None:
    """Write a line of JSON every second while something grows, the last when it has ended."""
    going = growing()
    print_json(records())
    repeat(lambda: print_json(records()), going, growing)
