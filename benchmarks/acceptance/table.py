"""The verdicts as a page of the documentation, and as lines for a terminal."""

from collections import Counter
from collections.abc import Sequence

from acceptance.cells import BATCH, TRIES, Cell, columns, rows
from acceptance.verdicts import CORRECT, IN_PART, RELATIVE, UNSUPPORTED, WRONG, Verdict

KINDS = (CORRECT, IN_PART, UNSUPPORTED, WRONG)
MARKS = {CORRECT: "correct", IN_PART: "in part", UNSUPPORTED: "unsupported", WRONG: "**WRONG**"}


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line a cell, then the counts."""
    lines = [
        f"{v.kind:12}{v.cell:48}{v.seconds:6.1f} s {v.compared:6} values  {v.text or ', '.join(v.refused)}"
        for v in verdicts
    ]
    return "\n".join([*lines, counts(verdicts)])


def counts(verdicts: Sequence[Verdict]) -> str:
    """How many cells of each kind."""
    found = Counter(v.kind for v in verdicts)
    return (
        ", ".join(f"{found[k]} {k}" for k in KINDS)
        + f"; {sum(v.compared for v in verdicts):,} values compared"
    )


def page(verdicts: Sequence[Verdict]) -> str:
    """The page with the table of the whole grid."""
    notes: dict[str, int] = {}
    table = _table({v.cell: v for v in verdicts}, notes)
    inductor = ", ".join(f"`{v.cell}`" for v in verdicts if v.backend == "inductor")
    return f"""# The acceptance grid

Made by `make grid`; {counts(verdicts)}.

Each cell trains a small convolutional network (BatchNorm, dropout, two parameter groups, a changing rate, a parameter
of one element) on MNIST's digits for {TRIES} tries of {BATCH} examples a rank, twice from the same seeds: unwatched, and
watched with `cadence=1`, so that every default instrument measures at every step. Sharded cells (FSDP2) are watched
with `ranks="zero"`, where nothing of sharded parameters may be recorded, and with `ranks="all"`, where the joined record
of both ranks must be that of the whole (compiled ones but the plain only with the latter); so are the plain ones of DDP.
The optimizer is AdamW; SGD with Nesterov's momentum under accumulation, and with plain momentum under a closure (AdamW
there too for FSDP2 with a fused optimizer: torch's fused SGD takes no sharded tensor). Under DDP all micro-batches but
the last are in `no_sync`; under FSDP2 the accumulated gradients pass through `clip_grad_norm_` with an infinite limit,
since without it the noise scale of sharded gradients is left out, in words. In float16 the fourth try overflows and is skipped.

- **correct**: every default signal, at every step where it is stored, equals a float64 recomputation by code of its own (relative
  tolerance {RELATIVE:g}), and the watched run is bit for bit the unwatched one: weights, buffers, gradients before they are
  zeroed, optimizer and scaler state, modes, random states, backend flags, number of graphs compiled.
- **in part**: the same, for what is recorded; the signals in the note are not recorded, and the record says so in words.
- **unsupported**: PyTorch itself refuses the combination.
- **WRONG**: none of these; the note says what.

All on a CPU with one thread; DDP and FSDP2 are two processes over gloo. Compiled cells use the backend `aot_eager`,
which traces and differentiates as `inductor` does and generates no code; these use `inductor`: {inductor or "none"}.

{table}

{_notes(notes)}
"""


def _table(verdicts: dict[str, Verdict], notes: dict[str, int]) -> str:
    heads = [" ".join(c) for c in columns()]
    lines = ["| | | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 2)]
    for ranks, technique in rows():
        cells = []
        for mode, precision, kernel in columns():
            cells.append(_cell(verdicts.get(Cell(mode, precision, kernel, ranks, technique).name), notes))
        lines.append(f"| {ranks} | {technique} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(verdict: Verdict | None, notes: dict[str, int]) -> str:
    if verdict is None:
        return "not run"
    note = verdict.text or (
        "not recorded: " + ", ".join(f"`{s}`" for s in verdict.refused) if verdict.refused else ""
    )
    if not note:
        return MARKS[verdict.kind]
    return f"{MARKS[verdict.kind]} ({notes.setdefault(note, len(notes) + 1)})"


def _notes(notes: dict[str, int]) -> str:
    return "\n".join(f"{number}. {text}" for text, number in notes.items())
