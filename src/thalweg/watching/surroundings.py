"""What is noted of the machine and the project: an allow-list, since run files get mailed."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from thalweg import __version__


def environment() -> dict[str, Any]:
    """Versions, hardware, git commit and the command's name; never environment variables or arguments."""
    found: dict[str, Any] = {
        "thalweg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "interactive",
        "device": _device(),
    }
    return found | _git()


def _device() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _git() -> dict[str, Any]:
    try:
        commit = _ask("rev-parse", "HEAD")
        return {"git": commit, "git_changed": bool(_ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _ask(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        capture_output=True,
        text=True,
        timeout=2,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()
