"""Parameters that never change: outside the optimizer, without a gradient, or with updates of exactly zero.

A layer that the optimizer was never given trains as well as one that is not there, and nothing crashes. Three
places where it is seen: the optimizer's table of parameters against the model's, a gradient that is missing or
exactly zero at every measured step, and an applied update of exactly zero although the rate is not.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from thalweg.core.cards import Card
from thalweg.diagnosis.contracts import Page, Rule
from thalweg.diagnosis.findings import Evidence, Finding, NotEvaluable, Plot, Severity, instruction
from thalweg.diagnosis.view import RunView, is_matrix

CARD = Card(
    name="parameters-frozen",
    kind="rule",
    summary="Parameters that never move: not given to the optimizer, without a gradient, or with updates of zero.",
    formula="w_l outside the optimizer;  or ||g_l|| = 0 at every step;  or ||Delta_l|| = 0 while the rate is not 0",
    symbols={"g_l": "gradient of parameter l", "Delta_l": "update applied to it"},
    needs="a run recorded by tw.watch",
)
PAGE = Page(
    what="Some parameters keep their initial values for the whole run. The rest of the network learns around them, so "
    "the loss falls, only less far; where all of them stand still, nothing is learned at all.",
    causes=(
        "the optimizer was given another list of parameters: those of a part, of a copy, or of the model before it was "
        "replaced (new head, .to() of a copy, re-initialization)",
        "requires_grad was switched off for a stage of training, and not on again",
        "the layer isn't used in the forward pass, or its output is detached, or taken under no_grad",
        "everything after it is dead or multiplied by zero, so that its gradient is exactly zero",
        "weights in bfloat16 with a small rate: the update is rounded away",
    ),
    apart={
        "fine-tuning": "a backbone is frozen on purpose; say requires_grad_(False), and it is at most a note",
        "dead-units": "there the layer had a gradient once; look for units that died",
        "rate-low": "updates are tiny, but not zero",
        "a second optimizer": "what another watched optimizer holds is not counted as forgotten",
    },
    remedy=(
        "build the optimizer from model.parameters() after the model is complete and on its device",
        "print [n for n, p in model.named_parameters() if not p.requires_grad] and see whether you meant it",
        "call backward() once, and look for parameters whose .grad is None",
        "for bfloat16 weights keep a float32 copy for the optimizer",
    ),
    tried="Exact zeros need no threshold; three measurements over 20 steps are asked for. Small MLPs, CNNs and GPTs of "
    "some hundred steps.",
    explains=("plateau", "rate-low", "constant-prediction"),
)
_LEAST = 3  # measurements that must all be zero
_SPAN = 20  # steps that they must span: some networks start with zeros that go away after an update or two
_LISTED = 4


def check(view: RunView) -> "list[Finding] | NotEvaluable":
    """At most one finding for each way of standing still."""
    update, gradient = view.layers("update/norm"), view.layers("grad/norm")
    if update is None and gradient is None and not view.parameters:
        return NotEvaluable(
            kind=CARD.name,
            lacked="updates or gradients by layer",
            record="watch = tw.watch(model, optimizer)",
        )
    still = _zero(view, "update/norm", nonzero_rate=True)
    flat = _zero(view, "grad/norm")
    held = [] if update is None else update.layers
    missing = [] if gradient is None or not view.last_step >= _SPAN else _without(held, gradient.layers)
    unreached = list(dict.fromkeys([*missing, *flat]))
    unmoved = _without(still, unreached)
    every = set(held) | set(gradient.layers if gradient else ())
    outside = _outside(view, held)
    if outside is not None and outside.severity == "critical":
        return [outside]
    findings = [
        outside,
        _zero_gradient(view, unreached, every),
        _zero_update(view, unmoved, every),
        _switched_off(view),
    ]
    return sorted((f for f in findings if f is not None), key=lambda f: -f.confidence)


def _outside(view: RunView, held: list[str]) -> Finding | None:
    """Trainable parameters that no watched optimizer holds."""
    names = view.run.names("*update/norm/*") + view.run.names("*grad/norm/*")
    anywhere = {re.sub(r"^.*?(?:update|grad)/norm/", "", name) for name in names}
    outside = _without(view.parameters.get("outside", ()), anywhere)
    if not outside:
        return None
    strangers = [name for name in held if re.fullmatch(r"group\d+\.\d+", name)]
    whole = bool(held) and len(strangers) == len(held)
    return _finding(
        view,
        f"The optimizer holds no parameter of this model, but {len(held)} of another"
        if whole
        else f"The optimizer was not given {_count(outside)}: {outside[0]}",
        "critical" if whole else "warning",
        0.97 if whole else 0.85,
        outside,
        f"{_listed(outside)} need a gradient, and the watched optimizer doesn't hold them: they keep their first values.",
        instruction(PAGE.remedy[0]),
        [],
    )


def _zero_gradient(view: RunView, layers: list[str], every: set[str]) -> Finding | None:
    """Parameters of the optimizer that no gradient reaches."""
    matrices = [name for name in layers if is_matrix(name)]
    if not layers:
        return None
    whole = len(layers) == len(every)
    return _finding(
        view,
        "No gradient reaches any parameter"
        if whole
        else f"No gradient reaches {_count(layers)}: {layers[0]}",
        "critical" if whole else "warning" if matrices else "note",
        0.9 if whole else 0.8 if matrices else 0.6,
        matrices or layers,
        f"The gradient of {_listed(layers)} is missing or exactly zero at every measured step.",
        instruction(PAGE.remedy[2]),
        [f"grad/norm/{layers[0]}", f"update/norm/{layers[0]}"],
    )


def _zero_update(view: RunView, layers: list[str], every: set[str]) -> Finding | None:
    """Parameters with a gradient and an update of zero."""
    matrices = [name for name in layers if is_matrix(name)]
    if not matrices:  # a bias before a normalization gets rounding errors only, too small to move it
        return None
    whole = len(layers) == len(every)
    return _finding(
        view,
        "No parameter moves, though the rate is not 0"
        if whole
        else f"{_count(layers)} never moved: {layers[0]}",
        "critical" if whole else "warning",
        0.9,
        matrices,
        f"{_listed(layers)} had a gradient, and every measured update of them was exactly zero: the rate of their group "
        "is 0, they are put back after each step, or the update is rounded away.",
        "look at the rate of their parameter group, and at the type of the weights: bfloat16 needs float32 copies",
        [f"update/norm/{layers[0]}", f"grad/norm/{layers[0]}"],
    )


def _switched_off(view: RunView) -> Finding | None:
    """Parameters that need no gradient; odd where a sister before them is trained."""
    frozen = [name for name in view.parameters.get("frozen", ()) if is_matrix(name)]
    if not frozen:
        return None
    trained = [_family(n) for q in ("update/norm", "grad/norm") if (m := view.layers(q)) for n in m.layers]
    odd = [
        name
        for name in frozen
        if any(kind == _family(name)[0] and at < _family(name)[1] for kind, at in trained)
    ]
    return _finding(
        view,
        f"{_count(odd or frozen)} without requires_grad: {(odd or frozen)[0]}",
        "warning" if odd else "note",
        0.65 if odd else 0.5,
        odd or frozen,
        f"requires_grad is off for {_listed(odd or frozen)}"
        + (", while layers of the same kind before them are trained." if odd else "; perhaps it is meant."),
        instruction(PAGE.remedy[1]),
        [],
    )


def _zero(view: RunView, quantity: str, nonzero_rate: bool = False) -> list[str]:
    """Layers whose quantity is exactly zero at every measured step."""
    matrix = view.layers(quantity)
    if matrix is None:
        return []
    values, steps = matrix.values, matrix.steps
    if nonzero_rate and view.rate is not None:
        moving = ~(view.rate.at(steps) == 0)
        values, steps = values[moving], steps[moving]
    known: NDArray[np.bool_] = ~np.isnan(values)
    nothing = np.where(known, values == 0, True).all(axis=0) & (known.sum(axis=0) >= _LEAST)
    return [
        layer
        for i, layer in enumerate(matrix.layers)
        if nothing[i] and int(np.ptp(steps[known[:, i]])) >= _SPAN
    ]


def _family(name: str) -> tuple[str, tuple[int, ...]]:
    """A name with its numbers taken out, and the numbers."""
    return re.sub(r"\d+", "#", name), tuple(int(n) for n in re.findall(r"\d+", name))


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    taken = set(others)
    return [name for name in names if name not in taken]


def _count(names: list[str]) -> str:
    return f"{len(names)} parameter{'s' if len(names) > 1 else ''}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _finding(
    view: RunView,
    title: str,
    severity: Severity,
    confidence: float,
    layers: list[str],
    text: str,
    remedy: str,
    signals: list[str],
) -> Finding:
    curves = [c for name in signals if (c := view.named(name)) is not None]
    if not curves and view.loss is not None:
        curves = [view.loss]
    return Finding(
        kind=CARD.name,
        title=title,
        severity=severity,
        confidence=confidence,
        first_step=0,
        last_step=view.last_step,
        where=next((name for name in layers if is_matrix(name)), layers[0]),
        evidence=Evidence(
            text=text, numbers={"parameters": len(layers)}, plot=Plot(signals=tuple(c.name for c in curves))
        ),
        remedy=remedy,
    )


RULE = Rule(card=CARD, page=PAGE, check=check)
