"""Plain text: what training scripts print. A line with a step or an epoch and numbers under names is a row.

Recognised by themselves: nanoGPT, llm.c, torchtitan, Megatron-LM, fairseq, Keras, timm, the examples of PyTorch, OpenMMLab,
Lightning's progress bar, fastai's and Ultralytics' tables, the dictionaries that the Hugging Face Trainer prints, and any
``name: number``, ``name=number`` or ``| name number |``. Other texts need the user's pattern: a regular expression with
named groups, `step` among them.

- A line without a step belongs to the last one that was named (an "Epoch 3" above its losses).
- Words such as "validation" or "test" at the beginning of a line make its numbers those of an evaluation. nanoGPT's
  ``step 250: train loss 1.9, val loss 2.0`` are both estimates at an evaluation: the first is `eval/train loss (estimate)`.
- ``Loss: 6.9 (7.1)`` is the value with its running mean; the mean becomes a signal of its own, `Loss (epoch so far)`.
- Numbers before the first step are settings; one that is said once behind it, in a line without a step, is a result.
- Of several ranks that print the same names, the first is read. Colors are removed, a moment at the beginning of a line
  is its time, and a carriage return ends a line.

Every expression here is linear in the length of a line, and lines are cut at 64 kB. Lines whose shape (what is around
their numbers) has come several times are read by a plan: which number is whose value. A plan is kept only if it gives
what the whole parser gives for the longest and the shortest lines of that shape; all other lines are parsed.
"""

import ast
import itertools
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError, UsageError
from thalweg.record.importing.assembling import rewinds
from thalweg.record.importing.contracts import Column, Imported, NameMap, Part
from thalweg.record.importing.json_lines import flat
from thalweg.record.importing.lines import (
    NARROW,
    Shape,
    filled,
    head_of,
    lines_of,
    samples,
    shape_of,
    still_written,
)
from thalweg.record.importing.tabular import Rows, Target, to_number, to_seconds, usual_spacing
from thalweg.record.roles import guess_role

