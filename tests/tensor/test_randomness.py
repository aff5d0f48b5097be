"""The guard of all random states."""

import random

import numpy as np
import pytest
import torch

from thalweg.tensor.randomness import preserved_randomness


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("raises", [False, True])
def test_a_block_that_draws_leaves_no_trace(raises: bool) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)  # type: ignore[operator]  # three kinds of the same thing
    draw()
    expected_after = None
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected_after = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    try:
        with preserved_randomness():
            for _ in range(5):
                draw()
            if raises:
                raise KeyError("inside")
    except KeyError:
        assert raises
    assert draw() == expected_after
