"""``trainer_state.json`` of the Hugging Face Trainer (and TRL): its ``log_history``, as the Trainer means it.

What the numbers are (`transformers/trainer.py`):

- ``loss`` is the mean over the updates since the row before, so its window is the spacing of the rows. A loss that is not
  finite is replaced by the mean of its neighbours unless ``logging_nan_inf_filter=False``: it can't be seen here.
- ``grad_norm`` and ``learning_rate`` are those of one update. The rate is that of the update just made since 2025
  (pull request 36973), that of the next one before; which of them a log holds is told from a linear warm-up, or from a
  decay that ends in zero, where it can be.
- Rows of ``evaluate()`` carry a prefix: ``eval_loss``, ``eval_<data set>_loss``, ``test_...``.
- The row with ``train_runtime`` closes the training: its ``train_loss`` is the mean over the whole run, and goes to the
  summary, never among the losses.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.json_lines import flat
from thalweg.record.importing.lines import head_of
from thalweg.record.importing.tabular import Rows
from thalweg.record.roles import guess_role

CARD = Card(
    name="trainer-state",
    kind="importer",
    summary="Hugging Face Trainer and TRL: trainer_state.json, or the output folder with its checkpoints.",
    needs="a trainer_state.json with a log_history",
)
STATE = "trainer_state.json"
LARGEST = 1 << 28
"""Bytes of a state that are read; the largest real one seen had 3 MB for 24,000 rows."""
_CHECKPOINT = re.compile(r"^checkpoint-(\d{1,12})$")
_RESULTS = ("all_results.json", "train_results.json", "eval_results.json", "test_results.json")
_SETTINGS = (
    "max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps",
)  # fmt: skip
_OUTCOMES = ("best_metric", "best_global_step", "best_model_checkpoint", "total_flos", "global_step", "epoch")
_PLACES = ("step", "epoch")


def accepts(path: Path) -> float:
    """0.98 for a state, 0.95 for an output folder; 0 for other JSON."""
    if path.is_dir():
        return 0.95 if _states(path) or _runs_in(path) else 0.0
    if path.suffix.lower() != ".json" or not path.is_file():
        return 0.0
    if path.name == STATE:
        return 0.98
    return 0.9 if '"log_history"' in head_of(path, 1 << 16) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The run of a state, or of an output folder; several where the folder holds several output folders.

    Raises:
        RunFileError: no state there, or none that can be read.
    """
    if path.is_dir() and not _states(path):
        runs = _runs_in(path)
        if not runs:
            raise RunFileError(f"{path}: no {STATE} here, and none in a checkpoint-* below")
        for folder in runs:
            yield _run(folder, str(folder.relative_to(path)), path, names)
    else:
        yield _run(path, _name(path), path, names)


def _states(folder: Path) -> list[Path]:
    """The states of an output folder: its own, then those of its checkpoints, the newest first."""
    numbered = []
    try:
        for entry in folder.iterdir():
            if (match := _CHECKPOINT.match(entry.name)) and (entry / STATE).is_file():
                numbered.append((int(match[1]), entry / STATE))
    except OSError:
        return []
    numbered.sort(reverse=True)
    own = [folder / STATE] if (folder / STATE).is_file() else []
    return own + [file for _, file in numbered]


def _runs_in(folder: Path) -> list[Path]:
    """Output folders in a folder of runs."""
    try:
        below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return []
    return [entry for entry in below[:1000] if _states(entry)]