CARD = Card(
    name="text-log",
    kind="importer",
    summary="What training scripts print: nanoGPT, llm.c, torchtitan, Megatron-LM, Keras, timm, name: value; --pattern.",
    needs="lines with a step or an epoch and named numbers, or a pattern",
)
SUFFIXES = (".log", ".txt", ".out", ".err", ".md", "")
_LOOKED_AT = 1 << 16  # bytes from the beginning and from the end of a file, to see whether it is a log
_LONGEST_DICT = 1 << 13
_MOST_SHAPES = 1_000  # remembered of one log
_FEWEST_LINES = 5  # of a shape, before it is worth a plan
_MOST_FALLS = 10_000  # of the steps, whose lines are remembered
_LINES_SAID = 5  # in a warning
_MOMENT_WITHIN = 120  # characters
_CUT = 600  # characters of a line in which its step and epoch are looked for
_MOST_WORDS = 5  # of a name; more are a sentence
_SETTING = re.compile(r"^[A-Za-z_][\w.\-]{0,40}(?: [\w.\-]{1,20}){0,2}$")

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?|[-+]?(?:nan|NaN|NAN|inf|Inf|INF|infinity|Infinity)\b"
_COLOR = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]|\x08")
_RANK = re.compile(
    r"^\s{0,8}(?:\[(?:rank|default|gpu|worker)[ _:]?(\d{1,6})\]:?|(?:rank|worker)[ _](\d{1,6}):)\s{0,4}", re.I
)
_MOMENT = re.compile(r"(\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)")
_PLACE = re.compile(r"\b[\w/]{1,60}\.(?:py|cc|cpp|cu):\d+\b")
_STEP_WORDS = r"(?:global[_ ]?)?(?:step|iteration|iter|it|update|num_updates|batch)s?"
_STEP = re.compile(
    rf"(?:^|[\s\[(|,>-])(?P<word>{_STEP_WORDS})(?![ ]?==)[ :=\[(#]{{1,12}}(?P<at>\d{{1,15}})(?:[ ]{{0,6}}/[ ]{{0,12}}(?P<of>\d{{1,15}}))?(?![.\d%])",
    re.I,
)
_EPOCH = re.compile(
    r"(?:^|[\s\[(|,>-])epochs?[ :=\[(#]{1,12}(\d{1,9})(?:[ ]{0,4}/[ ]{0,4}(\d{1,9}))?(?![\d.%])", re.I
)
_EPOCH_BATCH = (
    re.compile(
        r"epoch(?:\((\w{1,12})\))?:?[ ]{0,8}\[(\d{1,9})\][ ]{0,8}\[[ ]{0,8}(\d{1,12})/(\d{1,12})", re.I
    ),
    re.compile(
        r"\b(train|training|test|val|valid|validation|eval)(?: epoch)?:[ ]{1,4}(\d{1,9})[ ]{1,4}\[[ ]{0,8}(\d{1,12})/(\d{1,12})",
        re.I,
    ),
    re.compile(
        r"(epoch)[ ]{1,4}(\d{1,9}):[ ]{0,4}\d{1,3}%\|[^|]{0,400}\|[ ]{0,4}(\d{1,12})/(\d{1,12})", re.I
    ),
)
_BATCHES = re.compile(r"\|[ ]{0,8}(\d{1,12})[ ]{0,2}/[ ]{0,8}(\d{1,12}) (?:batches|its?|steps)\b")
_TEST_BATCH = re.compile(
    r"\b(?:test|val|valid|validation|eval):[ ]{1,4}\[[ ]{0,8}(\d{1,12})/(\d{1,12})", re.I
)
_BAR = re.compile(r"^[ ]{0,8}(\d{1,12})/(\d{1,12})[ ]{1,4}(?:\[[=>. ]{1,200}\]|[━╸╺─ ]{3,200}|\S*\d+s)")
_BRACKET = re.compile(r"^[ ]{0,4}\[[ ]{0,8}(\d{1,12})/(\d{1,12})\]")
_BARE = re.compile(rf"^(\d{{1,15}})\s([A-Za-z_]\w{{0,30}})\s({_NUMBER})$")
_EVALUATION = re.compile(
    r"^\W{0,12}(?:\w{1,12}\W{1,4}){0,2}?(?:test|val|valid|validate|validation|eval|evaluation|dev)\b(?!\w)",
    re.I,
)
_SAID = re.compile(r"(?:^|[\W_])(?:val|valid|validation|test|eval|train|training)(?:$|[\W_])", re.I)
_PAIR = re.compile(
    rf"(?P<mark>[:=])[ \t]{{0,16}}[\[(]?(?P<value>{_NUMBER})(?P<unit>[ ]?[a-zA-Z%µ][\w/%]{{0,7}}(?![\w/%]|[ ]?[:=]))?(?P<odd>[-:/x][\d.])?(?P<mean>[ \t]{{0,4}}\([ ]{{0,6}}(?:{_NUMBER})[ ]{{0,4}}\))?"
)
_WORDS = re.compile(
    rf"^[\s>*]{{0,8}}(?P<key>[A-Za-z_][\w@./%-]{{0,40}}(?: [A-Za-z_][\w@./%-]{{0,24}}){{0,3}})\s{{1,12}}(?P<value>{_NUMBER})(?P<unit>\s?[a-zA-Z%µ][\w/%]{{0,7}})?(?P<mean>\s{{0,4}}\([^()]{{1,24}}\))?\W{{0,4}}$"
)
_EXPONENT = re.compile(r"[eE][-+]?\d{1,3}")
_UNIT_OF_NAME = re.compile(r"\((ms|s|sec|MB|GB|GiB|MiB|%)\)$")
_PARENTHESES = re.compile(rf"\(\s{{0,6}}({_NUMBER})\s{{0,4}}\)")
_SPLIT = re.compile(r"[|,;\t]|\s-\s|:\s|\s{2,}")
_HEADER = re.compile(r"\s{0,12}(?:epoch|step|iter)\b", re.I)
_WIDE = re.compile(r"(?<=[\w@])[ \t]{2,16}(?=[-+.\d(])")
_KEY_END = re.compile(r"[A-Za-z@][\w@./%\-\[\] ()+^*]{0,60}$")
_BREAKS = re.compile(r"[|,;\t\]}>\"']|\s-\s|\s{2,}|\.\s")
_DICT = re.compile(r"\{['\"]")
_BARE_ODD = re.compile(r"(?<=[:,\[\s])(-?)(nan|inf|NaN|Infinity)(?=[,\]}\s])")
_UNITS = frozenset(
    [
        "s",
        "ms",
        "us",
        "µs",
        "ns",
        "sec",
        "secs",
        "second",
        "seconds",
        "min",
        "m",
        "h",
        "%",
        "gb",
        "gib",
        "mb",
        "mib",
        "kb",
        "kib",
        "b",
        "it/s",
        "its/s",
        "s/it",
        "tok/s",
        "tokens/s",
        "samples/s",
        "img/s",
        "g",
        "k",
        "nats",
        "bits",
        "db",
        "m/s",
        "ms/step",
        "s/step",
        "ms/it",
        "iter/s",
        "steps/s",
    ]
)
_SCALES = {"k": 1e3, "m": 1e6, "g": 1e9}
_ALIASES = {  # of llm.c's and build-nanogpt's logs, whose names say little
    "trl": "train/loss",
    "tel": "val/loss",
    "eval": "val/accuracy",
    "hella": "val/hellaswag accuracy",
    "train": "train/loss",
    "val": "val/loss",
    "norm": "grad_norm",
}
_ESTIMATE = "eval/train loss (estimate)"
_SO_FAR = " (epoch so far)"
_NO_SIGNALS = frozenset({"eta", "v_num", "it", "remaining"})
_SINCE_LAST = re.compile(r"^(?:lm loss|loss)$", re.I)


@dataclass
class _Row:
    """What a line says."""

    values: dict[str, Any]
    step: float | None = None
    epoch: float | None = None
    within: tuple[int, int] | None = None  # batch, and how many there are, in the epoch
    style: str = ""
    partial: bool = False
    units: dict[str, str] = field(default_factory=dict)


