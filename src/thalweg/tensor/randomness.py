"""Leave every random state as it was: Python's, NumPy's and torch's, on the host and on each device in use."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch's


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Run a block that may draw random numbers, and restore all global generators after it."""
    python, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
