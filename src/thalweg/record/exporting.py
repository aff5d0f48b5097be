"""A run in other forms: CSV, Parquet, a pandas data frame."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.errors import MissingExtra
from thalweg.record.run import Run, Series


def export_csv(run: Run, out: str | Path, names: Sequence[str] | None = None) -> Path:
    """Write a run as a table: one line for each value, with signal, clock, step, Unix time and value.

    Signals on different clocks and with gaps fit into one such table without invented cells. The values of a signal
    with a shape are numbered in the column "index" ("2,0").

    Args:
        run: the run.
        out: the file to write; it is replaced.
        names: which signals; all by default.
    """
    out = Path(out)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["signal", "clock", "step", "time", "index", "value"])
        for series in _chosen(run, names):
            writer.writerows(_lines(series))
    return out


def export_parquet(run: Run, out: str | Path, names: Sequence[str] | None = None) -> Path:
    """Write a run as Parquet, with the columns of `export_csv` (values as float64).

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'thalweg[frames]'") from error
    out = Path(out)
    word = pa.dictionary(pa.int32(), pa.string())
    fields = [
        ("signal", word),
        ("clock", word),
        ("step", pa.int64()),
        ("time", pa.float64()),
        ("index", pa.string()),
    ]
    schema = pa.schema([*fields, ("value", pa.float64())])
    with pq.ParquetWriter(out, schema) as writer:
        for series in _chosen(run, names):
            items = int(np.prod(series.spec.shape, dtype=np.int64))
            count = len(series) * items
            index = [_index(series, i) for i in range(items)] * len(series)
            columns = [
                pa.array([series.name] * count, pa.string()).dictionary_encode(),
                pa.array([series.spec.clock] * count, pa.string()).dictionary_encode(),
                np.repeat(series.steps, items),
                np.repeat(series.times, items),
                pa.array(index, pa.string()),
                series.values.reshape(-1).astype(np.float64),
            ]
            writer.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], schema=schema))
    return out


def to_frame(run: Run, names: Sequence[str] | None = None) -> Any:
    """See `Run.frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("a data frame needs pandas: pip install 'thalweg[frames]'") from error
    chosen = [series for series in _chosen(run, names) if not series.spec.shape]
    columns = {series.name: pd.Series(series.values, index=series.steps) for series in chosen}
    frame = pd.DataFrame(columns)
    frame.index.name = "step"
    return frame.sort_index()


def _chosen(run: Run, names: Sequence[str] | None) -> Iterator[Series]:
    for name in run.names() if names is None else names:
        yield run[name]


def _lines(series: Series) -> Iterator[list[Any]]:
    items = int(np.prod(series.spec.shape, dtype=np.int64))
    values = series.values.reshape(len(series), items)
    labels = [_index(series, i) for i in range(items)]
    for row, (step, time) in enumerate(zip(series.steps.tolist(), series.times.tolist(), strict=True)):
        for item, label in enumerate(labels):
            yield [series.name, series.spec.clock, step, f"{time:.6f}", label, values[row, item]]


def _index(series: Series, item: int) -> str:
    return ",".join(map(str, np.unravel_index(item, series.spec.shape))) if series.spec.shape else ""
