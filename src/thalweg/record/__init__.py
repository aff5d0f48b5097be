"""The record of a run: `Recorder` writes it, `open_run` and `open_runs` read it; one file, no torch."""

from thalweg.record.compaction import compact
from thalweg.record.exporting import export_csv, export_parquet
from thalweg.record.importing import import_runs
from thalweg.record.naming import next_segment_path, rank_path, segment_path
from thalweg.record.opening import open_run
from thalweg.record.recorder import Recorder
from thalweg.record.roles import guess_role
from thalweg.record.run import LayerMatrix, Run, Series
from thalweg.record.runs import Runs, RunSummary, open_runs
from thalweg.record.signals import Reduce, Role, SignalSpec, Stage
from thalweg.record.sources import Event, Segment

__all__ = [
    "Event",
    "LayerMatrix",
    "Recorder",
    "Reduce",
    "Role",
    "Run",
    "RunSummary",
    "Runs",
    "Segment",
    "Series",
    "SignalSpec",
    "Stage",
    "compact",
    "export_csv",
    "export_parquet",
    "guess_role",
    "import_runs",
    "next_segment_path",
    "open_run",
    "open_runs",
    "rank_path",
    "segment_path",
]
