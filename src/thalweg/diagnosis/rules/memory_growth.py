"""Memory grows by about the same amount a step, to the end of the run.

Of the last half of the run: a straight line explains 0.95 of the variance, it grows by 2 % of its level and 5 MB at least,
its second half by 0.35 of that or more, and it grew between four tenths of the neighboring values.
"""

import numpy as np

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule, SignalQuery
from thalweg.diagnosis.findings import Evidence, Finding, Plot, instruction
from thalweg.diagnosis.statistics import slope
from thalweg.diagnosis.view import Curve, RunView

CARD = Card(
    name="memory-growth",
    kind="rule",
    summary="Memory grows steadily with the steps, to the end of the run.",
    formula="R^2 of a line through the last half > 0.95, growth > 2 % of its level",
    symbols={"R^2": "share of the variance that the line explains"},
    needs="memory of the process or the accelerator",
)
PAGE = Page(
    what="Something is kept from every step. The run slows down and is ended by the system sooner or later.",
    causes=(
        "losses or outputs kept in a list with their graph: append(loss) instead of append(loss.item())",
        "metrics or predictions collected over the whole run",
        "caches without bound, in data loaders or tokenizers",
    ),
    apart={
        "a warm start": "memory grows in the first steps and then stands still",
        "longer batches": "memory rises in leaps with the longest batch so far",
        "a high-water mark": "peaks hide growth below an earlier peak: it shows once that is passed",
    },
    remedy=(
        "keep numbers, not tensors: loss.item() or loss.detach()",
        "tracemalloc, or torch.cuda.memory_snapshot(), at two steps a hundred apart shows what was added",
    ),
    tried="A loop that keeps its losses for 400 steps (31 MB in the last half), against healthy runs of 100 to 3,000 steps; "
    "smaller growth was hidden below an earlier peak of the process and was not seen.",
    explains=(),
)


def check(view: RunView) -> list[Finding]:
    """One finding: the signal of memory that grows most."""
    names = [n for n, s in view.specs.items() if s.role == "memory" or n.startswith("memory/")]
    found = [
        one for name in names if (curve := view.named(name)) and (one := _grows(view, curve)) is not None
    ]
    return sorted(found, key=lambda f: -f.evidence.numbers["share"])[:1]


def _grows(view: RunView, curve: Curve) -> Finding | None:
    if len(curve) < 20:
        return None
    t, x = curve.steps[len(curve) // 2 :], curve.values[len(curve) // 2 :]
    level, grown = float(x[0]), float(x[-1] - x[0])
    in_bytes = level > 1e6
    if level <= 0 or grown < max(0.02 * level, 5e6 if in_bytes else 0.05 * level):
        return None
    line, _ = slope(t, x)
    fitted = x.mean() + line * (t - t.mean())
    explained = 1 - float(((x - fitted) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    late = float(x[-1] - x[len(x) // 2])
    if explained < 0.95 or late < 0.35 * grown or float((np.diff(x) > 0).mean()) < 0.4:
        return None
    start = int(curve.steps[int(np.argmax(curve.values > curve.values[0] + 0.02 * grown))])
    amount = f"{grown / 1e6:,.0f} MB" if in_bytes else f"{grown:.3g}"
    per = f"{line / 1e3:,.1f} kB" if in_bytes else f"{line:.3g}"
    return Finding(
        kind=CARD.name,
        title=f"{curve.name} grows by {per} a step, {grown / level:.0%} in the last half of the run",
        severity="warning",
        confidence=0.8,
        first_step=start,
        last_step=int(curve.steps[-1]),
        evidence=Evidence(
            text=f"Over the last {int(t[-1] - t[0]):,} steps it grew by {amount}, in a straight line ({explained:.1%} of the variance); "
            f"in {view.last_step:,} further steps it would add {line * view.last_step / level:.0%}.",
            numbers={"share": grown / level, "per_step": line, "explained": explained},
            plot=Plot(signals=(curve.name,), marks={"grows": start}),
        ),
        remedy=instruction(*PAGE.remedy[:2]),
    )


RULE = Rule(card=CARD, page=PAGE, requires=(SignalQuery(role="memory"),), check=check)
