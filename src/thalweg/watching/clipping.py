r"""Gradient clipping by norm, and the norm before it.

.. math:: g \leftarrow g \cdot \min\left(1, \frac{c}{\|g\|}\right)

What an optimizer applies says nothing of the gradient before clipping: a run whose norm sits at the limit may be
calm or wild. ``watch.clip_grad_norm_`` clips exactly as torch's function does and records the norm it returns.
"""

from collections.abc import Mapping, Sequence

from thalweg.core.cards import Card
from thalweg.watching.contracts import Array, Emits, Measured, Needs, StepView, When

CARD = Card(
    name="clipping",
    kind="instrument",
    summary="Norm of the gradient before clipping, and whether the step was clipped.",
    formula="g <- g min(1, c / ||g||);  clipped: ||g|| > c",
    symbols={"g": "gradient", "c": "the limit, max_norm"},
    needs="clipping through watch.clip_grad_norm_",
    cost="nothing beyond the clipping itself",
    signals=("grad/norm_raw", "grad/clipped"),
)


class Clipping:
    """The raw norm and the clipped steps; called by ``watch.clip_grad_norm_``, not by the plan."""

    card = CARD
    needs = Needs()
    when = When.GRADIENT
    emits = (
        Emits(name="grad/norm_raw", role="gradient norm", stage="raw"),
        Emits(name="grad/clipped", estimator="1 where the norm exceeded the limit"),
    )

    def measure(self, view: StepView) -> Measured | None:
        """Nothing: the clipping itself hands the norm over."""
        return None

    def finish(
        self, raw: Mapping[str, Array], facts: Mapping[str, Array], layers: Sequence[str]
    ) -> Mapping[str, Array]:
        """The norm, and whether it was above the limit."""
        return {"grad/norm_raw": raw["norm"], "grad/clipped": (raw["norm"] > facts["max_norm"]).astype(float)}
