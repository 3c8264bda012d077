"""What all pictures share: colours, the figure, the names of targets."""

import base64
import io
import re
from html import escape
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from questlib.schema import QUESTION_TARGETS, TARGETS

BLUE, ORANGE, GREY, PALE, LINE = "#2b6a99", "#b9661a", "#6b7280", "#9aa4b2", "#e5e7eb"


_DOTS = 220  # per inch, in a notebook, where a picture takes half as many pixels of the screen
# What each colour is called on a page, where light and dark decide which it is.
_ON_A_PAGE = {
    "#000000": "currentColor", "#ffffff": "var(--paper)", "#cccccc": "var(--line)", LINE: "var(--line)",
    GREY: "var(--soft)", BLUE: "var(--question)", ORANGE: "var(--answer)",
}  # fmt: skip


class Picture(Figure):
    """A figure that says in words what it shows, to whoever cannot see it."""

    @property
    def alt(self) -> str:
        """Its titles, or those of its panels, and what is written into them."""
        titles = [title for axes in self.axes for title in (axes.get_title(), axes.get_title(loc="left")) if title]
        texts = [text.get_text() for axes in self.axes for text in axes.texts if len(self.axes) <= 2]
        return " ".join(". ".join([each for each in (self.get_suptitle(), *titles) if each] + texts[:12]).split())

    def _ipython_display_(self) -> None:
        # Not by a formatter: those that a notebook may have of its own for figures leave no word on what is shown.
        from IPython.display import display

        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DOTS)
        width, height = (int(inches * _DOTS / 2) for inches in self.get_size_inches())
        data = {"image/png": base64.b64encode(content.getvalue()).decode(), "text/plain": self.alt}
        display(data, raw=True, metadata={"image/png": {"alt": self.alt, "width": width, "height": height}})

    def to_svg(self) -> str:
        """Give the picture for a page: as wide as its place, in the page's font and colours."""
        content = io.StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "questlib"}):
            self.savefig(content, format="svg", transparent=True, metadata={"Date": None})
        drawn = content.getvalue()
        drawn = re.sub(r"<(metadata|style).*?</\1>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
        drawn = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", drawn)  # as matplotlib wrote it before 3.10
        drawn = re.sub(r"font-family: [^;\"]*;? ?", "", drawn)
        for color, name in _ON_A_PAGE.items():
            drawn = drawn.replace(color, name)
        _, _, width, height = re.search(r'viewBox="([^"]*)"', drawn)[1].split()  # type: ignore[index]
        head = f'<svg role="img" aria-label="{escape(self.alt)}" viewBox="0 0 {width} {height}" fill="currentColor"'
        return re.sub(r"<svg[^>]*", head, drawn, count=1).strip()


def new_figure(*, width: float, height: float) -> Picture:
    """Make a figure, in inches."""
    # Not pyplot: it keeps every figure until it is closed by hand. Constrained layout never cuts a label off.
    return Picture(figsize=(width, height), layout="constrained", dpi=110)


def new_grid(title: str, *, rows: int, columns: int, sharey: bool = False) -> tuple[Picture, dict[str, Axes]]:
    """Make a figure with a small picture for each of the 30 targets."""
    figure = new_figure(width=12.5, height=11)
    figure.suptitle(title)
    return figure, dict(zip(TARGETS, figure.subplots(rows, columns, sharex=True, sharey=sharey).flat, strict=True))


def clean(axes: Axes, *, grid: Literal["x", "y"] = "x") -> Axes:
    """Leave of the frame what is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=LINE, linewidth=0.8)
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
