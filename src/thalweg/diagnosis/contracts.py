"""What a rule is: a card, a page that explains the trouble, the signals it requires, and a function of a run.

A rule is one file in `thalweg.diagnosis.rules`, with ``CARD`` (kind "rule") and ``RULE = Rule(...)``. Its name is the
stable kind that people silence and select. It gets a `RunView` and returns findings; what it requires and doesn't find
becomes a `NotEvaluable` before it is called, and it may return one itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from thalweg.core.cards import Card
from thalweg.diagnosis.findings import Finding, NotEvaluable
from thalweg.diagnosis.view import RunView
from thalweg.record.signals import Role

_WATCH = "watch = tw.watch(model, optimizer)"
RECORD: Mapping[str, str] = {
    "train loss": "watch.log(loss=loss)",
    "evaluation loss": 'watch.log({"eval/loss": value})',
    "evaluation metric": 'watch.log({"eval/accuracy": value})',
    "train metric": 'watch.log({"train/accuracy": value})',
    "loss scale": "watch = tw.watch(model, optimizer, scaler=scaler)",
    "tokens": "watch.log(loss=loss, tokens=batch.numel())",
}


@dataclass(frozen=True, kw_only=True)
class SignalQuery:
    """A signal that a rule requires.

    Attributes:
        role: its role, or
        name: its name without a key ("grad/cosine"); with ``layers``, the quantity whose layers are wanted.
        layers: whether it is wanted by layer.
        least: fewest finite values.
        spacing: most steps between neighboring values, as a median; None if that doesn't matter.
        single: whether values must be of single steps, not means over a window nor a sampled history.
    """

    role: Role = ""
    name: str = ""
    layers: bool = False
    least: int = 20
    spacing: int | None = None
    single: bool = False

    def lacking(self, view: RunView) -> NotEvaluable | None:
        """What the run lacks of it, in words, and what would record it; None if it has it.

        A signal that is there, but too short or too coarse, needs no other line of code: the record is "" then.
        """
        absent, thin = self._of_layers(view) if self.layers else self._of_model(view)
        if absent:
            return NotEvaluable(kind="", lacked=absent, record=self.record)
        return NotEvaluable(kind="", lacked=thin) if thin else None

    def _of_layers(self, view: RunView) -> tuple[str, str]:
        matrix = view.layers(self.name)
        if matrix is None:
            return f"{self.name} by layer", ""
        steps = len(matrix.steps)
        return (
            "",
            ""
            if steps >= self.least
            else f"{self.name} at {self.least} steps or more (it is there at {steps})",
        )

    def _of_model(self, view: RunView) -> tuple[str, str]:
        what = self.role or self.name
        curve = view.curve(self.role) if self.role else view.named(self.name)
        if curve is None:
            return what, ""
        if len(curve) < self.least:
            return "", f"{what} with {self.least} values or more (it has {len(curve)})"
        if self.spacing is not None and curve.spacing > self.spacing:
            return "", f"{what} at least every {self.spacing} steps (it is there every {curve.spacing:g})"
        if self.single and curve.window != 1:
            return "", f"{what} of single steps ({curve.name} holds {curve.averaged})"
        return "", ""

    @property
    def record(self) -> str:
        """The line of code that would record it."""
        return RECORD.get(self.role, _WATCH)


@dataclass(frozen=True, kw_only=True)
class Page:
    """What `thalweg explain KIND` and the documentation say.

    Attributes:
        what: what the trouble is and what it costs, in a short paragraph.
        causes: what brings it about, the most frequent first.
        apart: look-alike (a kind, or a word for something healthy) -> how it is told from it.
        remedy: what to do, in the order to try.
        tried: the scale at which its thresholds were tried, and where they come from.
        explains: kinds that are often its symptoms; they are grouped under it when they begin no earlier.
    """

    what: str
    causes: tuple[str, ...]
    apart: Mapping[str, str]
    remedy: tuple[str, ...]
    tried: str
    explains: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One pathology.

    Attributes:
        card: kind "rule"; its name is the kind of its findings, its papers are theirs.
        page: the explanation.
        requires: signals without which it can't be judged.
        check: looks at a run; returns its findings, worst first, or what else it lacks.
    """

    card: Card
    page: Page
    requires: tuple[SignalQuery, ...] = field(default=())
    check: Callable[[RunView], "list[Finding] | NotEvaluable"]

    def __call__(self, view: RunView) -> "list[Finding] | NotEvaluable":
        """Judge a run."""
        for query in self.requires:
            if (lacking := query.lacking(view)) is not None:
                return replace(lacking, kind=self.card.name)
        return self.check(view)
