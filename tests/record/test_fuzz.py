"""Mutated run files: a clear error or a readable record; never a hang, a crash, or code that runs."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz_run_files.py")


def fuzz(folder, seed, count):
    command = [sys.executable, str(FUZZ), str(folder), str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 + count, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    read, refused = map(int, done.stdout.split()[-2:])
    assert read + refused == count
    assert read > count // 10 and refused > count // 50, "the mutations are neither too mild nor too wild"


def test_mutated_run_files(tmp_path):
    fuzz(tmp_path, 0, 500)


@pytest.mark.slow
def test_ten_thousand_mutated_run_files(tmp_path):
    for seed in range(1, 11):
        fuzz(tmp_path, seed, 1000)
