"""Panels, markers and legends of figures drawn with matplotlib."""

from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from foretune.core.files import atomic_write
from foretune.report.charts import PALETTE

MATPLOTLIB_STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "axes.prop_cycle": cycler(color=PALETTE), "legend.frameon": False,
    "svg.hashsalt": "foretune",  # the same study gives the same bytes
}  # fmt: skip
MARKERS = "osD^vPX*"
MAX_NAMED_DATASETS = 24  # if there are more, all datasets have the same marker

Styles = dict[str, dict[str, Any]]  # name -> keyword arguments of matplotlib's plot


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, without a date, so that the same figure gives the same bytes."""
    with atomic_write(path) as partial_file:
        figure.savefig(partial_file, format="svg", bbox_inches="tight", metadata={"Date": None})


def make_panels(
    rows: int, columns: int, width: float = 2.2, height: float = 1.9, **options
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels, an array of shape (rows, columns); sizes in inches."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_message(message: str) -> Figure:
    """Return a figure that contains only a message, for a study without the data to draw."""
    figure, panels = make_panels(1, 1, width=4, height=1)
    panels[0, 0].set_axis_off()
    panels[0, 0].text(0.5, 0.5, message, ha="center", va="center")
    return figure


def assign_markers(names: list[str]) -> Styles:
    """Return a colour and a marker for each name; up to 64 names get different pairs."""
    if len(names) > MAX_NAMED_DATASETS:
        return {name: {"color": PALETTE[0], "marker": "o"} for name in names}
    count = len(PALETTE)
    return {
        name: {"color": PALETTE[i % count], "marker": MARKERS[(i + i // count) % len(MARKERS)]}
        for i, name in enumerate(names)
    }


def add_legend(figure: Figure, styles: Styles) -> None:
    """Add a legend of all names below the panels."""
    defaults: dict[str, Any] = {"ls": "", "ms": 4}
    handles = [Line2D([], [], **defaults | style, label=name) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
