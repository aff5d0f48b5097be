"""The tables of the scores, and the page of the documentation that holds them."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.diagnosis.intervals import clopper_pearson, wilson
from benchmarks.diagnosis.making import TEST_SEEDS
from benchmarks.diagnosis.scoring import Score
from benchmarks.tables import table

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis-bench.md"
ABOUT = """# How right the diagnoses are

`make diagnosis-bench` trains every run below, diagnoses it, and writes this page. Small networks on real data that comes
inside Python packages: an MLP (9,000 parameters, 8 x 8 digits; wide: 29,000, MNIST at 14 x 14), a CNN with and without
BatchNorm (6,000, MNIST at 14 x 14), a character-level GPT of two blocks (32,000, Shakespeare's plays); 100 to 2,000
steps, on one CPU thread. That is the scale at which the thresholds are tried, and no larger one. Runs are watched at every
tenth step, so that a few hundred steps hold as many measurements as some thousand do by default; half of the healthy
ones by default.
"""
SICK = """## Runs that go wrong

Each is a sensible training with one mistake. What is right was written down before any rule had seen the runs: one
kind, or two where two words are honest. Four recipes were made stronger after a first score of development runs, which
showed that their runs hardly held the trouble: a leak of 15 MB, batches near the noise scale, a plateau of half a run,
a first NaN between two measurements. *Right*: the finding that is ranked first has a right kind. *Layer*: where the
trouble is in a layer, the right finding names it; for units that are dead, the layer that makes them or the one that
reads them.
"""
UNSEEN = """No rule was written or changed with these seeds in view. The records of half of the runs that go wrong were checked
for the trouble itself beforehand, without any rule."""
SEEN = "**These are development seeds, which whoever wrote the rules has looked at: no proof of anything.**"
HEALTHY = """## Healthy runs

Settings that somebody would choose who has trained such networks before, drawn at random: architecture, optimizer,
schedule, batch size, length, rate, clipping, weight decay. All are kept. What counts is a finding above "note".

This is the second set of 200. The first raised six warnings, all of memory-growth, and they were true: in runs of less
than a second the watch's own small tensors kept the heap in pieces, 10 to 20 MB of it. The watch was changed for that,
no rule was, and the runs were drawn and trained anew.
"""
EXPORTED = """## The same runs, as other tools log them

Loss, rate, gradient norm and evaluations, nothing else: as TensorBoard events, as a CSV table, and as the Trainer's
`trainer_state.json` with means of ten losses. *Kept*: a right kind is found; *not evaluable*: the rule says what it
lacks; *silent*: the rule looked and found nothing. *Wrong*: a finding above "note" that is neither right nor a symptom
of what is, nor shown by the full record.
"""


def text_of(scores: Sequence[Score]) -> str:
    """All tables that the scores allow, as Markdown."""
    own = [s for s in scores if not s.form]
    sick, well = [s for s in own if s.truth["kinds"]], [s for s in own if not s.truth["kinds"]]
    exported = [s for s in scores if s.form]
    parts = [ABOUT, machine()]
    if sick:
        parts += [SICK, noted(sick), of_sick(sick)]
    if well:
        parts += [HEALTHY, noted(well), of_healthy(well)]
    if exported:
        parts += [EXPORTED, of_exported(exported)]
    if failed := sorted({f"{rule}: {why}" for s in scores for rule, why in s.failed.items()}):
        parts.append("Rules that raised:\n\n" + "\n".join(f"- {one}" for one in failed))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def noted(scores: Sequence[Score]) -> str:
    """Whether the rules' writers had seen these seeds."""
    return SEEN if any(s.truth["seed"] < min(TEST_SEEDS) for s in scores) else UNSEEN


def machine() -> str:
    """What it was made on."""
    return (
        f"Made on {os.cpu_count()} CPU cores; Python {sys.version.split()[0]}, torch {version('torch')}, "
        f"NumPy {version('numpy')}. CPU only."
    )


def share(count: int, of: int, exact: bool = False) -> str:
    """A share with its 95 % interval."""
    low, high = (clopper_pearson if exact else wilson)(count, of)
    return f"{count} of {of} ({count / max(1, of):.1%}; 95 % interval {low:.1%} to {high:.1%})"


def of_sick(scores: Sequence[Score]) -> str:
    """A line a pathology, and the sums."""
    rows = []
    for name in dict.fromkeys(s.truth["recipe"] for s in scores):
        mine = [s for s in scores if s.truth["recipe"] == name]
        placed = [s for s in mine if s.truth["layers"]]
        layers = f"{sum(bool(s.layer_right) for s in placed)} of {len(placed)}" if placed else ""
        instead = Counter(s.first or "nothing" for s in mine if not s.right)
        rows.append(
            [
                name,
                ", ".join(mine[0].truth["kinds"]),
                ", ".join(dict.fromkeys(f"{s.truth['network']} {s.truth['optimizer']}" for s in mine)),
                f"{sum(s.right for s in mine)} of {len(mine)}",
                layers,
                ", ".join(f"{kind} {n}x" for kind, n in instead.items()),
            ]
        )
    head = ["pathology", "right kinds", "trained as", "right first", "layer", "said instead"]
    right, placed = sum(s.right for s in scores), [s for s in scores if s.truth["layers"]]
    told = sum(bool(s.layer_right) for s in placed)
    slowest = max(s.seconds for s in scores)
    sums = [
        f"Right first: {share(right, len(scores))}.",
        f"Right layer, where the trouble is in one: {share(told, len(placed))}." if placed else "",
        f"The slowest diagnosis took {slowest:.2f} s.",
    ]
    return table(head, rows) + "\n\n" + " ".join(filter(None, sums))


def of_healthy(scores: Sequence[Score]) -> str:
    """How many say something above "note", by network and optimizer, and which."""
    networks = list(dict.fromkeys(s.truth["network"] for s in scores))
    optimizers = list(dict.fromkeys(s.truth["optimizer"] for s in scores))
    rows = []
    for network in sorted(networks):
        cells = []
        for optimizer in sorted(optimizers):
            mine = [s for s in scores if (s.truth["network"], s.truth["optimizer"]) == (network, optimizer)]
            cells.append(f"{sum(not s.right for s in mine)} of {len(mine)}")
        rows.append([network, *cells])
    loud = [s for s in scores if not s.right]
    said = [
        f"- {s.truth['name']} ({s.truth['network']}, {s.truth['optimizer']}, {s.truth['seen']}): {'; '.join(s.said)}"
        for s in loud
    ]
    total = f'With a finding above "note": {share(len(loud), len(scores), exact=True)}.'
    return "\n\n".join(filter(None, [table(["network", *sorted(optimizers)], rows), total, "\n".join(said)]))


def of_exported(scores: Sequence[Score]) -> str:
    """What remains of the right findings in each form, and what is wrong."""
    rows = []
    for form in dict.fromkeys(s.form for s in scores):
        sick = [s for s in scores if s.form == form and s.truth["kinds"]]
        well = [s for s in scores if s.form == form and not s.truth["kinds"]]
        state = Counter(remains(s) for s in sick)
        counts = [str(state[k]) for k in ("first", "kept", "not evaluable", "silent")]
        rows.append(
            [
                form,
                str(len(sick)),
                *counts,
                str(sum(bool(s.wrong) for s in sick)),
                f"{sum(not s.right for s in well)} of {len(well)}",
            ]
        )
    head = [
        "form",
        "runs that go wrong",
        "right first",
        "kept, not first",
        "not evaluable",
        "silent",
        "wrong",
        "healthy above note",
    ]
    wrong = [
        f"- {s.form}, {s.truth['name']}: {', '.join(s.wrong or s.loud)}"
        for s in scores
        if s.wrong or (not s.truth["kinds"] and s.loud)
    ]
    return "\n\n".join(filter(None, [table(head, rows), "\n".join(wrong)]))


def remains(score: Score) -> str:
    """What became of the right finding in an export."""
    kinds = score.truth["kinds"]
    if score.right:
        return "first"
    if any(said.split(" ")[0] in kinds for said in score.said):
        return "kept"
    return "not evaluable" if set(kinds) & set(score.lacking) else "silent"


def run_by_run(scores: Sequence[Score]) -> str:
    """A line a run: what was said of it."""
    rows = [
        [
            s.truth["name"],
            "yes" if s.right else "NO",
            "" if not s.truth["layers"] else "yes" if s.layer_right else "NO",
            s.first or "nothing",
            "; ".join(s.said),
        ]
        for s in scores
    ]
    return table(["run", "right", "layer", "first", "all findings"], rows)
