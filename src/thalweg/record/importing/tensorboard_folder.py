"""TensorBoard's event files, read without TensorBoard: scalars of all runs below a folder, checksums verified.

Every folder that holds ``events.out.tfevents.*`` is a run. Several files in it are what several processes wrote, one
after the other: the next one continues from the first step of its longest curve. Files of one folder that give the
same tags at the same time come from several writers, and are kept apart as runs. What ``add_scalars`` spreads over
folders comes back to the run it belongs to, as ``TAG/KEY``.

Events of one writer look alike: the first of a kind is taken apart by hand, and shows where in all others of that
length the time, step, tag and value lie, which are then gathered at once. What fits to no such layout is taken apart
by hand.
"""

import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.core.errors import RunFileError
from thalweg.record.codecs import Ints
from thalweg.record.importing.checksums import Bytes
from thalweg.record.importing.contracts import Column, Floats, Imported, NameMap, Part
from thalweg.record.importing.tfrecords import HEADER, Records, is_header
from thalweg.record.importing.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Field,
    WireError,
    double,
    fields,
    signed,
    text,
    varint,
)

CARD = Card(
    name="tensorboard",
    kind="importer",
    summary="TensorBoard event files: scalars of every run below a folder, checksums verified, damage reported.",
    needs="files named events.out.tfevents.*",
    cost="about a second for a million points",
)
_MARK = "tfevents"
_NAME_TIME = re.compile(r"tfevents\.(\d{9,11})(?:\.|$)")
_TIME = re.compile(r"^\d{9,11}(?:\.\d+)?$")
_FLUSHED_EVERY = 150.0  # seconds: TensorBoard's writers flush every 120
_FEW = 8  # records of one length that are taken apart by hand
_MANY = 1000  # records of one length from which on summing them as a matrix is faster than piecewise
_WIDEST = 4096  # bytes of such rows
_KINDS_TRIED = 32  # layouts looked for among the records of one length in a block
_MOST_TEXT = 1 << 18

# Where the values of a tensor's types lie, and how they are stored: DT_FLOAT, DT_DOUBLE, ...
_CONTENT = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "u1", 14: "bf16", 17: "<u2", 19: "<f2",
            22: "<u4", 23: "<u8"}  # fmt: skip
_PACKED = {5: "<f4", 6: "<f8"}  # float_val, double_val
_VARINTS = (7, 10, 11, 13, 16, 17)  # int_val, int64_val, bool_val, half_val, uint32_val, uint64_val
_OTHERS = {3: "histogram", 4: "image", 5: "histogram", 6: "audio"}


def accepts(path: Path) -> float:
    """0.95 for an event file, or a folder with one; 0.6 where it lies deeper; less if it doesn't begin with a record."""
    if path.is_file():
        return _sure(path)
    depth = len(path.parts)
    for number, (folder, _, names) in enumerate(os.walk(path)):
        for name in sorted(names):
            if _MARK in name:
                sure = _sure(Path(folder) / name)
                return sure if len(Path(folder).parts) == depth else min(sure, 0.6)
        if number > 1000:
            break
    return 0.0


def _sure(file: Path) -> float:
    if not stat.S_ISREG(file.stat().st_mode):
        return 0.0
    with file.open("rb") as opened:
        right = is_header(opened.read(HEADER))
    named = _MARK in file.name
    return 0.95 if right else 0.5 if named else 0.0


def read(path: Path, names: NameMap) -> Iterator[Imported]:
    """The runs that have scalars, the folder's own first, then those below it by name."""
    folders = _folders(path)
    if not folders:
        raise RunFileError(f"{path} holds no event file: files named events.out.tfevents.* are meant")
    warnings: list[str] = []
    read_files = {
        folder: [one for file in files if (one := _read_or_warn(file, path, warnings)) is not None]
        for folder, files in folders.items()
    }
    _bring_back(read_files)
    runs = [run for folder, files in read_files.items() for run in _runs_of(path, folder, files)]
    with_values = [run for run in runs if run.parts]
    if not with_values:
        said = "; ".join([*warnings, *(w for run in runs for w in run.warnings)][:5])
        count = sum(len(files) for files in folders.values())
        raise RunFileError(f"{path}: {count} event files, and no scalar in them{': ' + said if said else ''}")
    lost = [w for run in runs if not run.parts for w in run.warnings]
    with_values[0].warnings[:0] = warnings + lost
    yield from with_values


