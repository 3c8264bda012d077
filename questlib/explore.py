"""Pictures of the tables before anything is trained on them, one function each."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from questlib.charts import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    clean,
    color_of,
    count_shares,
    draw_rows,
    new_figure,
    new_grid,
    shorten,
)
from questlib.data import question_of
from questlib.pretrained import find_encoder
from questlib.schema import ANSWER_TARGETS, QUESTION_TARGETS, TARGETS
from questlib.text import joint_lengths, load_tokenizer, token_coverage

_BANDS = ("#16425b", BLUE, "#7fb0d3", "#d5dbe1")  # rows that fit the first limit, the second, ... none
_MOST_HOSTS = 25


def plot_nulls(nulls: pd.DataFrame) -> Picture:
    """Show how many nulls each `column` held in `train` and `test`, as `questlib.data.read_tables` counts them."""
    counts = nulls.set_index("column")[["train", "test"]]
    total = counts.to_numpy().sum()
    if not total:
        figure = new_figure(width=8, height=0.4)
        figure.subplots().set_axis_off()
        figure.axes[0].set_title("No nulls in any input column", loc="left")
        return figure
    figure = new_figure(width=8, height=1.2 + 0.42 * len(counts))
    axes = draw_rows(figure.subplots(), counts, values="{:,.0f}")
    axes.set(xlabel="nulls (rows)", xlim=(0, max(1.0, 1.12 * counts.to_numpy().max())))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(f"{total:,} nulls in the input columns", loc="left")
    return figure


def plot_memory(frame: pd.DataFrame) -> Picture:
    """Show the memory each column takes, the largest on top; the targets, all alike, are one bar."""
    together = dict.fromkeys(TARGETS, f"{frame.columns.isin(TARGETS).sum()} targets together")
    used = frame.memory_usage(index=False, deep=True).rename(together).groupby(level=0).sum()
    unit, size = ("MB", 1e6) if used.sum() >= 1e6 else ("kB", 1e3)
    figure = new_figure(width=8, height=1.2 + 0.3 * len(used))
    axes = draw_rows(figure.subplots(), used.sort_values(ascending=False).to_frame() / size, values="{:,.2f}")
    axes.set(xlabel=f"memory ({unit})", xmargin=0.1)
    axes.set_title(f"{used.sum() / size:,.1f} {unit} in memory for {len(frame):,} rows", loc="left")
    return figure


def plot_categories_and_hosts(train: pd.DataFrame, test: pd.DataFrame) -> Picture:
    """Show which share of each table's rows a category or host has; hosts beyond the largest are one pair of bars."""
    tables = {f"train, {len(train):,} rows": train, f"test, {len(test):,} rows": test}
    figure = new_figure(width=11, height=7.5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    for axes, column in ((left, "category"), (right, "host")):
        shares = pd.DataFrame({name: count_shares(table[column]) for name, table in tables.items()}).fillna(0.0)
        shares = shares.sort_values(list(tables), ascending=False)
        if len(shares) > _MOST_HOSTS + 1:
            rest = shares.iloc[_MOST_HOSTS:]
            shares = pd.concat([shares.iloc[:_MOST_HOSTS], rest.sum().to_frame(f"{len(rest)} others").T])
        draw_rows(axes, shares).set_xlabel("share of the table's rows")
        axes.xaxis.set_major_formatter("{x:.0%}")
    left.set_title(f"{train['category'].nunique()} categories", loc="left")
    n_new = len(set(test["host"]) - set(train["host"]))
    right.set_title(f"{train['host'].nunique()} hosts in train, {n_new} more in test only", loc="left")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_repeats(frame: pd.DataFrame) -> Picture:
    """Show how often a question has several answers, and how often a `question_user_page`, if told, asks again."""
    questions = question_of(frame)
    rows_of_question = pd.Series(questions).value_counts()
    asker = frame.get("question_user_page", pd.Series(dtype=object))
    questions_of_asker = asker[~pd.Series(questions, index=frame.index).duplicated()].value_counts()
    drawn = [(rows_of_question, BLUE), (questions_of_asker, ORANGE)][: 2 if len(questions_of_asker) else 1]
    figure = new_figure(width=5 * len(drawn), height=4)
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (repeats, color) in zip(panels, drawn, strict=True):
        counts = repeats.value_counts().sort_index()
        bars = clean(axes, grid="y").bar(counts.index, counts, color=color, width=0.75)
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8, color=GREY)
        axes.set(yscale="log", ylim=(0.7, 3 * counts.max()))
        axes.set_xticks(np.arange(1, counts.index.max() + 1, max(1, counts.index.max() // 12)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
    several, again = (rows_of_question > 1).mean(), (questions_of_asker > 1).mean()
    panels[0].set(xlabel="rows (answers) of a question", ylabel="questions")
    panels[0].set_title(f"{len(rows_of_question):,} questions, {several:.0%} with several answers", loc="left")
    if len(panels) > 1:
        panels[1].set(xlabel="questions of an asker", ylabel="askers")
        panels[1].set_title(f"{len(questions_of_asker):,} askers, {again:.0%} asked more than once", loc="left")
    return figure


def plot_coverage(frame: pd.DataFrame, encoder: str) -> Picture:
    """Show how much of the text (nulls filled) an encoder can read, counted by its own tokenizer."""
    lengths = joint_lengths(frame, load_tokenizer(find_encoder(encoder)))
    figure = plot_lengths(lengths, coverage=token_coverage(lengths))
    figure.suptitle(f"As {Path(encoder).name} counts them", fontsize=10)
    return figure


def plot_lengths(lengths: npt.NDArray, *, coverage: Mapping[int, float]) -> Picture:
    """Show how long the texts are, in tokens, and which share of them fits any length; `coverage` has it by limit."""
    edges = np.exp2(np.arange(np.floor(np.log2(lengths.min())), np.log2(lengths.max()) + 0.126, 1 / 8))
    share = np.histogram(lengths, bins=edges)[0] / len(lengths)
    # An edge can differ from its limit in the last bit.
    bands = np.searchsorted(sorted(coverage), edges[:-1] + 1e-6, side="right").clip(max=len(_BANDS) - 1)
    figure = new_figure(width=9, height=6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    upper.bar(edges[:-1], share, np.diff(edges), align="edge", color=np.take(_BANDS, bands), edgecolor="white")
    lower.ecdf(lengths, color=BLUE)
    for limit, fit in coverage.items():
        lower.plot(limit, fit, "o", color=ORANGE, zorder=3)
        lower.annotate(f"{fit:.1%} fit {limit}", (limit, fit), (-8, 6), textcoords="offset points", ha="right", size=9)
    for axes, label in ((upper, "share of rows"), (lower, "share of rows that fit")):
        clean(axes, grid="y").set_ylabel(label)
        axes.yaxis.set_major_formatter("{x:.0%}")
        for limit in coverage:
            axes.axvline(limit, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    lower.set_xscale("log", base=2)
    lower.xaxis.set_major_formatter("{x:,.0f}")
    lower.set(xlabel="tokens of title, body and answer together (logarithmic)", ylim=(0, 1.04))
    upper.set_title(f"Half of the {len(lengths):,} rows are longer than {np.median(lengths):,.0f} tokens", loc="left")
    return figure


def plot_targets(frame: pd.DataFrame) -> Picture:
    """Show which ratings each target takes, in small bar charts; a triangle marks the mean."""
    title = f"Ratings of {len(frame):,} rows: {len(QUESTION_TARGETS)} targets of the question (blue), "
    title += f"{len(ANSWER_TARGETS)} of the answer (orange), mean (triangle)"
    figure, grid = new_grid(title, rows=5, columns=6, sharey=True)
    for name, axes in grid.items():
        shares = count_shares(frame[name])
        clean(axes, grid="y").bar(shares.index, shares, width=0.035, color=color_of(name))
        axes.plot(frame[name].mean(), -0.03, "^", color="black", markersize=5, clip_on=False)
        axes.set_title(f"{shorten(name)}\nmean {frame[name].mean():.3f}", fontsize=8)
    axes.set(xlim=(-0.05, 1.05), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))  # shared by all
    axes.yaxis.set_major_formatter("{x:.0%}")
    figure.supxlabel("rating", fontsize=10)
    figure.supylabel("share of rows", fontsize=10)
    return figure


def plot_target_correlations(frame: pd.DataFrame) -> Picture:
    """Show which targets rise and fall together, the stronger correlations written out; a constant target is grey."""
    correlations = frame[list(TARGETS)].corr(method="spearman").mask(np.eye(len(TARGETS)) == 1).to_numpy()  # (30, 30)
    figure = new_figure(width=12, height=10.5)
    axes = figure.subplots(subplot_kw={"facecolor": "#eceff1"})
    image = axes.imshow(correlations, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.argwhere(np.abs(correlations) >= 0.2):
        value = correlations[row, column]
        color = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    for draw_border in (axes.axhline, axes.axvline):
        draw_border(len(QUESTION_TARGETS) - 0.5, color="black", linewidth=1)
    names = [name.replace("_", " ") for name in TARGETS]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.6, label="Spearman's rank correlation")
    axes.set_title("Targets that rise and fall together (numbers in hundredths, from 20 on)", loc="left")
    return figure
