"""Whether a log has changed since it was read: sizes and times of its files."""

import os
from pathlib import Path

_MOST_FILES = 5_000


def signature_of(path: Path) -> tuple[int, int, int]:
    """Number of files, their bytes, and the latest change, of a file or of a folder with all below it."""
    if not path.is_dir():
        return _of([path])
    return _of([Path(folder) / name for folder, _, names in os.walk(path) for name in names][:_MOST_FILES])


def _of(files: list[Path]) -> tuple[int, int, int]:
    size = latest = count = 0
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        count, size, latest = count + 1, size + stat.st_size, max(latest, stat.st_mtime_ns)
    return count, size, latest
