"""What a watch says, in the record or as a warning, of what is not, or can't be, seen."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from thalweg.watching.sharing import readable

if TYPE_CHECKING:
    from thalweg.watching.track import Track

NEVER_STEPPED = (
    "No optimizer step was seen. Pass the optimizer whose step() the loop calls to tw.watch(model, optimizer), "
    "before the loop; for an optimizer without hooks call watch.step() after each update."
)

NO_FORWARDS = (
    "No forward of the watched model was seen in three steps: it was compiled after tw.watch(...), or by "
    "model.compile(), or the loop calls its parts. Losses are recorded at the update count of the moment "
    "they are logged, and activations, logits and examples a second are not recorded. Call tw.watch on the "
    "object that your loop calls, after torch.compile(model)."
)

HALF_WITHOUT_SCALER = (
    "The loop runs in float16 and no scaler= was given: loss scale and skipped updates are not recorded."
)

UNKNOWN_SCALER: Mapping[str, Any] = {
    "signals": ["amp/scale", "amp/skipped", "noise/scale"],
    "text": (
        "A GradScaler makes these steps: the loss scale, and updates that it skips, are not recorded, "
        "nor is the noise scale. Pass it as tw.watch(..., scaler=scaler)."
    ),
}


def made_by_grad_scaler() -> bool:
    """Whether the present step of an optimizer was called by a GradScaler."""
    frame = sys._getframe()
    while (outer := frame.f_back) is not None:
        frame = outer
        if frame.f_code.co_filename.endswith("grad_scaler.py"):
            return True
    return False


def autocast_to_half() -> bool:
    """Whether autocast to float16 is on."""
    kinds = [kind for kind in ("cuda", "cpu") if torch.is_autocast_enabled(kind)]
    return any(torch.get_autocast_dtype(kind) is torch.float16 for kind in kinds)


def notices(track: "Track", world: int, training: int) -> list[tuple[str, dict[str, Any]]]:
    """Events at the start of a record: the parameters, and what of them is not recorded; (kind, details).

    Args:
        track: one optimizer and its model.
        world: how many ranks record.
        training: how many ranks train.
    """
    table = track.table
    out: list[tuple[str, dict[str, Any]]] = [
        (
            "parameters",
            {
                "key": track.writer.key,
                "rows": len(table.rows),
                "elements": table.elements,
                "frozen": list(table.frozen),
                "outside": list(table.outside),
                "tied": {r.name: list(r.aliases) for r in table.rows if r.aliases},
            },
        )
    ]
    if track.left_out:
        text = (
            "The model is compiled: instruments that need module hooks are off. With held=tw.HeldBatch(...) they look "
            "at that batch, in eager mode; that needs torch.compile(model), not model.compile()."
        )
        out.append(("not recorded", {"instruments": track.left_out, "text": text}))
    view = track.view
    if len(view.rotation) > 1 or view.sampled_rows:
        text = "Copies of all parameters are more than memory= allows: their updates are measured in turns."
        sampled = [view.table.rows[r].name for r in sorted(view.sampled_rows)]
        out.append(("in turns", {"turns": len(view.rotation), "by_sample": sampled, "text": text}))
    if training > 1 and world == 1:
        text = (
            f"{training} ranks train, and samples and throughput count the examples of one: what its own forwards were "
            "given. Tokens are what watch.log was told."
        )
        signals = [track.writer.key + name for name in ("samples", "throughput/examples")]
        out.append(("one rank", {"signals": signals, "ranks": training, "text": text}))
    if track.writer.signals.sharing.sharded and "noise-scale" in [p.name for p in track.governor.planned]:
        text = (
            "Whether something clipped sharded gradients can't be seen: the noise scale is recorded only of updates "
            "with watch.clip_grad_norm_(max_norm), which may be infinite."
        )
        out.append(("not recorded", {"instruments": ["noise-scale"], "text": text}))
    sharded = sum(not readable(r, world) for r in table.rows)
    if sharded and world > 1:
        text = (
            f"{sharded} parameters are sharded over some of the ranks only; nothing of them is recorded, since their "
            "parts can't be joined."
        )
        out.append(("not recorded", {"parameters": sharded, "text": text}))
    elif sharded:
        text = (
            f"{sharded} parameters are sharded over ranks; one rank's part is not the whole, so nothing of them is "
            'recorded. ranks="all" on every rank records the parts, which are joined when the run is read.'
        )
        out.append(("not recorded", {"parameters": sharded, "text": text}))
    return out
