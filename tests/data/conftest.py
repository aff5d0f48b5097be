"""Each test has a cache folder of its own, unless it asks for the user's."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    if "slow" in request.keywords:
        return None  # fetched sets are large: the user's own cache serves them
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"
