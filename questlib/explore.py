"""Pictures of the tables before anything is trained on them, one function each."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from questlib.schema import ANSWER_TARGETS, QUESTION, QUESTION_TARGETS, TARGETS

_BLUE, _ORANGE, _GREY = "#2b6a99", "#d9822b", "#6b7280"
_BANDS = ("#16425b", "#2b6a99", "#7fb0d3", "#d5dbe1")  # rows that fit the first limit, the second, ... none
_MOST_HOSTS = 25


def plot_nulls(nulls: pd.DataFrame) -> Figure:
    """Show how many nulls each input column of the two tables held.

    Args:
        nulls: Columns `column`, `train` and `test`, one row per input column, as `questlib.data.read_tables` gives it.

    Returns:
        One pair of bars per column.
    """
    figure = _new_figure(width=8, height=1.2 + 0.42 * len(nulls))
    axes = _clean(figure.subplots())
    place = np.arange(len(nulls))
    for name, color, shift in (("train", _BLUE, -0.19), ("test", _ORANGE, 0.19)):
        bars = axes.barh(place + shift, nulls[name], height=0.36, color=color, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", padding=4, fontsize=8, color=_GREY)
    total = int(nulls[["train", "test"]].to_numpy().sum())
    _label_rows(axes, nulls["column"].tolist())
    axes.set_xlim(0, max(1.0, 1.12 * nulls[["train", "test"]].to_numpy().max()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("nulls (rows)")
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(f"{total:,} nulls in the input columns" if total else "No nulls in any input column", loc="left")
    return figure


def plot_memory(frame: pd.DataFrame) -> Figure:
    """Show the memory each column takes; the targets, all alike, are one bar.

    Args:
        frame: A table, with targets or without.

    Returns:
        One bar per column, the largest on top.
    """
    used = frame.memory_usage(index=False, deep=True)
    targets = [name for name in TARGETS if name in frame.columns]
    others = used.drop(targets)
    if targets:
        others[f"{len(targets)} targets together"] = used[targets].sum()
    others = others.sort_values(ascending=False)
    unit, size = ("MB", 1e6) if others.sum() >= 1e6 else ("kB", 1e3)
    figure = _new_figure(width=8, height=1.2 + 0.3 * len(others))
    axes = _clean(figure.subplots())
    bars = axes.barh(np.arange(len(others)), others / size, height=0.7, color=_BLUE)
    axes.bar_label(bars, fmt="{:,.2f}", padding=4, fontsize=8, color=_GREY)
    _label_rows(axes, others.index.tolist())
    axes.margins(x=0.1)
    axes.set_xlabel(f"memory ({unit})")
    axes.set_title(f"{others.sum() / size:,.1f} {unit} in memory for {len(frame):,} rows", loc="left")
    return figure


def plot_categories_and_hosts(train: pd.DataFrame, test: pd.DataFrame) -> Figure:
    """Show where the rows come from, as a share of each table.

    Args:
        train: A table with `category` and `host`.
        test: The other table; may hold hosts that train does not.

    Returns:
        Categories on the left, hosts on the right; hosts beyond the largest are one pair of bars.
    """
    figure = _new_figure(width=11, height=7.5)
    category_axes, host_axes = figure.subplots(1, 2, width_ratios=(1, 1.6))
    for axes, column in ((category_axes, "category"), (host_axes, "host")):
        _clean(axes)
        shares = pd.DataFrame({"train": _shares(train[column]), "test": _shares(test[column])}).fillna(0.0)
        shares = shares.sort_values(["train", "test"], ascending=False)
        if len(shares) > _MOST_HOSTS + 1:
            rest = shares.iloc[_MOST_HOSTS:]
            shares = pd.concat([shares.iloc[:_MOST_HOSTS], rest.sum().to_frame(f"{len(rest)} others").T])
        place = np.arange(len(shares))
        axes.barh(place - 0.2, shares["train"], height=0.38, color=_BLUE, label=f"train, {len(train):,} rows")
        axes.barh(place + 0.2, shares["test"], height=0.38, color=_ORANGE, label=f"test, {len(test):,} rows")
        _label_rows(axes, [str(name) for name in shares.index])
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.set_xlabel("share of the table's rows")
    n_new = len(set(test["host"]) - set(train["host"]))
    category_axes.set_title(f"{train['category'].nunique()} categories", loc="left")
    figure.legend(*host_axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    host_axes.set_title(f"{train['host'].nunique()} hosts in train, {n_new} more in test only", loc="left")
    return figure


def plot_repeats(frame: pd.DataFrame) -> Figure:
    """Show how often a question has several answers, and how often somebody asks again.

    Args:
        frame: A table with `url` and `question_user_page`.

    Returns:
        Rows per question on the left, questions per asker on the right, both counts on a logarithmic axis.
    """
    questions = frame.drop_duplicates(QUESTION)
    rows_of_question = frame[QUESTION].value_counts()
    questions_of_asker = questions["question_user_page"].value_counts()
    figure = _new_figure(width=10, height=4)
    left, right = figure.subplots(1, 2)
    for axes, repeats, color in ((left, rows_of_question, _BLUE), (right, questions_of_asker, _ORANGE)):
        counts = repeats.value_counts().sort_index()
        _clean(axes, grid="y")
        bars = axes.bar(counts.index, counts, color=color, width=0.75)
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8, color=_GREY)
        axes.set_yscale("log")
        axes.set_ylim(0.7, 3 * counts.max())
        axes.set_xticks(np.arange(1, counts.index.max() + 1, max(1, counts.index.max() // 12)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.set(xlabel="rows (answers) of a question", ylabel="questions")
    right.set(xlabel="questions of an asker", ylabel="askers")
    several, again = (rows_of_question > 1).mean(), (questions_of_asker > 1).mean()
    left.set_title(f"{len(questions):,} questions, {several:.0%} with several answers", loc="left")
    right.set_title(f"{len(questions_of_asker):,} askers, {again:.0%} asked more than once", loc="left")
    return figure


def plot_lengths(lengths: npt.NDArray, *, coverage: Mapping[int, float]) -> Figure:
    """Show how long the texts are and how much of them a body can read.

    Args:
        lengths: Tokens of title, body and answer together, shape (n_rows,).
        coverage: The share of rows that fit each limit, as `questlib.text.token_coverage` gives it.

    Returns:
        A histogram coloured by the limits, and below it the share of rows that fit any length.
    """
    limits = sorted(coverage)
    edges = np.exp2(np.arange(np.floor(np.log2(lengths.min())), np.log2(lengths.max()) + 0.126, 1 / 8))
    figure = _new_figure(width=9, height=6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    share, _ = np.histogram(lengths, bins=edges)
    # An edge can differ from its limit in the last bit.
    bands = np.minimum(np.searchsorted(limits, edges[:-1] + 1e-6, side="right"), len(_BANDS) - 1)
    colors = [_BANDS[band] for band in bands]
    upper.bar(edges[:-1], share / len(lengths), width=np.diff(edges), align="edge", color=colors, edgecolor="white")
    upper.set_ylabel("share of rows")
    ordered = np.sort(lengths)
    lower.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", color=_BLUE)
    lower.set_ylabel("share of rows that fit")
    for limit in limits:
        for axes in (upper, lower):
            axes.axvline(limit, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        lower.plot(limit, coverage[limit], "o", color=_ORANGE, zorder=3)
        text = f"{coverage[limit]:.1%} fit {limit}"
        lower.annotate(
            text, (limit, coverage[limit]), fontsize=9, xytext=(-8, 6), textcoords="offset points", ha="right"
        )
    for axes in (upper, lower):
        _clean(axes, grid="y")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    lower.set_xscale("log", base=2)
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lower.set(xlabel="tokens of title, body and answer together (logarithmic)", ylim=(0, 1.04))
    upper.set_title(f"Half of the {len(lengths):,} rows are longer than {np.median(lengths):,.0f} tokens", loc="left")
    return figure


def plot_targets(frame: pd.DataFrame) -> Figure:
    """Show which ratings each target takes.

    Args:
        frame: A table with the 30 targets.

    Returns:
        Thirty small bar charts over one pair of axes; a triangle marks the mean.
    """
    figure = _new_figure(width=12.5, height=10)
    grid = figure.subplots(5, 6, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, TARGETS, strict=True):
        _clean(axes, grid="y")
        color = _BLUE if name in QUESTION_TARGETS else _ORANGE
        shares = _shares(frame[name])
        mean = float(frame[name].mean())
        axes.bar(shares.index, shares, width=0.035, color=color)
        axes.plot(mean, -0.03, "^", color="black", markersize=5, clip_on=False)
        axes.set_title(f"{_short(name)}\nmean {mean:.3f}", fontsize=8)
    axes = grid[0, 0]
    axes.set(xlim=(-0.05, 1.05), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    figure.supxlabel("rating", fontsize=10)
    figure.supylabel("share of rows", fontsize=10)
    title = f"Ratings of {len(frame):,} rows: {len(QUESTION_TARGETS)} targets of the question (blue), "
    figure.suptitle(f"{title}{len(ANSWER_TARGETS)} of the answer (orange), mean (triangle)", fontsize=12)
    return figure


def plot_target_correlations(frame: pd.DataFrame) -> Figure:
    """Show which targets rise and fall together.

    Args:
        frame: A table with the 30 targets.

    Returns:
        A heat map of Spearman correlations, the stronger ones written out; a constant target is grey.
    """
    correlations = frame[list(TARGETS)].corr(method="spearman").to_numpy(copy=True)  # (n_targets, n_targets)
    np.fill_diagonal(correlations, np.nan)
    figure = _new_figure(width=12, height=10.5)
    axes = figure.subplots()
    axes.set_facecolor("#eceff1")
    image = axes.imshow(correlations, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.argwhere(np.abs(correlations) >= 0.2):
        value = correlations[row, column]
        color = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    border = len(QUESTION_TARGETS) - 0.5
    axes.axhline(border, color="black", linewidth=1)
    axes.axvline(border, color="black", linewidth=1)
    names = [name.replace("_", " ") for name in TARGETS]
    axes.set_xticks(np.arange(len(TARGETS)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(np.arange(len(TARGETS)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.6, label="Spearman's rank correlation")
    axes.set_title("Targets that rise and fall together (numbers in hundredths, from 20 on)", loc="left")
    return figure


def _new_figure(*, width: float, height: float) -> Figure:
    # Not pyplot: it keeps every figure until it is closed by hand. Constrained layout never cuts a label off.
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _clean(axes: Axes, *, grid: Literal["x", "y"] = "x") -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _label_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()


def _shares(values: pd.Series) -> pd.Series:
    return values.value_counts(normalize=True)


def _short(name: str) -> str:
    return name.removeprefix("question_").removeprefix("answer_").replace("_", " ")