def accepts(path: Path) -> float:
    """0.6 for a text with rows, 0.3 for a folder with such files; 0.15 for text without any."""
    if path.is_dir():
        return 0.3 if _files(path) else 0.0
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return 0.0
    return 0.6 if _rows_in(path) >= 2 else 0.15 if head_of(path) else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs there: one a file.

    Raises:
        RunFileError: no line holds a row.
        UsageError: the pattern is no regular expression, or has no named group.
    """
    reader = _by_pattern(names.pattern) if names.pattern else None
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise RunFileError(f"{path}: no text in this folder has rows of a training")
    for file in files:
        yield _run(file, path, names, reader)


def _files(folder: Path) -> list[Path]:
    try:
        below = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES[:4] and p.is_file())
    except OSError:
        return []
    return [file for file in below[:200] if _rows_in(file) >= 2]


def _rows_in(file: Path) -> int:
    """How many rows its beginning and its end hold; counting stops at a few."""
    head = head_of(file, _LOOKED_AT)
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _LOOKED_AT))
            tail = stream.read(_LOOKED_AT).decode("utf-8", "replace")
    except OSError:
        return 0
    parser = _Parser()
    lines = re.split(r"[\r\n]+", head)[:300] + re.split(r"[\r\n]+", tail)[-100:] if head else []
    count, placed = 0, False
    for row in filter(None, map(parser, lines)):
        placed = placed or row.step is not None or row.epoch is not None or row.style == "dict"
        count += placed and bool(row.values)
        if count > 3:
            break
    return count


def _run(file: Path, path: Path, names: NameMap, reader: "Callable[[str], _Row | None] | None") -> Imported:
    warnings: list[str] = []
    parser = _Parser()
    rows = Rows(names, warnings, timed_by="timestamp", carried=True)
    gathered = _Gathered(rows)
    shapes = _Shapes(parser, gathered)
    for line in lines_of(file):
        gathered.line += 1
        text, moment, rank = _bare(line)
        if reader is None:
            shapes.take(text, moment, rank)
        elif row := reader(text):
            gathered.take(row, moment, rank)
    if not gathered.taken:
        raise RunFileError(_no_rows(file, gathered.line, bool(reader)))
    part = rows.part()
    single = [c for c in part.columns if c.name in gathered.loose and len(c.steps) == 1]
    once = [column for column in single if not guess_role(column.name)]
    if len(once) < len(part.columns):
        gathered.summary |= {column.name: float(column.values[0]) for column in once}
        part = Part(columns=[column for column in part.columns if all(column is not other for other in once)])
    columns = [_described(column, gathered, part) for column in part.columns]
    notes = rows.notes + gathered.notes()
    warnings += gathered.warnings(columns)
    return Imported(
        path=path,
        name=file.stem if not path.is_dir() or len(file.stem) > 3 else file.name,
        format=CARD.name,
        parts=[Part(columns=columns)],
        config=gathered.settings,
        summary=gathered.summary,
        notes=notes,
        warnings=warnings,
        live=still_written(file),
    )


def _no_rows(file: Path, lines: int, with_pattern: bool) -> str:
    if with_pattern:
        return f"{file}: the pattern fits none of its {lines:,} lines"
    return (
        f"{file}: none of its {lines:,} lines names a step or an epoch with a number; give a pattern, such as "
        r"--pattern 'step (?P<step>\d+).*loss (?P<loss>\S+)'"
    )


class _Gathered:
    """Rows on their way to the table: ranks told apart, settings and the summary kept apart."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._ranks: dict[tuple[str, ...], str] = {}
        self._doubled = 0
        self._first_epoch: float | None = None
        self._styles: set[str] = set()
        self._started = False
        self._placed: set[str] = set()
        self.loose: set[str] = set()
        self.settings: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.units: dict[str, str] = {}
        self.taken = 0
        self.line = 0
        self._last = {"step": -np.inf, "epoch": -np.inf}
        self._falls: list[tuple[int, int]] = []  # row, line

    def take(self, row: _Row, moment: float | None, rank: str | None) -> None:
        """Enter a row, unless another rank prints the same."""
        if rank is not None and self._ranks.setdefault(tuple(row.values), rank) != rank:
            self._doubled += 1
            return
        if "train_runtime" in row.values:
            self.summary |= row.values
            return
        placed = row.step is not None or row.epoch is not None
        if not placed and not self._started and row.style != "dict":
            kept = {name: value for name, value in row.values.items() if _SETTING.match(name)}
            self.settings |= kept if len(self.settings) < 200 else {}
            return
        self._note_places(row, placed)
        self._started = self._started or placed
        cells: dict[str, Any] = dict(row.values)
        if moment is not None:
            cells["timestamp"] = moment
        if row.epoch is not None:
            cells.setdefault("epoch", row.epoch)
        step = self._step(row)
        if step is not None:
            cells["step"] = step
        self._note_falls(step, row.epoch)
        self._styles.add(row.style)
        self.units |= row.units
        self.taken += bool(row.values)
        self._rows.add(cells)

    def _note_places(self, row: _Row, placed: bool) -> None:
        """Remember which names only ever stood in lines without a step."""
        if placed or row.style == "dict":
            self._placed |= row.values.keys()
            self.loose -= row.values.keys()
        else:
            self.loose |= row.values.keys() - self._placed

    def take_known(self, plan: "_Plan", numbers: list[str], moment: float | None, rank: str | None) -> bool:
        """Enter the row of a line with a plan, as `take` does; False where that line has to be parsed."""
        if not (plan.placed or self._started or plan.style == "dict"):
            return False
        if plan.picky and not plan.fits(numbers):
            return False
        if rank is not None and self._ranks.setdefault(plan.names, rank) != rank:
            self._doubled += 1
            return True
        timed = moment is not None
        targets = plan.targets[timed] if timed in plan.targets else self._targets(plan, timed)
        if targets is None:
            return False
        self._started = self._started or plan.placed
        if plan.units:
            self.units.update(plan.units)
        self.taken += bool(plan.names)
        cells = plan.numbers(numbers)
        epoch = None if plan.epoch_at is None else cells[plan.epoch_at]
        if plan.within and epoch is not None:
            cells[-2:] = [self._counted_on(epoch, cells[-2], cells[-1], plan.style)]
        self._note_falls(None if plan.step_at is None else cells[plan.step_at], epoch)
        if moment is not None:
            cells.append(moment)
        self._rows.add_numbers(targets, cells, plan.others)
        return True

    def _targets(self, plan: "_Plan", timed: bool) -> list[Target] | None:
        """Look up where the numbers of a plan go; None where there are too many names."""
        self._note_places(_Row(dict.fromkeys(plan.names), style=plan.style), plan.placed)
        self._styles.add(plan.style)
        names = [*plan.columns, "timestamp"] if timed else plan.columns
        found = [self._rows.target(name) for name in names]
        whole = [target for target in found if target is not None]
        plan.targets[timed] = whole if len(whole) == len(found) else None
        return plan.targets[timed]

    def _note_falls(self, step: float | None, epoch: float | None) -> None:
        """Remember the line at which steps, or epochs where there are no steps, go back."""
        clock, now = ("epoch", epoch) if step is None else ("step", step)
        if now is None:
            return
        if now < self._last[clock] and len(self._falls) < _MOST_FALLS:
            self._falls.append((self._rows.count, self.line))
        self._last[clock] = now

    def _step(self, row: _Row) -> float | None:
        if row.within is None or row.epoch is None:
            return row.step
        return self._counted_on(row.epoch, *row.within, row.style)

    def _counted_on(self, epoch: float, batch: float, batches: float, style: str) -> float:
        """A batch of an epoch as a step."""
        if self._first_epoch is None:
            self._first_epoch = 1.0 if epoch >= 1 and style in ("mm", "keras") else min(epoch, 1.0)
        return (epoch - self._first_epoch) * batches + batch

    def has(self, style: str) -> bool:
        """Whether any row was of a style."""
        return style in self._styles

    def notes(self) -> list[str]:
        """What a reader should know of these numbers."""
        out = []
        if "estimates" in self._styles:
            out.append(
                f"{_ESTIMATE}: a mean over several batches at an evaluation, not the loss of an update"
            )
        if "aliases" in self._styles:
            out.append("train, val, trl, tel are taken as losses, norm as that of the gradient")
        if "dict" in self._styles:
            out.append(
                "the printed dictionaries name no steps; the loss in each is the mean since the one before"
            )
        return out

    def warnings(self, columns: list[Column]) -> list[str]:
        """What was left out, and where other runs seem to begin."""
        out = []
        if self._doubled:
            out.append(f"{self._doubled:,} lines of other ranks repeat names: one rank is read")
        if lines := self._begin_anew(columns):
            some = ", ".join(f"{line:,}" for line in lines[:_LINES_SAID])
            more = f" and {len(lines) - _LINES_SAID:,} more" if len(lines) > _LINES_SAID else ""
            out.append(
                f"{len(lines) + 1} runs seem to follow one another in this text: steps begin anew at "
                f"line{'s' if len(lines) > 1 else ''} {some}{more}"
            )
        return out

    def _begin_anew(self, columns: list[Column]) -> list[int]:
        """The lines at which the longest column goes back to its first step, and stays back."""
        guides = [column for column in columns if column.clock != "rows" and column.order is not None]
        guide = max(guides, key=lambda column: len(column.steps), default=None)
        if guide is None or guide.order is None or not self._falls:
            return []
        rows = [int(guide.order[at]) for at in rewinds(guide.steps) if guide.steps[at] <= guide.steps[0]]
        falls = (bisect_right(self._falls, row, key=lambda fall: fall[0]) for row in rows)
        return sorted({self._falls[fall - 1][1] for fall in falls if fall})


