"""What the page shows: a list of panels, each a figure. A new figure is one entry here.

A panel picks signals by role or by name, so that it works for any log, says in a sentence how it is read, and says
what to do where nothing was recorded.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from thalweg.record.signals import Role, SignalSpec


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure of the page.

    Attributes:
        title: its heading.
        section: the heading it stands under; panels of one section follow one another in ``PANELS``.
        about: how it is read, in a sentence.
        kind: "lines": signals over the steps, all runs overlaid; "layers": one heat map a run, a row per layer.
        roles: signals with one of these roles are shown,
        names: and those whose name, without its key ("G:"), matches one of these patterns; for layers the name is
            that of the quantity, without the layer.
        missing: what to say of a run that has none; if empty, a figure without signals is left out.
        hint: the code that would record it.
        logarithmic: for layers: color by the logarithm, zeros left blank. None, and all lines, choose by what they
            hold.
        smooth: draw means of up to 200 stretches over the single values, for signals that jump from step to step.
    """

    title: str
    section: str
    about: str
    kind: Literal["lines", "layers"] = "lines"
    roles: tuple[Role, ...] = ()
    names: tuple[str, ...] = ()
    missing: str = ""
    hint: str = ""
    logarithmic: bool | None = True
    smooth: bool = False

    def picks(self, specs: Iterable[SignalSpec]) -> list[SignalSpec]:
        """Return those signals that belong in this figure, in the order they come."""
        return [spec for spec in specs if layered(spec) == (self.kind == "layers") and self._matches(spec)]

    def _matches(self, spec: SignalSpec) -> bool:
        name = quantity(spec).rpartition(":")[2]
        by_role = self.kind == "lines" and spec.role in self.roles
        return not spec.shape and (by_role or any(fnmatchcase(name, pattern) for pattern in self.names))


def layered(spec: SignalSpec) -> bool:
    """Say whether a signal is of one layer: a row of a heat map. Those of parameter groups ("group0") are lines."""
    return bool(spec.layer) and _GROUP.fullmatch(spec.layer) is None


def quantity(spec: SignalSpec) -> str:
    """Return a signal's name without its layer: "G:grad/norm/blocks.0.weight" is "G:grad/norm"."""
    return spec.name.removesuffix(f"/{spec.layer}") if layered(spec) else spec.name


_GROUP = re.compile(r"group[-_ ]?\d+")
_WATCH = "watch = tw.watch(model, optimizer)"

