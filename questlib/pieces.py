"""Tables, bars and small pictures in HTML that a notebook shows and a page takes in alike, light or dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.charts import BLUE, GREY, ORANGE
from questlib.schema import QUESTION_TARGETS, TARGETS

# A page sets these; a notebook, which does not, shows what stands behind the comma.
QUESTION_COLOR, ANSWER_COLOR = f"var(--question, {BLUE})", f"var(--answer, {ORANGE})"
_BAR, _TRUTH, _CURVE = f"var(--bar, {BLUE}33)", "var(--truth, #8a94a366)", f"var(--soft, {GREY})"
_BINS = 30
_LONG = 40  # letters: such a text is broken into lines
_WIDTH, _HEIGHT = 100, 50  # of a small picture, in its own units


class Html(str):
    """HTML that is shown as such, by a notebook and by a template."""

    def _repr_html_(self) -> str:
        return str(self)

    def __html__(self) -> str:
        return str(self)


def show_table(frame: pd.DataFrame, *, decimals: int = 4, bars: Iterable[str] = ()) -> Html:
    """Lay out a table without its index, in a box that scrolls where it is wider than the screen.

    Args:
        frame: What is missing in it is left blank.
        decimals: Of floats.
        bars: Columns whose numbers have a bar behind them, as long as their share of the largest.
    """
    longest = {name: max(float(frame[name].max()), 1e-12) for name in bars}
    numeric = {name for name in frame if pd.api.types.is_numeric_dtype(frame[name])}
    head = "".join(
        f"<th scope='col' style='{_style(is_number=name in numeric)}'>{escape(str(name))}</th>" for name in frame
    )
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for name, value in row.items():
            share = max(0.0, value / longest[name]) if name in longest and pd.notna(value) else None
            text = _write(value, decimals)
            style = _style(is_number=name in numeric, share=share, is_long=len(text) > _LONG)
            cells.append(f"<td style='{style}'>{escape(text).replace('_', '_<wbr>')}</td>")  # may break after it
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return Html(
        "<div style='overflow-x: auto' tabindex='0'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _style(*, is_number: bool, share: float | None = None, is_long: bool = False) -> str:
    style = f"text-align: {'right' if is_number else 'left'}"
    if share is not None:
        style += f"; background: linear-gradient(90deg, {_BAR} {100 * share:.1f}%, transparent 0)"
    return f"{style}; white-space: normal; min-width: 16rem; overflow-wrap: anywhere" if is_long else style


def _write(value: object, decimals: int) -> str:
    if isinstance(value, list | dict):
        return str(value)
    if value is None or pd.isna(value):
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def show_panels(panels: Mapping[str, tuple[str, str]]) -> Html:
    """Lay out a small picture for each target, as many side by side as there is room for.

    `panels` has a picture, as `draw_panel` gives it, and a note by target.
    """
    figures = []
    for target, (picture, note) in panels.items():
        name = escape(target.split("_", 1)[1].replace("_", " "))
        color = QUESTION_COLOR if target in QUESTION_TARGETS else ANSWER_COLOR
        caption = (
            f"<b style='color: {color}'>{escape(target.split('_')[0])}</b> {name}<br><small>{escape(note)}</small>"
        )
        figures.append(f"<figure style='margin: 0'>{picture}<figcaption>{caption}</figcaption></figure>")
    style = "display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; line-height: 1.3"
    return Html(f"<div class='panels' style='{style}'>{''.join(figures)}</div>")


def draw_panel(alt: str, *shapes: str) -> str:
    """Draw a small picture of some shapes, which stretches with its place; `alt` says in words what it shows."""
    box = f"viewBox='0 0 {_WIDTH} {_HEIGHT}' preserveAspectRatio='none'"
    style = "width: 100%; height: 4.5rem; border-bottom: 1px solid var(--line, #d5dbe1)"
    return f"<svg role='img' aria-label='{escape(alt, quote=True)}' {box} style='{style}'>{''.join(shapes)}</svg>"


def draw_steps(heights: npt.NDArray, *, color: str) -> str:
    """Draw bars without gaps, (n_bars,), in [0, 1]."""
    step = _WIDTH / len(heights)
    way = "".join(f"V{_HEIGHT * (1 - height):.1f}h{step:.2f}" for height in heights)
    return f"<path d='M0 {_HEIGHT}{way}V{_HEIGHT}z' style='fill: {color}'/>"


def draw_curve(values: npt.NDArray, *, most: int = 150) -> str:
    """Draw a line through values, (n_values,), in [0, 1], at equal distances; `most` points are enough."""
    places = np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))
    points = (f"{_WIDTH * place / max(len(values) - 1, 1):.1f} {_HEIGHT * (1 - values[place]):.1f}" for place in places)
    style = f"fill: none; stroke: {_CURVE}; stroke-width: 1.5; vector-effect: non-scaling-stroke"
    return f"<path d='M{'L'.join(points)}' style='{style}'/>"


def draw_spans(marked: Sequence[bool] | npt.NDArray, *, color: str) -> str:
    """Shade where values at equal distances are marked, (n_values,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    scale = _WIDTH / max(len(marked), 1)
    return "".join(
        f"<rect x='{start * scale:.2f}' y='0' width='{(end - start) * scale:.2f}' height='{_HEIGHT}' "
        f"style='fill: {color}; opacity: 0.3'/>"
        for start, end in edges.reshape(-1, 2)
    )


def show_distributions(predicted: pd.DataFrame, ratings: Mapping[str, Mapping[str, float]]) -> Html:
    """Show how predictions spread beside the ratings of the same rows, each as high as its own highest bar.

    Args:
        predicted: In [0, 1], a column for each target.
        ratings: By target, the share of rows by rating; grey bars.
    """
    panels = {}
    for target in TARGETS:
        counts = np.histogram(predicted[target], bins=_BINS, range=(0, 1))[0]
        true = np.zeros(_BINS)
        for rating, share in ratings.get(target, {}).items():
            true[min(int(float(rating) * _BINS), _BINS - 1)] += share
        color = QUESTION_COLOR if target in QUESTION_TARGETS else ANSWER_COLOR
        shapes = [
            draw_steps(each / max(each.max(), 1e-12), color=tint) for each, tint in ((true, _TRUTH), (counts, color))
        ]
        note = f"predicted {predicted[target].mean():.2f} ± {predicted[target].std():.2f}"
        if target in ratings:
            mean = sum(float(rating) * share for rating, share in ratings[target].items())
            note = f"rated {mean:.2f} on average, {note}"
        panels[target] = (draw_panel(f"Distribution of {target.replace('_', ' ')}: {note}", *shapes), note)
    return show_panels(panels)


def show_ties(before: pd.DataFrame, after: pd.DataFrame) -> Html:
    """Show predictions, in [0, 1], a column for each target, in their order; shade those that share one when tied."""
    panels = {}
    for target in TARGETS:
        order = np.argsort(before[target].to_numpy(), kind="stable")
        values, tied = before[target].to_numpy()[order], after[target].duplicated(keep=False).to_numpy()[order]
        note = f"{tied.mean():.0%} of rows tied"
        alt = f"Predictions of {target.replace('_', ' ')} in their order: {note}"
        panels[target] = (draw_panel(alt, draw_spans(tied, color=ANSWER_COLOR), draw_curve(values)), note)
    return show_panels(panels)