def _described(column: Column, gathered: _Gathered, part: Part) -> Column:
    """The column with unit, role and window where the format is known."""
    column = replace(column, unit=gathered.units.get(column.name, ""))
    if column.name == _ESTIMATE:
        others = any(c.name in ("loss", "train/loss") for c in part.columns)
        return replace(
            column, role="" if others else "train loss", estimator="mean over the batches of an evaluation"
        )
    if column.name.endswith(_SO_FAR):
        return replace(column, window=0, estimator="running mean since the epoch began")
    averaged = gathered.has("megatron") or gathered.has("dict")
    if averaged and _SINCE_LAST.match(column.name):
        window = 0 if gathered.has("dict") else usual_spacing(column.steps)
        return replace(column, window=window, estimator="mean since the row before")
    if gathered.has("keras") and column.clock == "epochs" and guess_role(column.name).startswith("train"):
        return replace(column, window=0, estimator="mean over the epoch")
    return column


def _bare(line: str) -> tuple[str, float | None, str | None]:
    """A line without colors, rank and moment; the moment in Unix seconds; the rank."""
    if "\x1b" in line or "\x08" in line:
        line = _COLOR.sub("", line)
    rank = None
    if found := _RANK.match(line):
        rank, line = found[1] or found[2], line[found.end() :]
    moment = None
    if line.count(":", 0, _MOMENT_WITHIN) > 1 and (found := _MOMENT.search(line, 0, _MOMENT_WITHIN)):
        moment = to_seconds(found[1])
        line = line[: found.start()].rstrip("[ ") + " " + line[found.end() :].lstrip("], ")
    if ".py:" in line or ".c" in line:
        line = _PLACE.sub("", line)
    return line, moment, rank


