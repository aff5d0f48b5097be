"""The same runs as other tools would have logged them: loss, rate, gradient norm and evaluations, nothing else."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import thalweg as tw

FORMS = ("tensorboard", "csv", "trainer_state")
EVERY = 10
"""Hugging Face's Trainer logs the mean loss of so many steps."""


def export(run: tw.Run, form: str, folder: Path, updates_an_epoch: float) -> Path:
    """Write a run in one of `FORMS`; what to open."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        theirs: (run[ours].steps, run[ours].values.astype(float))
        for theirs, names in USUAL.items()
        if (ours := next((n for n in names if n in run), None)) is not None
    }
    if form == "csv":
        return as_csv(columns, folder / "metrics.csv")
    if form == "tensorboard":
        return as_tensorboard(columns, folder)
    return as_trainer_state(columns, folder, updates_an_epoch)


USUAL = {
    "train/loss": ("loss",),
    "train/lr": ("lr",),
    "train/grad_norm": ("grad/norm_raw", "grad/norm"),
    "eval/loss": ("eval/loss",),
    "eval/accuracy": ("eval/accuracy",),
}
"""Their name -> ours; what `clip_grad_norm_` returns is the norm before clipping."""

IN_TABLES = {
    "train/loss": "train_loss",
    "train/lr": "lr",
    "train/grad_norm": "grad_norm",
    "eval/loss": "val_loss",
    "eval/accuracy": "val_accuracy",
}
"""... and in the header of a table."""

Columns = dict[str, tuple[np.ndarray, np.ndarray]]


def as_csv(columns: Columns, out: Path) -> Path:
    """A table with a line a step, cells empty where nothing was logged."""
    steps = np.unique(np.concatenate([s for s, _ in columns.values()]))
    lines = {int(step): dict.fromkeys(columns, "") for step in steps}
    for name, (places, values) in columns.items():
        for step, value in zip(places.tolist(), values.tolist(), strict=True):
            lines[step][name] = f"{value:.6g}"
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(IN_TABLES[name] for name in columns)])
        writer.writerows([step, *cells.values()] for step, cells in lines.items())
    return out


def as_tensorboard(columns: Columns, folder: Path) -> Path:
    """Event files, as `SummaryWriter` writes them."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for name, (steps, values) in columns.items():
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            writer.add_scalar(name, value, step)
    writer.close()
    return folder


def as_trainer_state(columns: Columns, folder: Path, updates_an_epoch: float) -> Path:
    """The Trainer's checkpoint folder: means of ten losses, the latest rate and gradient norm, evaluations."""
    history: list[dict[str, Any]] = []
    steps, losses = columns["train/loss"]
    last = int(steps[-1]) + 1
    for step in range(EVERY, last + 1, EVERY):
        row = {"epoch": step / updates_an_epoch, "step": step}
        row["loss"] = float(losses[(steps >= step - EVERY) & (steps < step)].mean())
        for theirs, ours in (("learning_rate", "train/lr"), ("grad_norm", "train/grad_norm")):
            if ours in columns and (place := int(np.searchsorted(columns[ours][0], step)) - 1) >= 0:
                row[theirs] = float(columns[ours][1][place])
        history.append(row)
    for name in ("eval/loss", "eval/accuracy"):
        for step, value in zip(
            *(c.tolist() for c in columns.get(name, (np.empty(0), np.empty(0)))), strict=True
        ):
            key = name.replace("/", "_")
            history.append({"epoch": step / updates_an_epoch, "step": int(step), key: value})
    history.sort(key=lambda row: row["step"])
    state = {"global_step": last, "max_steps": last, "epoch": last / updates_an_epoch, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state, indent=1))
    return folder
