"""What all pictures share: colours, the figure, the names of targets."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from questlib.schema import QUESTION_TARGETS, TARGETS

BLUE, ORANGE, GREY, PALE = "#2b6a99", "#d9822b", "#6b7280", "#9aa4b2"


def new_figure(*, width: float, height: float) -> Figure:
    """Make a figure, in inches."""
    # Not pyplot: it keeps every figure until it is closed by hand. Constrained layout never cuts a label off.
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def new_grid(title: str, *, rows: int, columns: int, sharey: bool = False) -> tuple[Figure, dict[str, Axes]]:
    """Make a figure with a small picture for each of the 30 targets."""
    figure = new_figure(width=12.5, height=11)
    figure.suptitle(title)
    return figure, dict(zip(TARGETS, figure.subplots(rows, columns, sharex=True, sharey=sharey).flat, strict=True))


def clean(axes: Axes, *, grid: Literal["x", "y"] = "x") -> Axes:
    """Leave of the frame what is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def draw_rows(axes: Axes, table: pd.DataFrame, *, values: str = "") -> Axes:
    """Draw a table of one or two columns as bars, its first row on top; `values` is a format to write them out in."""
    for number, (name, column) in enumerate(table.items()):
        place = np.arange(len(table)) + 0.2 * (2 * number + 1 - len(table.columns))
        bars = axes.barh(place, column, height=0.76 / len(table.columns), color=(BLUE, ORANGE)[number], label=name)
        if values:
            axes.bar_label(bars, fmt=values, padding=4, fontsize=8, color=GREY)
    axes.set_yticks(np.arange(len(table)), table.index.astype(str))
    axes.invert_yaxis()
    return clean(axes)


def color_of(target: str) -> str:
    """Question targets are blue, answer targets orange."""
    return BLUE if target in QUESTION_TARGETS else ORANGE


def shorten(target: str) -> str:
    """Name a target without its group, which the colour shows."""
    return target.removeprefix("question_").removeprefix("answer_").replace("_", " ")


def count_shares(values: pd.Series) -> pd.Series:
    """Give the share of rows by value."""
    return values.value_counts(normalize=True)