def _by_pattern(pattern: str) -> "Callable[[str], _Row | None]":
    try:
        fits = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"the pattern is no regular expression ({error}): {pattern}") from error
    if not fits.groupindex:
        raise UsageError(f"the pattern has no named group such as (?P<step>...): {pattern}")

    def reader(text: str) -> _Row | None:
        match = fits.search(text)
        if match is None:
            return None
        found = {name: value for name, value in match.groupdict().items() if value is not None}
        step, epoch = (_number(found.pop(name, None)) for name in ("step", "epoch"))
        return _Row(found, step, epoch) if found else None

    return reader


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", ""))
    except ValueError:
        return None


class _Shapes:
    """Lines on their way to rows: by the plan of their shape where there is one, else by the parser."""

    def __init__(self, parser: "_Parser", gathered: _Gathered) -> None:
        self._parser, self._gathered = parser, gathered
        self._plans: dict[Shape, _Plan | None] = {}
        self._seen: dict[Shape, int] = {}  # lines so far of a shape without a plan
        self._header = parser.header

    def take(self, text: str, moment: float | None, rank: str | None) -> None:
        """Enter the row of a line, if it holds one."""
        known = None if _BAR.match(text) else shape_of(text)
        if known is not None:
            plan = self._plan(known[0])
            if plan is not None and plan.nothing:
                return
            if plan is not None and self._gathered.take_known(plan, known[1], moment, rank):
                if plan.kept_epoch and plan.epoch_at is not None:
                    self._parser.epoch = float(known[1][plan.sources[plan.epoch_at][0]])
                return
        if row := self._parser(text, clean=True):
            self._gathered.take(row, moment, rank)

    def _plan(self, shape: Shape) -> "_Plan | None":
        if self._parser.header is not self._header:
            self._header = self._parser.header
            self._plans, self._seen = {}, {}
        if shape in self._plans:
            return self._plans[shape]
        seen = self._seen.pop(shape, 0) + 1
        if seen < _FEWEST_LINES:
            if len(self._seen) >= _MOST_SHAPES:
                self._seen.clear()
            self._seen[shape] = seen
            return None
        if len(self._plans) >= _MOST_SHAPES:
            del self._plans[next(iter(self._plans))]
        plan = _planned(shape, self._parser) or _planned(shape, self._parser, narrow=True)
        self._plans[shape] = plan
        return plan


_Source = tuple[int, str, float]  # the place of a number in its line, the exponent behind it, and its factor
_Said = dict[tuple[str, str], Any]
_Outcome = tuple[
    _Row | None, bool
]  # of a line: its row, and whether it has an epoch that progress bars belong to


