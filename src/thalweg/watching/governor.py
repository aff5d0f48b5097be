"""Which instruments are due at which step, so that all of them together stay within a budget.

Whether an instrument is due depends on the step number alone: every ``period`` steps, with a period from a fixed
ladder. Periods change only at recorded reviews, from costs that were measured inside the loop. Instruments that
share an expensive quantity are due at the same steps and pay for it once.

At a review the governor starts with every instrument at the longest period and, in order of priority, gives each
the shortest period that the budget allows.
"""

import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from thalweg.watching.contracts import Instrument, Quantity, When

LADDER = (1, 2, 5, 10, 20, 50, 100, 200)
"""Periods that may be chosen; every instrument that is on is due at least once in the last."""

CYCLE = 200
CALIBRATION = 10
"""Period at which everything runs at first, until its cost is known."""

REVIEWS = (25, 75, 200)
"""Tries after which periods are reviewed; then every `REVIEW_EVERY`."""

REVIEW_EVERY = 1000
BURST_PERIOD = 5
"""Longest period during a burst."""

FLOOR = 60e-6
"""Seconds a step that are always allowed: inside a loop even an empty call costs microseconds."""

FLIGHT_SHARE = 0.015
"""The first instrument (per-layer gradient norms) runs at every step where that costs at most this share of it."""

FLIGHT_PERIOD = 10
"""... and else at least this often."""

OBSERVATIONS = 2
"""An instrument that took more than the whole allowance of the longest period, this often and each time, is switched off."""

SAFETY = 2.0
"""What the loop loses over what its hooks count: caches driven out, threads in the background. Measured as 1.5 to 1.9
on CPUs, for networks of 0.1 to 11 million parameters."""


