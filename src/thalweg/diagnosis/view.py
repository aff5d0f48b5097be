"""`RunView`: a run as rules look at it: signals by role, finite and in order, what they stand for, and when it resumed.

A run of several optimizers ("G:loss", "D:loss") is looked at once for each key.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.diagnosis.statistics import first_rise, noise
from thalweg.record import LayerMatrix, Run, Series
from thalweg.record.signals import Role, SignalSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """A scalar signal for a rule: its finite values in order, and where it was not finite.

    Attributes:
        name: the signal's name.
        steps: [n] int64, increasing.
        values: [n] float64, all finite.
        bad_steps: [k] steps at which the value was NaN or infinite.
        window: how many steps one value stands for; 1 for single steps, 0 for a mean of unknown length.
        averaged: in words, what the values are if not single steps; "" otherwise.
        stage: "raw", "applied" or "".
        times: [n] Unix seconds; zeros where the log has none.
    """

    name: str
    steps: Ints
    values: Floats
    bad_steps: Ints
    window: int = 1
    averaged: str = ""
    stage: str = ""
    times: Floats = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def spacing(self) -> float:
        """Median distance of neighboring values, in steps."""
        return float(np.median(np.diff(self.steps))) if len(self.steps) > 1 else float("inf")

    def between(self, first: float, last: float) -> "Curve":
        """The part from one step to another, both included."""
        kept = (self.steps >= first) & (self.steps <= last)
        bad = (self.bad_steps >= first) & (self.bad_steps <= last)
        times = self.times[kept] if len(self.times) else self.times
        return Curve(
            self.name,
            self.steps[kept],
            self.values[kept],
            self.bad_steps[bad],
            self.window,
            self.averaged,
            self.stage,
            times,
        )

    def at(self, steps: Any) -> Floats:
        """Values at other steps: the latest one known at each; NaN before the first."""
        places = np.searchsorted(self.steps, steps, side="right") - 1
        found = self.values[np.maximum(places, 0)] if len(self.values) else np.full(np.shape(places), np.nan)
        return np.where(places >= 0, found, np.nan)


class RunView:
    """What rules ask of a run.

    Attributes:
        run: the run itself, for what is not here.
        key: of several optimizers or models, the one looked at ("G"); "" for the only one.
    """

    def __init__(self, run: Run, key: str = "") -> None:
        self.run = run
        self.key = key
        self._curves: dict[str, Curve | None] = {}
        self._matrices: dict[str, LayerMatrix | None] = {}

    # Signals.

    @cached_property
    def specs(self) -> dict[str, SignalSpec]:
        """Name without the key -> declaration, of the scalar signals of this key."""
        start = f"{self.key}:" if self.key else ""
        out = {}
        for spec in self.run.signals:
            name = spec.name
            if not spec.shape and name.startswith(start) and (self.key or ":" not in name.partition("/")[0]):
                out[name.removeprefix(start)] = spec
        return out

    def curve(self, role: Role, stage: str = "") -> Curve | None:
        """The signal of a role, of the whole model: the shortest name; with ``stage``, only of that stage.

        A gradient norm is the applied one, or the one that there is.
        """
        names = [
            name
            for name, spec in self.specs.items()
            if spec.role == role and not spec.layer and (not stage or spec.stage == stage)
        ]
        names = [n for n in names if (c := self.named(n)) is not None and (len(c) or len(c.bad_steps))]
        applied = [n for n in names if self.specs[n].stage == "applied"]
        best = min(
            applied if role == "gradient norm" and applied else names, key=lambda n: (len(n), n), default=None
        )
        return None if best is None else self.named(best)

    def curves(self, role: Role) -> list[Curve]:
        """All signals of a role, layers left out, shortest name first."""
        names = sorted(
            (n for n, s in self.specs.items() if s.role == role and not s.layer), key=lambda n: (len(n), n)
        )
        return [curve for name in names if (curve := self.named(name)) is not None]

    def named(self, name: str) -> Curve | None:
        """The signal of a name (without key); None if there is none."""
        if name not in self._curves:
            spec = self.specs.get(name)
            self._curves[name] = None if spec is None else _clean(self.run[spec.name])
        return self._curves[name]

    def layers(self, quantity: str) -> LayerMatrix | None:
        """A quantity over layers and steps ("grad/norm"): values [steps, layers]; None if it was not recorded."""
        if quantity not in self._matrices:
            start = f"{self.key}:" if self.key else ""
            matrix = self.run.matrix(start + quantity)
            self._matrices[quantity] = matrix if matrix.layers and len(matrix.steps) else None
        return self._matrices[quantity]

    def first_layer(
        self, quantity: str, start: float, stop: float, reach: float
    ) -> tuple[str, int, float] | None:
        """The layer in which a quantity ("grad/norm") rose first (`first_rise`), if one stands out.

        Only the stretch that is looked at is kept, so that long runs of many layers cost little memory.

        Returns:
            Its name, step and factor; None if none rose, or several rose at once and alike.
        """
        found: list[tuple[str, int, float]] = []
        for name in self.specs:
            series = self.run.get(self.specs[name].name) if name.startswith(quantity + "/") else None
            if series is None:
                continue
            low, high = np.searchsorted(series.steps, [start - 6 * reach, stop + 1])
            values = series.values[low:high].astype(np.float64)
            finite = np.isfinite(values)
            rise = first_rise(series.steps[low:high][finite], values[finite], start, stop, reach)
            if rise is not None:
                found.append((name.removeprefix(quantity + "/"), *rise))
        if not found:
            return None
        found.sort(key=lambda one: (one[1], -one[2]))
        first = found[0]
        alone = len(found) == 1 or found[1][1] > first[1]
        return first if alone or first[2] >= 1.5 * float(np.median([one[2] for one in found])) else None

    @property
    def loss(self) -> Curve | None:
        """The training loss."""
        return self.curve("train loss")

    @property
    def evaluation(self) -> Curve | None:
        """The evaluation loss."""
        return self.curve("evaluation loss")

    @property
    def rate(self) -> Curve | None:
        """The learning rate."""
        return self.curve("rate")

    # The run as a whole.

    @cached_property
    def last_step(self) -> int:
        """The highest step of any signal of this key on the updates' clock."""
        steps = [int(c.steps[-1]) for role in _LONG_ROLES if (c := self.curve(role)) is not None and len(c)]
        return max(steps, default=0)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The run's configuration, flat: "optimizer.lr" -> value."""
        return dict(_flat(self.run.config))

    def setting(self, *words: str) -> Any:
        """The first setting whose last name is one of the words; None if there is none."""
        for word in words:
            for name, value in self.settings.items():
                if name.rpartition(".")[2].lower() == word:
                    return value
        return None

    @cached_property
    def unfinished(self) -> bool:
        """Whether the run goes on, was cut off, or has fewer steps than the settings name."""
        total = self.setting("max_steps", "total_steps", "num_steps", "max_iters", "num_iterations", "steps")
        named = isinstance(total, int | float) and not isinstance(total, bool) and self.last_step > 0
        parts = self.run.segments
        ended = max(parts, key=lambda part: part.id).reason if parts else ""
        cut = ended not in ("", "closed", "exit", "imported")
        return self.run.live or cut or (named and total > 1.1 * self.last_step + 1)

    @cached_property
    def planned(self) -> dict[str, Any]:
        """What the settings say of the rate: "schedule" (a name in lower case), "warmup" (steps), "rate" (the peak)."""
        out: dict[str, Any] = {}
        for name, value in self.settings.items():
            last = name.rpartition(".")[2].lower()
            if "sched" in last and isinstance(value, str):
                out.setdefault("schedule", value.lower())
            if last in _WARMUPS and isinstance(value, int | float) and not isinstance(value, bool):
                out.setdefault("warmup", float(value) if value >= 1 else round(value * (self.last_step + 1)))
            if last in ("lr", "learning_rate", "peak_lr", "max_lr") and isinstance(value, int | float):
                out.setdefault("rate", float(value))
        return out

    @cached_property
    def batch(self) -> float:
        """Examples of one update, by the count of samples or else the settings; 0 if neither says."""
        samples = self.curve("samples")
        if samples is not None and len(samples) > 1:
            return float(np.median(np.diff(samples.values) / np.diff(samples.steps)))
        said = self.setting("total_batch_size", "global_batch_size", "batch_size", "train_batch_size")
        return float(said) if isinstance(said, (int, float)) and not isinstance(said, bool) else 0.0

    def guessing(self, loss: float) -> int:
        """How many classes one would guess among for this loss, ln(classes); 0 if that is none that is likely.

        The settings may name the number; else 2, 10, 100 and 1000 are tried.
        """
        words = ("num_classes", "n_classes", "classes", "num_labels", "vocab_size", "vocab")
        named = next((v for word in words if isinstance(v := self.setting(word), int) and v > 1), None)
        for classes in (named,) if named else (2, 10, 100, 1000):
            if abs(loss / float(np.log(classes)) - 1) < 0.03:
                return classes
        return 0

    def metric_since(self, step: int) -> tuple[str, bool]:
        """An evaluation metric that did not get worse after a step, and whether it improved; ("", False) if there is none.

        More is taken to be better, unless the name speaks of an error. Of several, those that improved must outnumber
        those that got worse.
        """
        better: list[str] = []
        worse: list[str] = []
        same: list[str] = []
        for curve in self.curves("evaluation metric"):
            values = curve.values * (-1.0 if _ERROR.search(curve.name.lower()) else 1.0)
            at = values[max(0, int(np.searchsorted(curve.steps, step)) - 1) :][:3]
            if len(curve) < 4 or not len(at):
                continue
            gained = float(np.median(values[-3:])) - float(np.median(at))
            bar = max(noise(values), 0.01 * abs(float(np.median(at))))
            (better if gained > bar else worse if gained < -bar else same).append(curve.name)
        if len(better) > len(worse):
            return better[0], True
        return (same[0] if same and not worse else ""), False

    def evaluation_rise(self, first: int, last: int) -> float | None:
        """How far the evaluation loss rose from the three before a step to the last three up to another.

        None where fewer than three evaluations lie between the steps, none before them, or one is not finite.
        """
        curve = self.evaluation
        if curve is None:
            return None
        before = curve.values[curve.steps <= first][-3:]
        after = curve.values[(curve.steps > first) & (curve.steps <= last)]
        if not len(before) or len(after) < 3:
            return None
        return float(np.median(after[-3:])) - float(np.median(before))

    @cached_property
    def resumptions(self) -> list[int]:
        """First steps of the segments after the first."""
        return sorted({part.first_step for part in self.run.segments if part.id > 0})

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What the watch noted of the optimizer's parameters: "rows", "frozen", "outside"; {} if it noted nothing."""
        for event in self.run.events("parameters"):
            if str(event.details.get("key", "")).rstrip(":") == self.key:
                return event.details
        return {}

    def whole(self, name: str, segment: int) -> Curve | None:
        """A signal as one segment wrote it, also what a later one replaced."""
        spec = self.specs.get(name)
        series = None if spec is None else self.run.get(spec.name, segment=segment)
        return None if series is None or not len(series) else _clean(series)