@dataclass
class _Plan:
    """How lines of one shape are read.

    Attributes:
        nothing: they hold no row.
        names: of the row's values.
        columns: names of what the sources give, the step and the epoch among them.
        others: cells that all these lines share.
        within: whether the last two sources are a batch and how many there are, of which the last column is made.
        epoch_at: place of the epoch in the columns.
        step_at: place of the step in the columns.
        kept_epoch: whether progress bars that follow belong to this epoch.
        narrow: whether that holds of numbers with up to `NARROW` characters only.
        picky: whether there are lines of the shape that don't fit.
        grouped: whether they have groups of thousands.
        targets: where the columns go, once they are known; by whether a time goes with them.
    """

    nothing: bool = False
    names: tuple[str, ...] = ()
    style: str = ""
    units: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    sources: list[_Source] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)
    within: bool = False
    epoch_at: int | None = None
    step_at: int | None = None
    kept_epoch: bool = False
    narrow: bool = False
    picky: bool = False
    grouped: bool = False
    placed: bool = False
    targets: dict[bool, list[Target] | None] = field(default_factory=dict)

    def fits(self, numbers: list[str]) -> bool:
        """Whether a line can be read so: a number such as 007 makes a dictionary no dictionary."""
        if self.narrow and max(map(len, numbers), default=0) > NARROW:
            return False
        return self.style != "dict" or not any(n[0] == "0" and n[1:2].isdigit() for n in numbers)

    def numbers(self, numbers: list[str]) -> list[float]:
        """What the sources give."""
        if self.grouped:
            numbers = [number.replace(",", "") for number in numbers]
        return [float(numbers[at] + exponent) * factor for at, exponent, factor in self.sources]


def _planned(shape: Shape, parser: "_Parser", *, narrow: bool = False) -> _Plan | None:
    """The plan of a shape; None if the parser doesn't read all its lines as the same function of their numbers."""
    tried = [(numbers, parser.tried(filled(shape, numbers))) for numbers in samples(shape, narrow=narrow)]
    numbers, first = tried[0]
    if first is None:
        return None
    row, kept = first
    if row is None:
        return _Plan(nothing=True) if not narrow and all(outcome == first for _, outcome in tried) else None
    plan = _plan_of(row, kept, _sources(shape, numbers))
    if plan is None:
        return None
    plan.narrow, plan.grouped = narrow, "," in shape[1::2]
    plan.picky = narrow or plan.style == "dict"
    if plan.grouped and plan.style == "dict":
        return None
    return plan if all(_gives(plan, numbers, outcome) for numbers, outcome in tried) else None


def _sources(shape: Shape, numbers: list[str]) -> dict[float, _Source]:
    """What the numbers of a line may stand for: with the sign, the exponent or the unit around them, or without."""
    out: dict[float, _Source] = {}
    for at, number in enumerate(numbers):
        before, behind = shape[2 * at] or "", shape[2 * at + 2] or ""
        exponent = _EXPONENT.match(behind)
        exponents = ("", exponent[0]) if exponent else ("",)
        signs = (1.0, -1.0) if before.endswith("-") else (1.0,)
        units = (1.0, _SCALES[behind[0].lower()]) if behind[:1] in ("k", "K", "M") else (1.0,)
        for end, sign, unit in itertools.product(exponents, signs, units):
            value = float(number.replace(",", "") + end) * sign * unit
            out.setdefault(value, (at, end, sign * unit))
    return out


def _said(row: _Row) -> _Said:
    """What a row says, in the order in which it is entered."""
    out: _Said = {("value", name): cell for name, cell in row.values.items()}
    batch, batches = row.within or (None, None)
    places = {"epoch": row.epoch, "step": row.step, "batch": batch, "batches": batches}
    return out | {(kind, kind): number for kind, number in places.items() if number is not None}


def _plan_of(row: _Row, kept: bool, found: Mapping[float, _Source]) -> _Plan | None:
    """The plan of lines that give such a row; None where a place has no number of the line, or a name has two."""
    said = _said(row)
    known = {label: to_number(cell) for label, cell in said.items()}
    sources = {
        label: found[number] for label, number in known.items() if number is not None and number in found
    }
    others = {label: cell for label, cell in said.items() if label not in sources}
    columns = ["step" if kind == "batches" else name for kind, name in sources if kind != "batch"]
    names = [*columns, *(name for _, name in others)]
    if len(set(names)) < len(names) or not {"timestamp", "train_runtime"}.isdisjoint(names):
        return None
    if any(kind != "value" for kind, _ in others):
        return None
    return _Plan(
        names=tuple(row.values),
        style=row.style,
        units=row.units,
        columns=columns,
        sources=list(sources.values()),
        others={name: cell for (_, name), cell in others.items()},
        within=row.within is not None,
        epoch_at=None if row.epoch is None else columns.index("epoch"),
        step_at=None if row.step is None and row.within is None else len(columns) - 1,
        kept_epoch=kept,
        placed=row.step is not None or row.epoch is not None,
    )


def _gives(plan: _Plan, numbers: list[str], outcome: _Outcome | None) -> bool:
    """Whether a plan says of a line what the parser says."""
    row, kept = outcome or (None, False)
    if row is None or (tuple(row.values), row.style, row.units) != (plan.names, plan.style, plan.units):
        return False
    said = _said(row)
    others = {name: said.pop(("value", name)) for name in plan.others}
    given = [to_number(cell) for cell in said.values()]
    return kept == plan.kept_epoch and repr(others) == repr(plan.others) and given == plan.numbers(numbers)


