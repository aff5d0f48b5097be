"""Synthetic runs for the tests of the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import record_run


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("runs")

    def make(**options: Any) -> Path:
        return record_run(folder / f"{len(list(folder.iterdir()))}.tw", **options)

    return make