_WARMUPS = (
    "warmup",
    "warmup_steps",
    "num_warmup_steps",
    "warmup_iters",
    "lr_warmup_steps",
    "warmup_ratio",
    "warmup_fraction",
)
_ERROR = re.compile(
    r"(?:^|[^a-z])(?:err|error|perplexity|ppl|mae|mse|rmse|bpb|wer|cer|ter|fid|loss)(?:$|[^a-z])"
)
_LONG_ROLES: tuple[Role, ...] = ("train loss", "rate", "gradient norm", "evaluation loss")


def is_matrix(layer: str) -> bool:
    """Whether a parameter's name is that of a weight matrix or kernel: no bias, no scale of a normalization.

    >>> is_matrix("blocks.0.up.weight"), is_matrix("blocks.0.norm1.weight"), is_matrix("head.bias")
    (True, False, False)
    """
    *path, last = layer.lower().split(".")
    return "bias" not in last and not any(_NORMALIZATION.match(word) for word in path[-1:])


_NORMALIZATION = re.compile(r".*norm|(?:ln|bn)(?:_?[\da-z])?$|(?:ln|bn)_")


def keys_of(run: Run) -> list[str]:
    """The keys of a run's signals ("G", "D"); [""] where they have none."""
    keys = {name.partition(":")[0] for name in run.names() if ":" in name.partition("/")[0]}
    plain = any(":" not in name.partition("/")[0] for name in run.names())
    return ([""] if plain or not keys else []) + sorted(keys)


def _clean(series: Series) -> Curve:
    values = series.values.astype(np.float64)
    finite = np.isfinite(values)
    spec = series.spec
    averaged = spec.estimator or (f"means of {spec.window} steps" if spec.window > 1 else "")
    if spec.window == 0 and not averaged:
        averaged = "means"
    return Curve(
        spec.name,
        series.steps[finite],
        values[finite],
        series.steps[~finite],
        spec.window,
        averaged if spec.window != 1 else "",
        spec.stage,
        series.times[finite],
    )


def _flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    out = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        out += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return out