class _Parser:
    """Lines to rows; remembers the header of a table and the epoch of a progress bar."""

    def __init__(self) -> None:
        self.header: list[str] = []
        self.epoch: float | None = None

    def tried(self, text: str) -> _Outcome | None:
        """What a text gives, without any effect on the lines that follow; None for a table's header."""
        header, epoch = self.header, self.epoch
        mark = self.epoch = float("nan")
        row = self(text, clean=True)
        kept, is_header = self.epoch is not mark, self.header is not header
        self.header, self.epoch = header, epoch
        return None if is_header else (row, kept)

    def __call__(self, line: str, *, clean: bool = False) -> _Row | None:
        text = line if clean else _bare(line)[0]
        if not text or (not any(map(str.isdigit, text)) and "nan" not in text and not self._is_header(text)):
            return None
        return (
            self._dictionary(text)
            or self._tabular(text)
            or self._bare_row(text)
            or self._bar(text)
            or self._usual(text)
        )

    def _dictionary(self, text: str) -> _Row | None:
        """``{'loss': 2.3, 'epoch': 0.1}``, in Python's or JSON's form, wherever it stands in the line."""
        found = _DICT.search(text)
        end = text.rfind("}")
        if found is None or end < found.start() or end - found.start() > _LONGEST_DICT:
            return None
        piece = text[found.start() : end + 1]
        try:
            held = json.loads(piece) if '"' in piece and "'" not in piece else None
            held = held or ast.literal_eval(_BARE_ODD.sub(r"'\1\2'", piece))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
        if not isinstance(held, dict):
            return None
        values = flat({str(key): value for key, value in held.items()})
        numbers = [v for v in values.values() if isinstance(v, int | float) or _is_number(v)]
        return _Row(values, style="dict") if numbers else None

    def _is_header(self, text: str) -> bool:
        """Whether the line heads a table: remembered for the lines that follow."""
        if ":" in text or "=" in text or len(text) > 400 or not _HEADER.match(text):
            return False
        words = re.split(r"\s{2,}|\t|\s?\|\s?", text.strip())
        if len(words) < 3:
            words = text.split()
        if len(words) < 3 or any(re.search(r"[\d{}]", word) for word in words[:2]):
            return False
        if words != self.header:
            self.header = words
        return True

    def _tabular(self, text: str) -> _Row | None:
        """A line under a table's header (fastai, Ultralytics, notebooks)."""
        if self._is_header(text):
            return None
        if not self.header or len(text) > 2000:
            return None
        cells = re.split(r"\s?\|\s?|\s+", text.strip())
        first = re.match(r"^(\d{1,15})(?:/\d{1,15})?$", cells[0])
        if first is None or len(cells) < len(self.header):
            return None
        if len(cells) > len(self.header) and not re.search(r"[%|:]", text):
            return None
        values = {name: cell.rstrip("GMK%") for name, cell in zip(self.header[1:], cells[1:], strict=False)}
        values = {name: cell for name, cell in values.items() if _is_number(cell)}
        if "valid_loss" in self.header:  # fastai's: its metrics are those of the validation
            values = {n if n.endswith("_loss") else f"valid/{n}": cell for n, cell in values.items()}
        if not values:
            return None
        at = float(first[1])
        if re.match("epoch", self.header[0], re.I):
            return _Row(values, epoch=at, style="keras")
        return _Row(values, step=at)

    def _bare_row(self, text: str) -> _Row | None:
        """``250 val 3.0594``."""
        found = _BARE.match(text)
        if found is None:
            return None
        return _Row({_ALIASES.get(found[2], found[2]): found[3]}, step=float(found[1]), style="aliases")

    def _bar(self, text: str) -> _Row | None:
        """Keras' bar: its numbers are means since the epoch began, so only a full bar is a row."""
        found = _BAR.match(text)
        if found is None or self.epoch is None:
            return None
        if found[1] != found[2]:
            return _Row({}, partial=True)
        values, units = _pairs(text[found.end() :])
        return _Row(values, epoch=self.epoch, style="keras", units=units) if values else None

    def _usual(self, text: str) -> _Row | None:
        """A line of names and numbers with, as the case may be, a step and an epoch."""
        row = _Row({})
        rest = text
        if found := _TEST_BATCH.search(_beginning(text)):
            row.within = (int(found[1]), int(found[2]))
            return self._of_evaluation(row, text[: found.start()] + " | " + text[found.end() :])
        for fits in _EPOCH_BATCH:
            if found := fits.search(_beginning(text)):
                row.epoch = float(found[2])
                row.within = (int(found[3]), int(found[4]))
                row.style = (
                    "mm" if fits is _EPOCH_BATCH[0] and "(" in found[0] + " " and found[1] else "epochs"
                )
                rest = text[: found.start()] + " " + text[found.end() :]
                if found[1] and re.match("test|val|eval", found[1], re.I):
                    return self._of_evaluation(row, rest)
                break
        else:
            rest = self._counted(row, text, rest)
        row.values, row.units = _pairs(rest)
        if "iteration" in text and "consumed samples" in text:
            row.style = "megatron"
        self._evaluation_or_not(row, text)
        return row if row.values or row.epoch is not None else None

    def _counted(self, row: _Row, text: str, rest: str) -> str:
        """Step and epoch of a line, which it then lacks."""
        if found := _EPOCH.search(_beginning(rest)):
            row.epoch = self.epoch = float(found[1])
            rest = rest[: found.start()] + " | " + rest[found.end() :].lstrip("])")
        if row.epoch is not None and (found := _BATCHES.search(_beginning(rest))):
            row.within = (int(found[1]), int(found[2]))
            rest = rest[: found.start()] + " | " + rest[found.end() :]
        elif found := _BRACKET.match(rest):
            row.step, rest = float(found[1]), rest[found.end() :]
        elif (found := _STEP.search(_beginning(rest))) and (found["of"] or _counts(found["word"])):
            row.step = float(found["at"])
            rest = rest[: found.start()] + " | " + rest[found.end() :].lstrip("]):,")
        elif found := re.match(r"\s{0,4}s:(\d{1,15})\s", rest):
            row.step, row.style, rest = float(found[1]), "aliases", rest[found.end() :]
        return rest

    def _of_evaluation(self, row: _Row, rest: str) -> _Row:
        """A batch of an evaluation (timm): only the last one has the mean over all."""
        row.partial = row.within is not None and row.within[0] < row.within[1] - 1
        found, row.units = _pairs(rest)
        means = {key.removesuffix(_SO_FAR): value for key, value in found.items() if key.endswith(_SO_FAR)}
        row.values = {} if row.partial else {f"eval/{key}": value for key, value in (means or found).items()}
        row.within = row.epoch = None
        return row

    def _evaluation_or_not(self, row: _Row, text: str) -> None:
        names = set(row.values)
        if row.step is not None and names == {"train loss", "val loss"}:
            row.values = {_ESTIMATE: row.values["train loss"], "val loss": row.values["val loss"]}
            row.style = "estimates"
        elif row.style == "aliases":
            row.values = {_ALIASES.get(name, name): value for name, value in row.values.items()}
        elif _EVALUATION.match(text[:60]) or text.lstrip().startswith("* "):
            row.values = {
                name if _SAID.search(name) else f"eval/{name}": value for name, value in row.values.items()
            }