def _folders(path: Path) -> dict[Path, list[Path]]:
    """Folder -> its event files; links to folders are not followed, so that no loop is."""
    if not path.is_dir():
        return {path.parent: [path]}
    out = {}
    for folder, below, names in os.walk(path):
        below.sort()
        if files := sorted(Path(folder) / name for name in names if _MARK in name):
            out[Path(folder)] = files
    return out


# One file.


@dataclass
class _File:
    """What one event file holds.

    Attributes:
        path: the file.
        columns: tag -> its values in the order of the file.
        started: the time in the file's name, or of its first event.
        ended: the time of its last event.
        restarts: record number and step of each start of a session, from which on older values are void.
        skipped: kind -> how many values of it were passed over.
        config: hyper-parameters and configurations noted as text.
        changed: when the file was last written.
        warnings: damage in words.
    """

    path: Path
    columns: dict[str, Column] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    restarts: list[tuple[int, int]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    config: dict[str, Any] = field(default_factory=dict)
    changed: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def span(self) -> tuple[float, float]:
        """First and last wall time of its values."""
        times = [c.times for c in self.columns.values() if c.times is not None]
        return min((float(t.min()) for t in times), default=0.0), max(
            (float(t.max()) for t in times), default=0.0
        )


def _read_or_warn(path: Path, root: Path, warnings: list[str]) -> _File | None:
    shown = str(path.relative_to(root)) if path != root and root.is_dir() else path.name
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            return _Reader(path, shown, found.st_mtime).read()
        warnings.append(f"{shown} is no plain file: left out")
    except OSError as error:
        warnings.append(f"{shown} can't be read ({error.strerror}): left out")
    return None


class _Reader:
    """One pass over one file."""

    def __init__(self, path: Path, shown: str, changed: float) -> None:
        self._shown = shown
        self._file = _File(path=path, changed=changed)
        self._records = Records(path)
        self._tags: dict[bytes, int] = {}
        self._found: list[_Values] = []  # of the present block
        self._blocks: list[_Values] = []
        self._odd: list[tuple[int, int, int, float, float]] = []
        self._unread = 0
        self._first = self._last = 0.0

    def read(self) -> _File:
        count = 0
        for data, starts, lengths in self._records.blocks():
            self._take_block(data, starts, lengths, count)
            count += len(starts)
        file = self._file
        named = _NAME_TIME.search(file.path.name)
        file.started = min(float(named[1]), self._first or np.inf) if named else self._first
        file.ended = max(self._last, file.started)
        file.columns = self._columns()
        file.warnings = self._records.in_words(self._shown)
        if self._unread:
            file.warnings.append(f"{self._shown}: {self._unread:,} records are no events: left out")
        return file

    def _take_block(self, data: Bytes, starts: Ints, lengths: Ints, count: int) -> None:
        order = np.argsort(lengths, kind="stable")
        cuts = np.flatnonzero(np.diff(lengths[order])) + 1
        few = []
        for group in np.split(order, cuts):
            length = int(lengths[group[0]])
            if len(group) <= _FEW or length > _WIDEST or not length:
                few.append(group)
                continue
            rows = np.lib.stride_tricks.sliding_window_view(data, length + 4)[starts[group]]
            if len(group) >= _MANY:
                right = self._records.verify_rows(rows, starts[group])
            else:
                right = self._records.verify(data, starts[group], lengths[group])
            if not right.all():
                rows, group = rows[right], group[right]
            self._take_rows(rows[:, :length], count + group)
        if few:
            rest = np.sort(np.concatenate(few))
            rest = rest[self._records.verify(data, starts[rest], lengths[rest])]
            for index in rest.tolist():
                start = int(starts[index])
                self._take_odd(data[start : start + int(lengths[index])].tobytes(), count + index)
        self._close_block()

    def _take_rows(self, rows: Bytes, records: Ints) -> None:
        """Records of one length: those that look like the first one at once, then those like the first that is left."""
        tried = 0
        while len(records):
            layout = _layout_of(rows[0].tobytes()) if tried < _KINDS_TRIED else None
            if layout is None:
                self._take_odd(rows[0].tobytes(), int(records[0]))
                rows, records = rows[1:], records[1:]
                continue
            tried += 1
            fits = layout.fits(rows)
            whole = bool(fits.all())
            self._gather(layout, rows if whole else rows[fits], records if whole else records[fits])
            if whole:
                return
            rows, records = rows[~fits], records[~fits]

    def _gather(self, layout: "_Layout", rows: Bytes, records: Ints) -> None:
        walls = _numbers(rows, layout.wall, "<f8") if layout.wall is not None else np.zeros(len(rows))
        self._seen(walls)
        steps = _varints(rows, *layout.step) if layout.step else np.zeros(len(rows), np.int64)
        for place, scalar in enumerate(layout.scalars):
            tags = self._tag_numbers(rows[:, scalar.tag[0] : scalar.tag[1]])
            values = _numbers(rows, scalar.at, scalar.dtype)
            self._found.append(_Values(records << 20 | place, tags, steps, walls, values))

    def _tag_numbers(self, tags: Bytes) -> NDArray[np.int32]:
        """[n] a number for each row's tag."""
        varies = np.flatnonzero((tags != tags[0]).any(axis=0))
        if not len(varies):
            return np.full(len(tags), self._number(tags[0].tobytes()), np.int32)
        weights = np.random.default_rng(len(varies)).integers(1, 1 << 63, len(varies), np.uint64) | np.uint64(
            1
        )
        digests = np.zeros(len(tags), np.uint64)
        for column, weight in zip(varies.tolist(), weights, strict=True):
            digests += tags[:, column] * weight
        _, firsts, kinds = np.unique(digests, return_index=True, return_inverse=True)
        if not (tags[:, varies] == tags[np.ix_(firsts, varies)][kinds]).all():  # two tags of one digest
            _, firsts, kinds = np.unique(tags, axis=0, return_index=True, return_inverse=True)
        numbers = np.array([self._number(tags[first].tobytes()) for first in firsts], np.int32)
        return numbers[kinds.reshape(-1)]

    def _number(self, tag: bytes) -> int:
        return self._tags.setdefault(tag, len(self._tags))

    def _seen(self, walls: Floats) -> None:
        known = walls[np.isfinite(walls) & (walls > 0)]
        if len(known):
            self._first = min(self._first or np.inf, float(known.min()))
            self._last = max(self._last, float(known.max()))

    def _take_odd(self, data: bytes, record: int) -> None:
        """Take a record apart by hand."""
        try:
            event = _Event(data)
        except WireError:
            self._unread += 1
            return
        wall = double(data, event.wall) if event.wall is not None else 0.0
        step = signed(data, *event.step) if event.step else 0
        self._seen(np.array([wall]))
        if event.restart:
            self._file.restarts.append((record, step))
        for place, value in enumerate(event.values):
            if value.number is not None:
                tag = self._number(data[slice(*value.tag)])
                self._odd.append((record << 20 | place, tag, step, wall, value.number))
            else:
                self._note(data, value)

    def _note(self, data: bytes, value: "_Value") -> None:
        """A value that is no scalar: counted, and read if it holds settings."""
        if value.hparams:
            self._file.config |= _hparams(data, *value.hparams)
        elif value.text:
            tag = text(data, *value.tag).removesuffix("/text_summary")
            settings = _settings(data, *value.text)
            if settings is None:
                self._file.skipped["text or image tensor"] += 1
            else:
                self._file.config[tag] = settings
        elif value.kind:
            self._file.skipped[value.kind] += 1

    def _close_block(self) -> None:
        """The block's values, sorted by their place in the file."""
        if self._odd:
            self._found.append(_Values.of(self._odd))
        if self._found:
            block = _Values.joined(self._found)
            self._blocks.append(block.sorted_by(block.places))
        self._found, self._odd = [], []

    def _columns(self) -> dict[str, Column]:
        if not self._blocks:
            return {}
        values = _Values.joined(self._blocks)
        self._blocks = []
        few = len(self._tags) < 1 << 16
        values = values.sorted_by(values.tags.astype(np.uint16) if few else values.tags)
        cuts = np.searchsorted(values.tags, np.arange(len(self._tags) + 1)).tolist()
        spans = [(low, high, tag) for tag, low, high in zip(self._tags, cuts[:-1], cuts[1:], strict=True)]
        out: dict[str, Column] = {}
        for low, high, tag in sorted(spans, key=lambda span: int(values.places[span[0]])):
            name = tag.decode("utf-8", "backslashreplace")
            part = slice(low, high)
            out[name] = Column(
                name=name,
                steps=values.steps[part],
                values=values.values[part],
                times=values.walls[part],
                order=values.places[part] >> 20,
            )
        return out


@dataclass
class _Values:
    """Scalars [n]: place in the file (record number and place in it), number of the tag, step, wall time, value."""

    places: Ints
    tags: NDArray[np.int32]
    steps: Ints
    walls: Floats
    values: Floats

    @staticmethod
    def joined(several: "list[_Values]") -> "_Values":
        if len(several) == 1:
            return several[0]
        return _Values(
            *(np.concatenate([getattr(one, name) for one in several]) for name in _Values.__match_args__)
        )

    @staticmethod
    def of(rows: list[tuple[int, int, int, float, float]]) -> "_Values":
        places, tags, steps, walls, values = zip(*rows, strict=True)
        return _Values(
            np.array(places, np.int64),
            np.array(tags, np.int32),
            np.array(steps, np.int64),
            np.array(walls),
            np.array(values),
        )

    def sorted_by(self, keys: NDArray[Any]) -> "_Values":
        if (keys[1:] >= keys[:-1]).all():
            return self
        order = np.argsort(keys, kind="stable")
        return _Values(*(getattr(self, name)[order] for name in _Values.__match_args__))


def _void(file: _File, older: Iterable[_File] = ()) -> None:
    """Take out what a restart of the session declared void: values from its step on that were written before it."""
    lost = 0
    for record, step in file.restarts:
        for one in (file, *older):
            for name, column in one.columns.items():
                void = column.steps >= step
                if one is file:
                    void &= column.order < record if column.order is not None else False
                if void.any():
                    lost += int(void.sum())
                    one.columns[name] = _taken(column, ~void)
    if lost:
        file.warnings.append(f"{lost:,} values are left out, which a restart declared void (purge_step)")


def _taken(column: Column, rows: NDArray[Any]) -> Column:
    """Some rows of a column."""
    assert column.times is not None
    return Column(
        name=column.name,
        steps=column.steps[rows],
        values=column.values[rows],
        times=column.times[rows],
        order=None if column.order is None else column.order[rows],
    )


# One event.


@dataclass
class _Value:
    """One value of a summary: where its parts lie in the event."""

    tag: tuple[int, int] = (0, 0)
    at: int = -1
    dtype: str = ""
    number: float | None = None
    kind: str = ""
    plain: bool = True  # each field once
    hparams: tuple[int, int] | None = None
    text: tuple[int, int] | None = None


class _Event:
    """An event taken apart.

    Raises:
        WireError: it is none.
    """

    def __init__(self, data: bytes) -> None:
        self.wall: int | None = None
        self.step: tuple[int, int] | None = None
        self.values: list[_Value] = []
        self.restart = False
        self.plain = True  # nothing but wall time, step and one summary
        summaries = 0
        for number, kind, start, end in fields(data):
            if number == 1 and kind == FIXED64:
                self.plain &= self.wall is None
                self.wall = start
            elif number == 2 and kind == VARINT:
                self.plain &= self.step is None
                self.step = (start, end)
            elif number == 5 and kind == BYTES:
                summaries += 1
                self.values += [
                    _value(data, a, b) for n, w, a, b in fields(data, start, end) if (n, w) == (1, BYTES)
                ]
            else:
                self.plain = False
                if number == 7 and kind == BYTES:
                    self.restart |= any(
                        n == 1 and w == VARINT and signed(data, a, b) == 1
                        for n, w, a, b in fields(data, start, end)
                    )
        self.plain &= summaries == 1 and 0 < len(self.values) < 1 << 20
        self.plain &= all(value.at >= 0 and value.plain for value in self.values)


def _value(data: bytes, start: int, end: int) -> _Value:
    value = _Value()
    seen = set()
    tensor = None
    for number, kind, low, high in fields(data, start, end):
        value.plain &= number not in seen
        seen.add(number)
        if number == 1 and kind == BYTES:
            value.tag = (low, high)
        elif number == 7 and kind == BYTES and value.tag == (0, 0):
            value.tag = (low, high)  # tensors of old had the name of their node only
            value.plain = False
        elif number == 2 and kind == FIXED32:
            value.at, value.dtype = low, "<f4"
        elif number == 8 and kind == BYTES:
            tensor = (low, high)
        elif number == 9 and kind == BYTES:
            value.hparams = value.hparams or _hparams_span(data, low, high)
        elif kind == BYTES:
            value.kind = _OTHERS.get(number, value.kind)
    if tensor is not None and value.at < 0:
        _take_tensor(data, *tensor, value)
    elif value.at >= 0:
        value.number = _number_at(data, value.at, value.dtype)
    if value.hparams:
        value.at, value.number = -1, None
    return value


def _take_tensor(data: bytes, start: int, end: int, value: _Value) -> None:
    """A tensor's single number, if it is one: its place, or itself where it is stored as a varint."""
    value.kind = "tensor"
    dtype, scalar, content, once = 0, True, None, 0
    for number, kind, low, high in fields(data, start, end):
        if number == 1 and kind == VARINT:
            dtype = signed(data, low, high)
        elif number == 2 and kind == BYTES:
            scalar &= low == high  # a shape without dimensions
        elif number == 8 and kind == BYTES:
            value.text = (low, high)
        elif number == 4 or number in _PACKED or number in _VARINTS:
            content, once = (number, kind, low, high), once + 1
    if dtype not in _CONTENT or not scalar or content is None or once > 1:
        return
    _take_number(data, dtype, content, value)


def _take_number(data: bytes, dtype: int, content: Field, value: _Value) -> None:
    number, kind, low, high = content
    if number in _VARINTS:
        single = kind == VARINT or (kind == BYTES and high > low and varint(data, low, high)[1] == high)
        if single:
            raw = varint(data, low, high)[0] if number in (16, 17) else signed(data, low, high)
            stored = {14: "bf16", 19: "<f2"}.get(dtype)
            value.number = (
                _number_at((raw & 0xFFFF).to_bytes(2, "little"), 0, stored) if stored else float(raw)
            )
        return
    how = _CONTENT[dtype] if number == 4 else _PACKED[number]
    if high - low == _size(how):
        value.at, value.dtype = low, how
        value.number = _number_at(data, low, how)


def _size(dtype: str) -> int:
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def _number_at(data: bytes, at: int, dtype: str) -> float:
    return float(_numbers(np.frombuffer(data, np.uint8)[None], at, dtype)[0])


def _numbers(rows: Bytes, at: int, dtype: str) -> Floats:
    """[n] the numbers stored in some columns of bytes."""
    raw = np.ascontiguousarray(rows[:, at : at + _size(dtype)])
    with np.errstate(invalid="ignore"):
        if dtype == "bf16":
            return (raw.view("<u2")[:, 0].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return np.asarray(raw.view(dtype)[:, 0].astype(np.float64))


def _varints(rows: Bytes, start: int, end: int) -> Ints:
    """[n] the signed integers stored in some columns of bytes, of one length."""
    out = np.zeros(len(rows), np.uint64)
    for place in range(end - start):
        out |= (rows[:, start + place] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * place)
    return out.view(np.int64)


@dataclass
class _Layout:
    """Where the parts lie in events of one kind.

    Attributes:
        wall: where the wall time is; None without one.
        step: first and last place of the step's bytes; None for step 0, which is not stored.
        scalars: its values.
        like: [length] an event of the kind.
        free: [length] which bytes may differ.
    """

    wall: int | None
    step: tuple[int, int] | None
    scalars: list[_Value]
    like: Bytes
    free: NDArray[np.bool_]

    def fits(self, rows: Bytes) -> NDArray[np.bool_]:
        """[n] which rows are of the kind."""
        varies = np.flatnonzero((rows != self.like).any(axis=0) & ~self.free)
        out = np.ones(len(rows), bool)
        for column in varies.tolist():
            out &= rows[:, column] == self.like[column]
        if self.step:
            first, end = self.step
            for column in range(first, end):
                out &= (rows[:, column] >> 7) == (column < end - 1)
        return out


def _layout_of(data: bytes) -> _Layout | None:
    """The layout that an event shows; None if it holds something else than plain scalars."""
    try:
        event = _Event(data)
    except WireError:
        return None
    if not event.plain:
        return None
    free = np.zeros(len(data), bool)
    spans = [(event.wall, event.wall + 8)] if event.wall is not None else []
    spans += [event.step] if event.step else []
    for value in event.values:
        spans += [value.tag, (value.at, value.at + _size(value.dtype))]
    for low, high in spans:
        free[low:high] = True
    return _Layout(event.wall, event.step, event.values, np.frombuffer(data, np.uint8), free)


# Settings.


def _hparams_span(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the hparams plug-in's data lie in a value's metadata."""
    for number, kind, low, high in fields(data, start, end):
        if number == 1 and kind == BYTES:
            parts = {n: (a, b) for n, w, a, b in fields(data, low, high) if w == BYTES}
            if 1 in parts and data[slice(*parts[1])] == b"hparams":
                return parts.get(2)
    return None


def _hparams(data: bytes, start: int, end: int) -> dict[str, Any]:
    """What a session started with: field 3 of the plug-in's data, a map of names to values."""
    out = {}
    try:
        for number, kind, low, high in fields(data, start, end):
            if number == 3 and kind == BYTES:
                for inner, wire, a, b in fields(data, low, high):
                    if inner == 1 and wire == BYTES:
                        entry = {n: (x, y) for n, w, x, y in fields(data, a, b) if w == BYTES}
                        if 1 in entry and 2 in entry:
                            out[text(data, *entry[1])] = _plain_value(data, *entry[2])
    except WireError:
        pass
    return out


def _plain_value(data: bytes, start: int, end: int) -> Any:
    """A number, text or truth value of protobuf's Struct; None for what is nested."""
    for number, kind, low, high in fields(data, start, end):
        if number == 2 and kind == FIXED64:
            return double(data, low)
        if number == 3 and kind == BYTES:
            return text(data, low, high)
        if number == 4 and kind == VARINT:
            return bool(signed(data, low, high))
    return None


def _settings(data: bytes, start: int, end: int) -> dict[str, Any] | None:
    """A text that is a JSON object."""
    written = data[start:end].strip()
    if end - start > _MOST_TEXT or written[:1] != b"{":
        return None
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# From files to runs.


def _bring_back(folders: dict[Path, list[_File]]) -> None:
    """Give back to the run above what ``add_scalars`` and ``add_hparams`` wrote into folders of their own."""
    for folder in [f for f in folders if f.parent in folders]:
        files, above = folders[folder], folders[folder.parent]
        tags = {name for file in files for name in file.columns}
        of_scalars = len(tags) == 1 and folder.name.startswith(next(iter(tags)).replace("/", "_") + "_")
        of_hparams = _TIME.match(folder.name) and any(file.config for file in files)
        if not above or not (of_scalars or of_hparams):
            continue
        for file in files:
            earlier = [one for one in above if one.started <= file.started + 1]
            owner = max(earlier or above[:1], key=lambda one: one.started)
            for name, column in file.columns.items():
                # add_scalars: the folder is TAG_KEY, and the tag in it TAG
                full = f"{name}/{folder.name[len(name) + 1 :]}" if of_scalars else name
                _put(owner.columns, full, _taken(column, np.ones(len(column.steps), bool)))
            owner.config = file.config | owner.config
            owner.changed = max(owner.changed, file.changed)
            owner.warnings += file.warnings
        folders[folder] = []


def _put(columns: dict[str, Column], name: str, column: Column) -> None:
    """Add a column; if one of the name is there, the new one replaces it from its first step on."""
    column.name, column.order = name, None
    there = columns.get(name)
    if there is not None and len(column.steps):
        assert there.times is not None and column.times is not None
        kept = there.steps < column.steps.min()
        column.steps = np.concatenate([there.steps[kept], column.steps])
        column.values = np.concatenate([there.values[kept], column.values])
        column.times = np.concatenate([there.times[kept], column.times])
    columns[name] = column


def _runs_of(root: Path, folder: Path, files: list[_File]) -> list[Imported]:
    """The run of a folder; several if several wrote into it at the same time."""
    lanes: list[list[_File]] = []
    for file in sorted(files, key=lambda file: (file.started, file.path.name)):
        free = [lane for lane in lanes if not any(_at_once(file, other) for other in lane)]
        if free:
            free[0].append(file)
        else:
            lanes.append([file])
    name = folder.name if folder in (root, root.parent) else str(folder.relative_to(root))
    names = [name] if len(lanes) == 1 else [f"{name} ({_writer(lane[0].path)})" for lane in lanes]
    runs = [_run_of(root, called, lane) for called, lane in zip(names, lanes, strict=True)]
    if len(lanes) > 1:
        runs[0].warnings.append(
            f"{name}: {len(lanes)} writers gave the same tags at the same time: taken as runs of their own"
        )
    return runs


def _at_once(file: _File, other: _File) -> bool:
    """Whether two files have values of the same tag at overlapping times."""
    if not file.columns.keys() & other.columns.keys():
        return False
    (first, last), (start, end) = file.span(), other.span()
    return first < end and start < last


def _writer(file: Path) -> str:
    return file.name.partition(_MARK + ".")[2] or file.name


def _run_of(root: Path, name: str, lane: list[_File]) -> Imported:
    for place, file in enumerate(lane):
        _void(file, lane[:place])
    skipped = sum((file.skipped for file in lane), Counter[str]())
    counts = ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in skipped.items())
    config: dict[str, Any] = {}
    for file in lane:
        config |= file.config
    return Imported(
        path=root,
        name=name,
        format=CARD.name,
        parts=_parts(lane) if any(file.columns for file in lane) else [],
        config=config,
        notes=[f"left out, since they are no scalars: {counts}"] if counts else [],
        warnings=[warning for file in lane for warning in file.warnings],
        live=max(file.changed for file in lane) > time.time() - _FLUSHED_EVERY,
    )


def _parts(lane: list[_File]) -> list[Part]:
    """What each process wrote: one begins with each file that has the longest curve.

    Other curves may count something else (epochs), or begin a little earlier: what they have below the first step of
    the process goes to the part that this step belongs to, so that only what was written anew is replaced.
    """
    if len(lane) == 1:
        return [Part(columns=_ordered(lane[0].columns), started=lane[0].started, ended=lane[0].ended)]
    sizes: Counter[str] = Counter()
    for file in lane:
        sizes.update({name: len(column.steps) for name, column in file.columns.items()})
    guide = max(sizes, key=lambda name: (sizes[name], name))
    processes = [file for file in lane if guide in file.columns and len(file.columns[guide].steps)]
    firsts = [int(file.columns[guide].steps.min()) for file in processes]
    parts: list[dict[str, Column]] = [{} for _ in processes]
    for file in lane:
        last = max((place for place, one in enumerate(processes) if one.started <= file.started), default=0)
        for name, column in file.columns.items():
            left = np.ones(len(column.steps), bool)
            for place in range(last, -1, -1):
                mine = left & (column.steps >= firsts[place]) if place else left.copy()
                left &= ~mine
                if mine.any():
                    _put(parts[place], name, _taken(column, mine))
    return [
        Part(columns=list(columns.values()), started=file.started, ended=file.ended)
        for columns, file in zip(parts, processes, strict=True)
    ]


def _ordered(columns: Mapping[str, Column]) -> list[Column]:
    """The columns of one file; those from other files get their place in it by their time."""
    guide = max(
        (c for c in columns.values() if c.order is not None), key=lambda c: len(c.steps), default=None
    )
    for column in columns.values():
        if column.order is None and guide is not None and len(guide.steps):
            assert guide.times is not None and guide.order is not None and column.times is not None
            places = np.searchsorted(guide.times, column.times).clip(max=len(guide.steps) - 1)
            column.order = guide.order[places]
    return list(columns.values())
