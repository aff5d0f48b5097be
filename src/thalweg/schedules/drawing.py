"""Schedules as pictures: a Plotly figure, or SVG text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from thalweg.core.errors import UsageError
from thalweg.record.plotting import DASHES, LIGHT, plotly_text
from thalweg.record.sketching import Strip, overlay
from thalweg.schedules.shape import Floats, Schedule

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_POINTS = 2_000


def figure(schedules: Mapping[str, Schedule], steps: int | None = None) -> "Figure":
    """Draw schedules over each other as a Plotly figure.

    Args:
        schedules: name -> schedule.
        steps: how many updates; the longest total by default.

    Raises:
        UsageError: there is none, or none has an end and ``steps`` is not given.
    """
    import plotly.graph_objects as go

    x = _places(schedules, steps)
    out = go.Figure()
    for place, (name, schedule) in enumerate(schedules.items()):
        line = {"color": LIGHT[place % len(LIGHT)], "dash": DASHES[place // len(LIGHT) % len(DASHES)]}
        out.add_trace(go.Scatter(x=x, y=schedule(x), mode="lines", name=plotly_text(name), line=line))
    out.update_layout(
        template="plotly_white", hovermode="x", showlegend=True, legend={"orientation": "h", "y": -0.15},
        xaxis_title={"text": "step"}, yaxis_title={"text": "value"},
    )  # fmt: skip
    return out


def picture(schedules: Mapping[str, Schedule], steps: int | None = None) -> str:
    """Draw schedules over each other as an ``<svg>`` element; see `figure`."""
    x = _places(schedules, steps)
    strips = [Strip(name, x.astype(np.int64), schedule(x)) for name, schedule in schedules.items()]
    return overlay(strips)


def _places(schedules: Mapping[str, Schedule], steps: int | None) -> Floats:
    """The steps to draw; the last is that of the total, at which a decay has reached its floor."""
    totals = [schedule.total for schedule in schedules.values() if schedule.total is not None]
    if steps is None and not totals:
        raise UsageError("there is nothing to draw: none of the schedules has an end, and steps is not given")
    return np.unique(np.linspace(0, max(totals) if steps is None else steps, _POINTS).round())
