"""Whether the process that writes a log is still at work."""

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALIVE_SECONDS = 15.0


def is_alive(start: Mapping[str, Any], fd: int) -> bool:
    """Whether the writer of a log without an end is still at work.

    On the writer's own machine: a process with the same id and the same time of birth is there. On another one: the
    file changed within the last 15 seconds (writers touch it every 5, also when there is nothing to write).
    """
    pid = start.get("pid")
    if start.get("host") != platform.node() or type(pid) is not int or pid <= 0:
        return abs(time.time() - os.fstat(fd).st_mtime) < ALIVE_SECONDS
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return False
    born = start.get("born")
    return not born or process_birth(pid) in ("", born)


def process_birth(pid: int) -> str:
    """When a process began, as the system tells it, so that a reused id is not taken for it; "" where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
