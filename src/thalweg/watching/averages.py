"""Several logs of one name within one step, as one value."""

from collections.abc import Mapping

import numpy as np

from thalweg.watching.contracts import Array, Steps


class Averages:
    """Joins several logs of the same names within one step into their mean (totals keep the last).

    What was written of a step is written again when more of it arrives: the record keeps the last value of a step.
    """

    def __init__(self, reduce: Mapping[str, str]) -> None:
        self._open: dict[tuple[str, ...], tuple[int, Array, int]] = {}
        self._reduce = reduce

    def join(
        self, names: tuple[str, ...], steps: Steps, times: Array, values: Array
    ) -> tuple[Steps, Array, Array]:
        """One row a step, in order of arrival."""
        step, total, count = self._open.get(names, (-1, np.zeros(len(names)), 0))
        alone = len(steps) == 1 or bool((np.diff(steps) != 0).all())
        if alone and steps[0] != step:
            self._open[names] = (int(steps[-1]), values[-1].copy(), 1)
            return steps, times, values
        rows: list[tuple[int, float, Array]] = []
        for s, t, row in zip(steps, times, values, strict=True):
            if s == step:
                total, count = total + row, count + 1
                if rows and rows[-1][0] == s:
                    rows.pop()
            else:
                step, total, count = int(s), row.copy(), 1
            rows.append((int(s), float(t), self._reduced(names, total, count, row)))
        self._open[names] = (step, total, count)
        return (
            np.array([r[0] for r in rows], np.int64),
            np.array([r[1] for r in rows]),
            np.stack([r[2] for r in rows]),
        )

    def _reduced(self, names: tuple[str, ...], total: Array, count: int, last: Array) -> Array:
        out = total / count
        for i, name in enumerate(names):
            how = "last" if name == "tokens" else self._reduce.get(name, "mean")
            if how == "sum":
                out[i] = total[i]
            elif how == "last":
                out[i] = last[i]
        return out
