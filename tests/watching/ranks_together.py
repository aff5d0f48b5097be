"""Several processes over gloo, for tests of what ranks record together."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

HERE = Path(__file__).parent
_START = "import sys, ranks_together; ranks_together.enter(*sys.argv[1:])"


Work = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A name, which is also that of its folder, a function ``work(rank, folder, *arguments)`` of a module, arguments."""


def together(works: Sequence[Work], folder: Path, world: int) -> dict[str, list[Any]]:
    """What each work returned, on each rank; all in the same processes, since these take long to start."""
    named = [(name, work.__module__, work.__name__, arguments) for name, work, arguments in works]
    for name, *_ in named:
        (folder / name).mkdir()
    (folder / "works.pickle").write_bytes(pickle.dumps(named))
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _START, str(folder), str(rank), str(world)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [rank.communicate(timeout=180)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world, "\n".join(said)[-3000:]
    found = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(world)]
    return {name: [one[name] for one in found] for name, *_ in named}


def enter(folder: str, rank: str, world: str) -> None:
    """What each process does."""
    place = Path(folder)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=int(world)
    )
    found = {}
    for name, module, function, arguments in pickle.loads((place / "works.pickle").read_bytes()):
        found[name] = getattr(__import__(module), function)(int(rank), place / name, *arguments)
        dist.barrier()
    (place / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()
