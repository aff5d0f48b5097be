"""One process of the grid: trains its cells unwatched and watched, and writes a verdict on each.

Run by `acceptance.launching`, one process a rank; not by hand.
"""

import argparse
import json
import time
import traceback
import warnings
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import thalweg as tw
from acceptance.by_hand import ByHand
from acceptance.cells import INDUCTOR, Cell
from acceptance.fingerprint import differences, fingerprint, hooks
from acceptance.judging import compare, groups_of, known_limit, words_of
from acceptance.training import Observer, Setup, digits, set_up, train
from acceptance.verdicts import CORRECT, IN_PART, UNSUPPORTED, WRONG, Verdict

Trained = tuple[dict[str, str], list[str], dict[str, int]]


def main() -> None:
    """Work through the cells of a file, each rank in step with the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--inductor", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.world > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{given.folder}/meeting",
            rank=given.rank,
            world_size=given.world,
            timeout=timedelta(seconds=60),
        )
    data = digits()
    for name in json.loads(given.cells.read_text()):
        verdict = _judge(Cell.named(name), data, given)
        if given.rank == 0:
            with (given.folder / "verdicts.jsonl").open("a") as out:
                out.write(json.dumps(asdict(verdict)) + "\n")
    if given.world > 1:
        dist.destroy_process_group()


def _judge(cell: Cell, data: Any, given: argparse.Namespace) -> Verdict:
    """The verdict on one cell; an error is one too."""
    began = time.perf_counter()
    backend = ""
    if cell.mode == "compiled":
        backend = "inductor" if given.inductor and cell.name in INDUCTOR else "aot_eager"
    try:
        verdict = judge_cell(cell, data, backend, given.folder, given.rank, given.world)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(last.filename).name}:{last.lineno}"
        verdict = Verdict(cell.name, WRONG, f"{type(error).__name__}: {error} ({at})")
    verdict.seconds, verdict.backend = round(time.perf_counter() - began, 2), backend
    return verdict


def judge_cell(cell: Cell, data: Any, backend: str, folder: Path, rank: int = 0, world: int = 1) -> Verdict:
    """Train unwatched and watched, and compare; all ranks of a cell at once, and rank 0's verdict counts."""
    setup = set_up(cell, rank, backend)
    hand = ByHand(setup)
    try:
        plain = _train(setup, data, hand, None)
    except RuntimeError as error:
        limit = known_limit(cell, error)
        if not limit:
            raise
        return Verdict(cell.name, UNSUPPORTED, limit)
    wrong: list[str] = []
    refused: set[str] = set()
    compared = 0
    everyone = _of_all_ranks(hand.values, world)
    for ranks in _ways(cell):
        if ranks == "all":
            hand.take_all(everyone)
        setup = set_up(cell, rank, backend)
        path = folder / f"{cell.name.replace('/', '-')}-{ranks}.tw"
        bare = hooks(setup.network, setup.optimizer)
        watch = tw.watch(
            setup.model,
            setup.optimizer,
            scaler=setup.scaler,
            out=path,
            name=cell.name,
            cadence=1,
            ranks=ranks,
        )
        watched = _train(setup, data, Observer(), watch)
        watch.close()
        left = differences(bare, hooks(setup.network, setup.optimizer))
        changed = _changes(plain, watched) + [f"hook left on {name}" for name in left]
        for other, found in enumerate(_of_all_ranks(changed, world)):
            wrong += [
                f"ranks={ranks}: rank {other} differs from the unwatched run in {text}" for text in found[:3]
            ]
        if rank == 0:
            run = tw.open_run(path)
            more, missing, number = compare(run, hand, words_of(run))
            wrong += [f"ranks={ranks}: {text}" for text in (*more, *run.warnings)]
            refused = missing if ranks == _ways(cell)[-1] else refused
            compared += number
    wrong += _expect_less(cell, refused)
    kind = WRONG if wrong else IN_PART if refused else CORRECT
    return Verdict(cell.name, kind, "; ".join(wrong[:4]), compared, refused=groups_of(refused))


def _ways(cell: Cell) -> tuple[str, ...]:
    """The values of ``ranks=`` that a cell is watched with; what is refused is that of the last."""
    if cell.technique == "plain" and cell.ranks != "one":
        return ("zero", "all")
    if cell.ranks == "fsdp2":
        return ("zero", "all") if cell.mode == "eager" else ("all",)  # each way compiles anew
    return ("zero",)


def _train(setup: Setup, data: Any, observer: Observer, watch: Any) -> Trained:
    """Train, and take the fingerprint while the watch is still on."""
    marks = train(setup, data, observer, watch)
    after = fingerprint(setup.network, setup.optimizer, setup.scaler)
    return after, marks, _compiled()


def _compiled() -> dict[str, int]:
    """How many graphs the compiler made, and how often it had to break one: watching must not change either."""
    counters = torch._dynamo.utils.counters
    return {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}


def _changes(plain: Trained, watched: Trained) -> list[str]:
    changed = differences(plain[0], watched[0])
    changed += [
        f"gradients of try {i}" for i, (a, b) in enumerate(zip(plain[1], watched[1], strict=True)) if a != b
    ]
    return changed + [f"compiler's {name}" for name in differences(plain[2], watched[2])]


def _of_all_ranks(mine: Any, world: int) -> list[Any]:
    """What each rank found; also the barrier after which all files are closed."""
    if world == 1:
        return [mine]
    everyone: list[Any] = [None] * world
    dist.all_gather_object(everyone, mine)
    return everyone


def _expect_less(cell: Cell, refused: set[str]) -> list[str]:
    """An eager cell has no excuse."""
    if refused and cell.mode == "eager":
        return [f"refused without a reason: {', '.join(groups_of(refused))}"]
    return []


if __name__ == "__main__":
    main()