def _name(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    return folder.parent.name if _CHECKPOINT.match(folder.name) else folder.name or path.stem


def _run(path: Path, name: str, asked: Path, names: NameMap) -> Imported:
    warnings: list[str] = []
    file, state = _longest(_states(path), warnings) if path.is_dir() else (path, _state(path))
    history = [row for row in state["log_history"] if isinstance(row, dict)]
    if len(history) < len(state["log_history"]):
        warnings.append(f"{len(state['log_history']) - len(history):,} entries of log_history are no rows")
    rows = Rows(_with_steps(names), warnings)
    summary = {key: state[key] for key in _OUTCOMES if state.get(key) is not None}
    step = 0
    for row in history:
        if "train_runtime" in row or "train_samples_per_second" in row:
            summary |= {key: value for key, value in row.items() if key not in _PLACES}
            continue
        step = row["step"] if isinstance(row.get("step"), int) else step
        rows.add(flat({**row, "step": step}))
    part = rows.part()
    notes = [
        *rows.notes,
        "loss: the mean over the updates since the row before; values that are not finite may be hidden",
    ]
    part = Part(columns=[_described(column, state, notes) for column in part.columns])
    return Imported(
        path=asked,
        name=name,
        format=CARD.name,
        parts=[part],
        config={key: state[key] for key in _SETTINGS if state.get(key) is not None}
        | ({"trial": state["trial_params"]} if state.get("trial_params") else {}),
        summary=summary | _results(file.parent),
        notes=notes,
        warnings=warnings,
    )


def _with_steps(names: NameMap) -> NameMap:
    return replace(names, wanted={"step": "step", **names.wanted})


def _longest(files: list[Path], warnings: list[str]) -> tuple[Path, dict[str, Any]]:
    """Of several states the one with the longest history; the newest of equals. Damaged ones are passed over."""
    best: tuple[Path, dict[str, Any]] | None = None
    problems = []
    for file in files[:20]:
        try:
            state = _state(file)
        except RunFileError as error:
            problems.append(str(error))
            continue
        if best is None or len(state["log_history"]) > len(best[1]["log_history"]):
            best = file, state
    if best is None:
        raise RunFileError("; ".join(problems))
    warnings += problems
    return best


def _state(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST:
            raise RunFileError(f"{file} has more than {LARGEST >> 20} MB, too much for a {STATE}")
        state = json.loads(file.read_text(encoding="utf-8-sig", errors="replace"))
    except OSError as error:
        raise RunFileError(f"{file} can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{file} is no JSON, or only the beginning of it: {str(error)[:200]}") from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise RunFileError(f"{file} has no log_history: it is no state of a Trainer")
    return state


def _results(folder: Path) -> dict[str, Any]:
    """What the example scripts leave beside the state: final metrics."""
    out: dict[str, Any] = {}
    for name in _RESULTS:
        try:
            if (folder / name).stat().st_size < 1 << 20:
                found = json.loads((folder / name).read_text(encoding="utf-8", errors="replace"))
                out |= {k: v for k, v in found.items() if k not in out} if isinstance(found, dict) else {}
        except (OSError, ValueError, RecursionError):
            continue
    return out


def _described(column: Column, state: Mapping[str, Any], notes: list[str]) -> Column:
    """The column with what the Trainer means by it."""
    if column.name == "loss" or (guess_role(column.name) == "train loss" and column.name != "train_loss"):
        spacing = np.diff(np.unique(column.steps), prepend=0)
        usual = int(np.median(spacing)) if len(spacing) else 1
        text = f"mean over the last {usual} updates" if usual > 1 else ""
        return replace(column, window=max(1, usual), estimator=text or column.estimator)
    if column.name == "learning_rate":
        meaning = which_rate(column, state.get("max_steps"))
        notes.append(f"learning_rate: {meaning}")
        return replace(column, estimator=meaning)
    return column


def which_rate(column: Column, total: object) -> str:
    """Whether the rates of a log are those of the update just made or of the next one.

    A warm-up from zero is ``peak·s/w`` at the update after step s, so rates in proportion to their steps are the next
    ones', and rates in proportion to s - 1 those just used. A decay that ends in zero does so one update after the last.
    """
    steps, rates = column.steps.astype(np.float64), column.values
    unknown = "of the update just made, or of the next (versions of transformers before 2025)"
    if len(steps) >= 3 and 0 <= rates[0] < rates[1] < rates[2]:
        (s0, s1, s2), (r0, r1, r2) = steps[:3], rates[:3]
        slope = (r1 - r0) / (s1 - s0) if s1 > s0 else 0.0
        if slope > 0 and abs((r2 - r1) - slope * (s2 - s1)) < 1e-3 * r2:
            start = s0 - r0 / slope
            if abs(start) < 0.2:
                return "of the next update"
            if abs(start - 1) < 0.2:
                return "of the update just made"
    ended = len(rates) > 0 and isinstance(total, int) and int(steps[-1]) == total > 0
    return "of the next update" if ended and rates[-1] == 0 else unknown
