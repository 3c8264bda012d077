"""Pictures and tables of a run, drawn from its run folder alone."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from questlib.charts import BLUE, ORANGE, PALE, clean, color_of, new_figure, new_grid, shorten
from questlib.data import read_table
from questlib.ensemble import Ensemble
from questlib.run_folder import BLENDED, ENSEMBLE, HISTORY, RECIPE, SCORES, TIMELINE, fold_folder, read_json
from questlib.schema import ANSWER_TARGETS, ID, RARE_TARGET, TARGETS

_PACKAGES = "questlib torch transformers accelerate datasets pandas numpy scikit-learn scipy bitsandbytes".split()


def plot_learning_curve(run_folder: Path) -> Figure:
    """Draw loss and Spearman over the steps, a row per member that was trained in steps and a line per fold."""
    histories = {
        member: {fold: pd.DataFrame(read_json(fold_folder(run_folder, member, fold) / HISTORY)) for fold in folds}
        for member, folds in read_json(run_folder / ENSEMBLE)["folds"].items()
    }
    histories = {name: by_fold for name, by_fold in histories.items() if all(map(len, by_fold.values()))}
    figure = new_figure(width=11, height=4 * max(1, len(histories)))
    panels = figure.subplots(max(1, len(histories)), 2, squeeze=False)
    for (left, right), (member, by_fold) in zip(panels, histories.items(), strict=False):
        for fold, records in by_fold.items():
            _draw_history(left, right, records, fold=fold)
        left.set_title(f"{member}: loss", pad=18)  # room for the stages' names below it
        right.set_title(f"{member}: mean Spearman on held-out questions", pad=18)
    for left, right in panels:
        if not right.lines:
            right.text(0.5, 0.5, "no questions were held out", ha="center", transform=right.transAxes)
        left.set(xlabel="step", ylabel="loss")
        right.set(xlabel="step (star: the weights that were kept)")
    return figure


def _draw_history(left: Axes, right: Axes, records: pd.DataFrame, *, fold: int) -> None:
    for axes, column, style, label in (
        (left, "loss", "-", f"training, fold {fold}"),
        (left, "eval_loss", "o--", f"held-out questions, fold {fold}"),
        (right, "eval_spearman", "o-", f"fold {fold}"),
    ):
        if column in records:
            known = records.dropna(subset=column)
            axes.plot(known["step"], known[column], style, ms=3, color=f"C{fold}", label=label)
            axes.legend(fontsize=8)
    if "eval_spearman" in records:
        best = records.loc[records["eval_spearman"].idxmax()]
        right.plot(best["step"], best["eval_spearman"], "*", ms=13, color=f"C{fold}")
    start = 0
    for end, name in records.groupby("number").agg({"step": "max", "stage": "first"}).itertuples(index=False):
        middle, start = (start + end) / 2, end
        for axes in (axes for axes in (left, right) if axes.lines):
            axes.axvline(end, color="#ccd2da", lw=1, zorder=0)
            axes.annotate(name, (middle, 1.01), xycoords=("data", "axes fraction"), ha="center", size=7, color="#667")


def plot_spearman(run_folder: Path) -> Figure:
    """Draw each target's Spearman as submitted, against the mean of its group, and each member's own as a dot."""
    scores = read_json(run_folder / SCORES)["nested"]["scores"]
    table = pd.DataFrame({name: score["by_target"] for name, score in scores.items()}, dtype=float)
    table = table.dropna(subset="tied").sort_values("tied", kind="stable")
    table = table.sort_index(key=lambda names: names.isin(ANSWER_TARGETS), kind="stable")
    places = pd.Series(np.arange(len(table)) + table.index.isin(ANSWER_TARGETS), index=table.index)  # one left empty
    figure = new_figure(width=10, height=8)
    axes = clean(figure.subplots())
    axes.barh(places, table["tied"], color=table.index.map(color_of), height=0.7, alpha=0.4)
    for place, value in zip(places, table["tied"], strict=True):
        axes.text(max(value, 0) + 0.005, place, f"{value:.3f}", va="center", fontsize=8)
    for group, tied in table["tied"].groupby(table.index.str.split("_").str[0]):
        first, last = places[tied.index[[0, -1]]]
        axes.vlines(tied.mean(), first - 0.5, last + 0.5, color="#333", ls="--", lw=1)
        axes.text(tied.mean(), last + 0.55, f"{group} mean {tied.mean():.3f}", ha="center", fontsize=9)
    for member in table.columns.difference(["blended", "tied"], sort=False):
        axes.plot(table[member], places, ".", ms=6, label=f"{member} alone")
    axes.legend(fontsize=8, loc="lower right")
    axes.set_yticks(places, table.index, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set(title="Spearman per target as submitted, on questions not fitted on", xlabel="Spearman")
    return figure


def plot_distributions(run_folder: Path, train: pd.DataFrame) -> Figure:
    """Draw how the blended out-of-fold predictions of each target spread beside the ratings of the same rows."""
    predicted = read_table(run_folder / BLENDED, columns=(ID, *TARGETS)).set_index(ID)
    truth = train.set_index(train[ID].astype(str)).loc[predicted.index]
    weights = np.full(len(truth), 1 / len(truth))
    title = "Share of rows by rating: true (grey) and predicted out of fold (question blue, answer orange)"
    figure, grid = new_grid(title, rows=6, columns=5)
    for name, axes in grid.items():
        for values, tint, alpha in ((truth[name], PALE, 0.6), (predicted[name], color_of(name), 0.75)):
            axes.hist(values, bins=30, range=(0, 1), weights=weights, color=tint, alpha=alpha)
        axes.set_title(shorten(name), fontsize=8)
        axes.set_yticks([])
    return figure


def plot_ties(run_folder: Path) -> Figure:
    """Draw the blended out-of-fold predictions of each target in their order, and where they are tied."""
    blended = read_table(run_folder / BLENDED, columns=(ID, *TARGETS))[list(TARGETS)].to_numpy()
    tied = Ensemble.from_json((run_folder / ENSEMBLE).read_text(encoding="utf-8")).ties_.transform(blended)
    share = np.linspace(0, 1, len(blended))
    title = "Blended out-of-fold predictions by share of rows, lowest first; orange rows share one value"
    figure, grid = new_grid(title, rows=6, columns=5)
    for (name, axes), before, after in zip(grid.items(), blended.T, tied.T, strict=True):
        order = np.argsort(before, kind="stable")
        moved = (after != before)[order]
        axes.plot(share, before[order], color=PALE, lw=1.5)
        axes.fill_between(share, 0, 1, where=moved, color=ORANGE, alpha=0.3, lw=0)
        axes.set(ylim=(0, 1), xlim=(0, 1))
        axes.set_title(f"{shorten(name)}: {moved.mean():.0%} tied", fontsize=8)
    return figure


def summarize_course(run_folder: Path) -> pd.DataFrame:
    """Say what was planned and what did not go as asked: shortened, left out, resumed, tried again; by session."""
    timeline = read_json(run_folder / TIMELINE)
    lines: list[tuple[int, float, str]] = []
    for number, session in enumerate([*timeline.get("earlier", []), timeline]):
        limit = session.get("limit_seconds")
        lines.append((number + 1, 0.0, f"time limit {limit / 60:g} min" if limit else "no time limit"))
        lines += [(number + 1, each["seconds"] / 60, each["plan"]) for each in session["plan"]]
        lines += [(number + 1, each["seconds"] / 60, each["note"]) for each in session["notes"]]
        lines.append((number + 1, session["seconds"] / 60, f"{len(session['steps'])} steps are done"))
    table = pd.DataFrame(lines, columns=["session", "minute", "what"])
    return table.sort_values(["session", "minute"], kind="stable").round({"minute": 1}).reset_index(drop=True)


def plot_timeline(run_folder: Path) -> Figure:
    """Draw what each step of the flow took, in the last session."""
    steps = pd.DataFrame(read_json(run_folder / TIMELINE)["steps"])[::-1]
    figure = new_figure(width=10, height=0.9 + 0.35 * len(steps))
    axes = clean(figure.subplots())
    bars = axes.barh(steps["step"], steps["seconds"], left=steps["start"], color=BLUE, height=0.6)
    axes.bar_label(bars, steps["seconds"].map("{:.1f} s".format), padding=3, fontsize=8)
    axes.set(title="Time per step of the flow", xlabel="seconds since the start", xmargin=0.1)
    return figure


def summarize_scores(run_folder: Path) -> pd.DataFrame:
    """Lay out a row per member, protocol and fold, with the mean of 30 targets and of the 29 without the rare one."""
    scores = read_json(run_folder / SCORES)
    nested, rows = scores["nested"], {}
    for member, raw in scores["raw"].items():
        rows[f"{member}, one row per question"] = raw["one_row_per_question"]
        rows[f"{member}, all rows"] = raw["all_rows"]
        rows |= {f"{member}, one row per question, fold {fold['fold']}": fold for fold in raw["by_fold"]}
    rows |= {f"{name}, {nested['protocol']}": score for name, score in nested["scores"].items()}
    warning = " LEAKS: rows were split at random" if scores["leaks"] else ""
    table = pd.DataFrame(rows.values(), [name + warning for name in rows], ["n_rows", "mean", "mean_without_rare"])
    table.columns = ["rows", "mean of 30", f"without {RARE_TARGET}"]
    return table.round(4).rename_axis("protocol").reset_index()


def describe_machine() -> pd.DataFrame:
    """Say what the run ran on: versions, device and cores."""
    facts = {"python": platform.python_version(), "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    facts |= {f"GPU {index}": torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return pd.DataFrame(facts.items(), columns=["what", "version"])


def describe_parameters(run_folder: Path) -> pd.DataFrame:
    """Lay out what the run was asked to do: a row per parameter, a column per member that has it, and one for all."""
    recipe = read_json(run_folder / RECIPE)
    columns = {member["name"]: dict(_flatten(member, ())) for member in recipe.pop("members")}
    return pd.DataFrame(columns | {"all members": recipe}).fillna("").rename_axis("parameter").reset_index()


def _flatten(content: object, way: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _flatten(value, (*way, name))
    elif isinstance(content, list) and any(isinstance(each, dict) for each in content):
        for number, each in enumerate(content):
            yield from _flatten(each, (*way, str(number)))
    else:
        yield ".".join(way), content
