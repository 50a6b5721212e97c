"""Plots as SVG: every seed as a dot, mean and standard deviation beside them, one line of the plot for each variant.

A plot names in its description the digest of the numbers that it was drawn from, so that a stale one shows without
drawing it again. Needs matplotlib (extra `study`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reference_model.study.measures import MEASURES
from reference_model.study.stats import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 3.6
ROW_INCHES = 0.34
FRAME_INCHES = 0.75
DOT, MEAN = "#7a9cc6", "#1b3a5c"

# Values by variant, in the order of the experiment.
Values = Mapping[str, Sequence[float]]


def data_digest(panels: Mapping[str, Values]) -> str:
    """Digest of what a plot shows."""
    return hashlib.sha256(json.dumps({name: dict(values) for name, values in panels.items()}).encode()).hexdigest()[:16]


def draw(panels: Mapping[str, Values]) -> str:
    """The plot, one panel for each measure, as the text of an SVG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = len(next(iter(panels.values())))
    size = PANEL_INCHES * len(panels) + 1.0, ROW_INCHES * rows + FRAME_INCHES
    # Text stays text: small files, and every reader has a sans-serif. Equal input gives equal bytes.
    with rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "study"}):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.08))
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (measure, values) in zip(all_axes, panels.items(), strict=True):
            _draw_panel(axes, MEASURES[measure].title, values)
        out = io.StringIO()
        about = {"Date": None, "Creator": None, "Description": data_digest(panels)}
        figure.savefig(out, format="svg", metadata=about)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _draw_panel(axes: Axes, title: str, values: Values) -> None:
    for row, numbers in enumerate(values.values()):
        if not numbers:
            continue
        mean, deviation = mean_and_deviation(numbers)
        axes.plot(numbers, [row] * len(numbers), "o", color=DOT, markersize=4, zorder=2)
        spread = 0.0 if math.isnan(deviation) else deviation
        axes.errorbar(mean, row, xerr=spread, fmt="|", color=MEAN, markersize=11, capsize=3, linewidth=1.2, zorder=3)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(title)
    axes.locator_params(axis="x", nbins=5)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
