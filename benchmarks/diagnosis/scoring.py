"""Diagnoses compared with what is right."""

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import thalweg as tw
from benchmarks.diagnosis.making import truths
from thalweg.core.errors import UsageError
from thalweg.diagnosis import Diagnosis, explain
from thalweg.diagnosis.findings import Finding


@dataclass(frozen=True)
class Score:
    """What was said of one run.

    Attributes:
        truth: what is right; see `making.make_run`.
        form: "" for the run file, else the form it was exported to.
        first: kind of the finding that was ranked first; "" for none.
        right: whether that is right; of a healthy run, whether nothing above "note" was said.
        layer_right: whether the right finding names the right layer; None where there is none to name.
        said: what was found, symptoms included: "kind (severity, where)".
        loud: kinds above "note", symptoms included.
        lacking: kinds that could not be judged.
        failed: rules that raised.
        wrong: of an exported run, kinds above "note" that are not true of it.
        seconds: what the diagnosis took.
    """

    truth: dict[str, Any]
    form: str
    first: str
    right: bool
    layer_right: bool | None
    said: tuple[str, ...]
    loud: tuple[str, ...]
    lacking: tuple[str, ...]
    failed: dict[str, str]
    wrong: tuple[str, ...]
    seconds: float

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def score_all(
    folders: Iterable[Path],
    forms: Sequence[str],
    workers: int = 2,
    only: str = "",
    console: Console | None = None,
) -> list[Score]:
    """Diagnose every run of some folders, in several processes: the run files, and their exports to ``forms``."""
    todo = [
        (folder / f"{name}.tw", truth, tuple(forms))
        for folder in folders
        for name, truth in truths(folder).items()
        if any(word in name for word in only.split(","))
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    scores: list[Score] = []
    with Progress(*columns, console=console) as progress, ProcessPoolExecutor(workers) as pool:
        task = progress.add_task("diagnosing", total=len(todo))
        for done in as_completed([pool.submit(score_run, *one) for one in todo]):
            scores += done.result()
            progress.advance(task)
    return sorted(scores, key=lambda s: (s.form, s.truth["name"]))


def score_run(path: Path, truth: dict[str, Any], forms: Sequence[str]) -> list[Score]:
    """The score of a run file, and of its exports."""
    run = tw.open_run(path)
    own, seconds = timed(run)
    scores = [score(own, truth, "", seconds, ())]
    true = true_of(truth["kinds"], own)
    for form in forms:
        from benchmarks.diagnosis.exports import export

        with tempfile.TemporaryDirectory(prefix="thalweg-export-") as place:
            exported = export(run, form, Path(place) / truth["name"], truth["updates_an_epoch"])
            found, seconds = timed(tw.open_run(exported))
        loud = {f.kind for f in found.flat() if f.severity != "note"}
        scores.append(score(found, truth, form, seconds, tuple(sorted(loud - true))))
    return scores


def timed(run: tw.Run) -> tuple[Diagnosis, float]:
    """A diagnosis, and the seconds it took."""
    began = perf_counter()
    found = tw.diagnose(run)
    return found, perf_counter() - began


def true_of(kinds: Sequence[str], own: Diagnosis) -> set[str]:
    """Kinds that may be said of a sick run's export: right ones, their symptoms, and what its full record shows."""
    known = [rule for kind in kinds if (rule := page_of(kind)) is not None]
    shown = {f.kind for f in own.flat() if f.severity != "note"} if kinds else set()
    return {*kinds, *(symptom for rule in known for symptom in rule.page.explains), *shown}


def page_of(kind: str) -> Any:
    """The rule of a kind; None where there is none."""
    try:
        return explain(kind)
    except UsageError:
        return None


def score(
    found: Diagnosis, truth: dict[str, Any], form: str, seconds: float, wrong: tuple[str, ...]
) -> Score:
    """Compare one diagnosis with what is right."""
    everything = found.flat()
    loud = tuple(dict.fromkeys(f.kind for f in everything if f.severity != "note"))
    first = found[0] if len(found) else None
    right = not loud if not truth["kinds"] else first is not None and first.kind in truth["kinds"]
    return Score(
        truth=truth,
        form=form,
        first=first.kind if first else "",
        right=right,
        layer_right=in_layers(first, truth["layers"]) if truth["layers"] and right and first else None,
        said=tuple(f"{f.kind} ({', '.join(filter(None, (f.severity, f.where)))})" for f in everything),
        loud=loud,
        lacking=tuple(n.kind for n in found.not_evaluable),
        failed=found.failed,
        wrong=wrong,
        seconds=seconds,
    )


def in_layers(finding: Finding, layers: Sequence[str]) -> bool:
    """Whether a finding names one of the layers, or something in it."""
    return any(f"{finding.where}.".startswith(f"{layer}.") for layer in layers)