def _beginning(text: str) -> str:
    """The first characters of a text, without a number that is cut there."""
    return text if len(text) <= _CUT else text[:_CUT].rstrip("0123456789")


def _counts(word: str) -> bool:
    """Whether a number behind a word is a count of the training: "steps=10" and "batch 16" are settings."""
    low = word.lower()
    return low == "num_updates" or not low.endswith(("s", "batch"))


def _pairs(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Names and numbers of a text, with units: ``name: 1``, ``name=1``, and ``name 1`` between separators."""
    values: dict[str, Any] = {}
    units: dict[str, str] = {}
    end, spans = 0, []
    for found in _PAIR.finditer(text):
        key = _key_before(text[max(end, found.start() - 80) : found.start()])
        spans.append((end, found.start()))
        end = found.end()
        if key and not found["odd"]:
            _enter(values, units, key, found["value"], found["unit"], found["mean"])
    spans.append((end, len(text)))
    for low, high in spans:
        if high - low > 3:
            for segment in _SPLIT.split(_WIDE.sub(" ", text[low:high])):
                _enter_words(values, units, segment)
    return values, units


def _enter_words(values: dict[str, Any], units: dict[str, str], segment: str) -> None:
    """``loss 5.1 (+0.2z)``, or several names and numbers in turn: ``* Acc@1 76.1 Acc@5 92.8``."""
    if match := _WORDS.match(segment):
        _enter(values, units, match["key"], match["value"], match["unit"], match["mean"])
        return
    words = segment.strip(" *>").split(" ")
    if len(words) % 2 == 0 and all(map(_is_number, words[1::2])) and not any(map(_is_number, words[::2])):
        for key, value in zip(words[::2], words[1::2], strict=True):
            _enter(values, units, key, value, None, None)


def _enter(
    values: dict[str, Any], units: dict[str, str], key: str, value: str, unit: str | None, mean: str | None
) -> None:
    name = " ".join(key.split())[:80]
    word = (unit or "").strip()
    attached = bool(word) and not (unit or "").startswith(" ")
    if attached and word.lower() not in _UNITS and word.lower() not in _SCALES:
        return  # a word that begins with a digit
    number: Any = value.replace(",", "")
    if attached and word in ("k", "M", "K"):
        number = float(number) * _SCALES[word.lower()]
        word = ""
    if not name or name in values or name.lower() in _NO_SIGNALS:
        return
    if inner := _UNIT_OF_NAME.search(name):
        units[name] = inner[1]
    values[name] = number
    if word.lower() in _UNITS:
        units[name] = word
    if mean and (inner := _PARENTHESES.search(mean)):
        values[name + _SO_FAR] = inner[1].replace(",", "")


def _key_before(text: str) -> str:
    """The name that ends where a colon or an equals sign stands."""
    piece = _BREAKS.split(text.rstrip())[-1]
    found = _KEY_END.search(piece)
    if found is None:
        return ""
    words = found[0].lstrip(" -.()[]").rstrip(" -.([").split()
    return " ".join(words) if 0 < len(words) <= _MOST_WORDS else ""


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