@dataclass
class Planned:
    """One instrument with its present period, offset and measured costs (seconds a call)."""

    instrument: Instrument
    period: int = CALIBRATION
    offset: int = 0
    on: bool = True
    costs: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    spent: float = 0.0
    times: int = 0

    def settle(self) -> None:
        """The step is over: what was spent in it is one observation; the first, when everything is new, is none."""
        self.times += 1
        if self.times > 1:
            self.costs.append(self.spent)
        self.spent = 0.0

    @property
    def name(self) -> str:
        """The instrument's name."""
        return self.instrument.card.name

    @property
    def cost(self) -> float:
        """Typical seconds at a step where it is due, all its moments together."""
        usual = sorted(self.costs)[: max(1, 3 * len(self.costs) // 4)]  # without those that were interrupted
        return statistics.fmean(usual) if usual else 0.0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What is due at one step, by moment.

    Attributes:
        due: every instrument due.
        copies: those that need copies of the parameters from before the update.
        keep_gradient: whether the next step compares its gradient with this step's.
        idle: whether nothing at all is to be done.
    """

    due: tuple[Planned, ...]
    forward: tuple[Planned, ...]
    micro_batch: tuple[Planned, ...]
    gradient: tuple[Planned, ...]
    update: tuple[Planned, ...]
    copies: tuple[Planned, ...]
    keep_gradient: bool
    idle: bool


class Governor:
    """Plans the instruments of one optimizer.

    Args:
        instruments: in order of priority, the first being the flight recorder.
        budget: share of the step's own time that watching may take (0.03 = 3 %).
        cadence: "auto"; "fixed" for periods that never change, so that paired runs measure at the same steps;
            or a whole number: everything every so many steps.
        agree: where ranks write apart, ``agree(question, mine)`` is the same answer on every rank. Periods are then
            those of the rank that reviews first, and there are no bursts, which each rank would see for itself.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        budget: float,
        cadence: str | int = "auto",
        agree: Callable[[str, str], str] | None = None,
    ) -> None:
        self.budget = budget
        self._agree = agree
        self.planned = [Planned(i) for i in instruments]
        self._by_name = {p.name: p for p in self.planned}
        self._auto = cadence == "auto"
        self._times: deque[float] = deque(maxlen=256)
        self._base: deque[float] = deque(maxlen=256)
        self._tries = 0
        self._next_review = REVIEWS[0]
        self._resting: dict[str, int] | None = None
        self._burst_left = 0
        self._plans: dict[int, StepPlan] = {}
        self.too_slow: list[str] = []
        for index, planned in enumerate(self.planned):
            if isinstance(cadence, int):
                planned.period = max(cadence, 1)
            elif not self._auto:
                planned.period = max(planned.instrument.needs.shortest, FLIGHT_PERIOD if index == 0 else 50)
        self._replan()

    def plan(self, step: int) -> "StepPlan":
        """What is to be done at this step."""
        at = step % self._cycle
        found = self._plans.get(at)
        if found is None:
            found = self._plans[at] = self._plan_of(at)
        return found

    def idle_until(self, step: int) -> float:
        """The first try from ``step`` on at which something is to be done; infinite where nothing ever is."""
        on = [p for p in self.planned if p.on]
        waits = [(p.offset - step) % p.period for p in on]
        waits += [(p.offset - 1 - step) % p.period for p in on if _compares(p)]
        return step + min(waits, default=math.inf)

    def steps_took(self, seconds: Sequence[float], watching: Sequence[float], base: Sequence[float]) -> None:
        """Steps took so many seconds each, of which ``watching`` here, of which ``base`` beside the instruments."""
        self._tries += len(seconds)
        self._times.extend(s - w for s, w in zip(seconds, watching, strict=True))
        self._base.extend(base)
        if self._burst_left > 0:
            self._burst_left -= len(seconds)
            if self._burst_left <= 0:
                self._end_burst()

    @property
    def step_time(self) -> float:
        """The median step without the watch, in seconds; 0 before the first."""
        return statistics.median(self._times) if self._times else 0.0

    @property
    def allowance(self) -> float:
        """Seconds a step that watching may take now."""
        return max(self.budget * self.step_time, FLOOR if self.budget > 0 else 0.0)

    def review(self) -> Mapping[str, int] | None:
        """At a time of review, choose periods anew; those that changed, else None."""
        if not self._auto or self._burst_left > 0 or self._tries < self._next_review:
            return None
        self._next_review = next((t for t in REVIEWS if t > self._tries), self._tries + REVIEW_EVERY)
        before = {p.name: p.period for p in self.planned if p.on}
        for planned in self.planned:
            known = planned.on and len(planned.costs) >= OBSERVATIONS
            if known and min(planned.costs) > LADDER[-1] * self.allowance > 0:
                planned.on = False
                self.too_slow.append(planned.name)
        self._choose()
        if self._agree is not None:
            self._take_over(before, self._agree)
        self._replan()
        changed = {p.name: p.period for p in self.planned if p.on and p.period != before.get(p.name)}
        return changed or None

    def burst(self, steps: int) -> bool:
        """For the next ``steps`` tries look closely: every period at most `BURST_PERIOD`; False if one is under way."""
        if not self._auto or self._burst_left > 0 or self._agree is not None:
            return False
        self._burst_left = steps
        self._resting = {p.name: p.period for p in self.planned}
        for planned in self.planned:
            planned.period = max(planned.instrument.needs.shortest, min(planned.period, BURST_PERIOD))
        self._replan()
        return True

    def _take_over(self, before: Mapping[str, int], agree: Callable[[str, str], str]) -> None:
        """Put the periods that all ranks agreed on in place of the chosen ones; those before, for good, if none can."""
        mine = json.dumps({p.name: p.period for p in self.planned if p.on})
        try:
            periods = json.loads(agree(f"periods {self._tries}", mine))
        except Exception:
            periods, self._auto = before, False
        for planned in self.planned:
            planned.on = planned.on and planned.name in periods
            planned.period = periods.get(planned.name, planned.period)

    def _end_burst(self) -> None:
        for planned in self.planned:
            planned.period = (self._resting or {}).get(planned.name, planned.period)
        self._resting = None
        self._replan()

    def switch_off(self, name: str) -> bool:
        """Never call this instrument again; False if it was off already, or is none of these."""
        planned = self._by_name.get(name)
        if planned is None or not planned.on:
            return False
        planned.on = False
        self._replan()
        return True

    def period(self, name: str) -> int:
        """The present period of an instrument."""
        return self._by_name[name].period

    def _choose(self) -> None:
        groups = self._groups()
        base = statistics.median(self._base) if self._base else 0.0
        room = self.allowance - base - sum(_rate(g, LADDER[-1]) for g in groups)
        chosen: list[int] = [LADDER[-1]] * len(groups)
        for i, group in enumerate(groups):
            room += _rate(group, LADDER[-1])
            shortest = max(p.instrument.needs.shortest for p in group)
            allowed = [t for t in LADDER if t >= shortest and _rate(group, t) <= max(room, 0.0)]
            chosen[i] = allowed[0] if allowed else LADDER[-1]
            if i == 0:
                chosen[0] = self._flight_period(group, chosen[0])
            else:
                chosen[i] = max(chosen[i], chosen[0])
            room -= _rate(group, chosen[i])
        for group, period in zip(groups, chosen, strict=True):
            for planned in group:
                planned.period = period

    def _flight_period(self, group: Sequence[Planned], chosen: int) -> int:
        if sum(p.cost for p in group) <= max(FLIGHT_SHARE * self.step_time, FLOOR / 3):
            return 1
        return min(max(chosen, 2), FLIGHT_PERIOD)

    def _groups(self) -> list[list[Planned]]:
        """Instruments that are due together: those that ride, and those that share an update's copies."""
        groups: dict[str, list[Planned]] = {}
        for planned in self.planned:
            if planned.on:
                groups.setdefault(_group_key(planned), []).append(planned)
        return list(groups.values())

    def _replan(self) -> None:
        stride = self.planned[0].period if self.planned else 1
        for index, group in enumerate(self._groups()):
            for planned in group:
                planned.offset = (index * stride) % planned.period
        on = [p for p in self.planned if p.on]
        self._cycle = math.lcm(*(p.period for p in on)) if on else 1
        self._plans.clear()

    def _plan_of(self, step: int) -> "StepPlan":
        on = [p for p in self.planned if p.on]
        due = tuple(p for p in on if (step - p.offset) % p.period == 0)
        soon = [p for p in on if (step + 1 - p.offset) % p.period == 0]
        keep = any(_compares(p) for p in soon)
        return StepPlan(
            due=due,
            forward=tuple(p for p in due if _called_at(p, When.FORWARD)),
            micro_batch=tuple(p for p in due if _called_at(p, When.MICRO_BATCH)),
            gradient=tuple(p for p in due if _called_at(p, When.GRADIENT)),
            update=tuple(p for p in due if _called_at(p, When.UPDATE)),
            copies=tuple(p for p in due if Quantity.UPDATE in p.instrument.needs.quantities),
            keep_gradient=keep,
            idle=not due and not keep,
        )


def _called_at(planned: Planned, when: When) -> bool:
    moments = planned.instrument.when
    return when is moments or (isinstance(moments, tuple) and when in moments)


def _compares(planned: Planned) -> bool:
    """Whether it compares a gradient with the one of the step before."""
    return Quantity.PREVIOUS_GRAD_SAMPLE in planned.instrument.needs.quantities


def _group_key(planned: Planned) -> str:
    return planned.instrument.needs.rides or planned.name


def _rate(group: Sequence[Planned], period: int) -> float:
    """Seconds a step that a group costs at this period."""
    return SAFETY * sum(p.cost for p in group) / period