PANELS: tuple[Panel, ...] = (
    Panel(
        title="Loss",
        section="Loss",
        about="Faint: every value, thinned so that no spike is lost. Bold: means of short stretches. "
        "A loss at step s is the loss after s updates.",
        roles=("train loss", "evaluation loss"),
        missing="no loss",
        hint='watch.log(loss=loss); watch.log({"eval/loss": value})',
        smooth=True,
    ),
    Panel(
        title="Metrics",
        section="Loss",
        about="What the loop measured beside the loss, in training and in evaluation.",
        roles=("train metric", "evaluation metric"),
        missing="no metric",
        hint='watch.log({"eval/accuracy": accuracy})',
        smooth=True,
    ),
    Panel(
        title="Learning rate",
        section="Optimization",
        about="By value, of each group of parameters.",
        roles=("rate",),
        missing="no learning rate",
        hint=_WATCH,
    ),
    Panel(
        title="Gradient norm",
        section="Optimization",
        about="Of the whole model. Raw is before clipping, applied is what the optimizer used.",
        roles=("gradient norm",),
        missing="no gradient norms",
        hint=_WATCH,
        smooth=True,
    ),
    Panel(
        title="Update ratio",
        section="Optimization",
        about="Norm of the update really applied, over the norm of the weights. About 1e-3 is usual with Adam.",
        roles=("update ratio",),
        missing="no update ratio",
        hint=_WATCH,
        smooth=True,
    ),
    Panel(
        title="Update norm",
        section="Optimization",
        about="Norm of the update really applied.",
        roles=("update norm",),
        smooth=True,
    ),
    Panel(
        title="Weight norm",
        section="Optimization",
        about="Norm of all weights.",
        roles=("weight norm",),
    ),
    Panel(
        title="Gradient noise scale",
        section="Optimization",
        about="The batch size at which the gradient's noise equals its signal.",
        roles=("noise scale",),
        smooth=True,
    ),
    Panel(
        title="Direction of the gradient",
        section="Optimization",
        about="Cosine of successive gradients, their relative difference, and how many signs the momentum shares.",
        names=("grad/cosine", "grad/change", "momentum/sign_agreement"),
        smooth=True,
    ),
    Panel(
        title="Distance from the start",
        section="Optimization",
        about="How far the weights have moved from their initial values.",
        names=("weight/distance",),
    ),
    Panel(
        title="Dormant and dead units",
        section="Optimization",
        about="Share of all units that read next to nothing, or nothing.",
        names=("units/*",),
    ),
    Panel(
        title="Non-finite gradient entries",
        section="Optimization",
        about="Counted only where the norm was not finite.",
        names=("grad/nonfinite",),
    ),
    Panel(
        title="Other hyper-parameters",
        section="Optimization",
        about="By value, of each group of parameters.",
        roles=("weight decay", "momentum", "batch size"),
        names=("hyper/*",),
    ),
    Panel(
        title="Clipped updates",
        section="Optimization",
        about="1 where the gradient was scaled down, 0 where it was not; the bold line is their share.",
        names=("grad/clipped",),
        smooth=True,
    ),
    Panel(
        title="Loss scale and skipped updates",
        section="Optimization",
        about="Under mixed precision: the factor on the loss, and the updates left out because it overflowed.",
        roles=("loss scale", "skipped updates"),
    ),
    Panel(
        title="Gradient norm by layer",
        section="Layers",
        about="First layer on top. A row that darkens vanishes, a column that lights up is a spike everywhere.",
        kind="layers",
        names=("grad/norm",),
        missing="no gradient norms by layer",
        hint=_WATCH,
    ),
    Panel(
        title="Update ratio by layer",
        section="Layers",
        about="How far each layer moves in a step, relative to its size.",
        kind="layers",
        names=("update/ratio",),
        missing="no update ratios by layer",
        hint=_WATCH,
    ),
    Panel(
        title="Update norm by layer",
        section="Layers",
        about="The size of the update really applied to each layer.",
        kind="layers",
        names=("update/norm",),
    ),
    Panel(
        title="Weight norm by layer",
        section="Layers",
        about="The size of each layer.",
        kind="layers",
        names=("weight/norm",),
    ),
    Panel(
        title="Dormant units by layer",
        section="Layers",
        about="Share of the units that read next to nothing.",
        kind="layers",
        names=("units/dormant",),
        logarithmic=False,
    ),
    Panel(
        title="Dead units by layer",
        section="Layers",
        about="Share of the units that read nothing at all.",
        kind="layers",
        names=("units/dead",),
        logarithmic=False,
    ),
    Panel(
        title="Activations by layer",
        section="Layers",
        about="Root mean square of what each layer reads.",
        kind="layers",
        names=("act/rms",),
    ),
    Panel(
        title="Gradient against Adam's epsilon by layer",
        section="Layers",
        about="Below 1, the epsilon rather than the gradient decides the size of the step.",
        kind="layers",
        names=("grad/rms_to_epsilon",),
    ),
    Panel(
        title="Step time",
        section="Speed and cost",
        about="Seconds from one update to the next.",
        roles=("step time",),
        missing="no step times",
        hint=_WATCH,
        smooth=True,
    ),
    Panel(
        title="Throughput",
        section="Speed and cost",
        about="Examples or tokens a second.",
        names=("*per_second*", "throughput*", "*/throughput*"),
        missing="no throughput",
        hint="watch.log(loss=loss, tokens=batch.numel())",
        smooth=True,
    ),
    Panel(
        title="Memory",
        section="Speed and cost",
        about="Peak memory, of the process or of the accelerator.",
        roles=("memory",),
        names=("memory/*",),
    ),
    Panel(
        title="Cost of the watch",
        section="Speed and cost",
        about="What the watch itself took, as measured inside the loop.",
        roles=("cost",),
        names=("watch/*", "cost/*"),
        smooth=True,
    ),
)

OTHER = Panel(
    title="Everything else",
    section="Other signals",
    about="Recorded, and in no figure above.",
    logarithmic=None,
    smooth=True,
)
