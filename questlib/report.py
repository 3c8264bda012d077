"""Pictures and tables of a run, drawn from its run folder alone."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from questlib.artifacts import BLENDED, CONFIG, ENSEMBLE, HISTORY, OUT_OF_FOLD, SCORES, TIMELINE, read_json
from questlib.ensemble import Ensemble
from questlib.schema import ANSWER_TARGETS, ID, QUESTION_TARGETS, RARE_TARGET, TARGETS

_QUESTION_COLOUR, _ANSWER_COLOUR, _TRUTH_COLOUR = "#2f6db3", "#d9822b", "#9aa4b2"
_PACKAGES = (
    "questlib", "torch", "transformers", "accelerate", "datasets", "pandas", "numpy", "scikit-learn", "scipy",
    "bitsandbytes",
)  # fmt: skip


def plot_learning_curve(run_folder: Path) -> Figure:
    """Draw loss and Spearman over the steps, stages side by side, one line per fold.

    Args:
        run_folder: Holds the history.

    Returns:
        A figure.
    """
    history = pd.DataFrame(read_json(run_folder / HISTORY))
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for fold, records in history.groupby("fold"):
        for column, style in (("loss", "-"), ("eval_loss", "o--")):
            if column in records:
                known = records.dropna(subset=[column])
                label = {"loss": "training", "eval_loss": "held-out questions"}[column]
                left.plot(known["step"], known[column], style, ms=3, color=f"C{fold}", label=f"{label}, fold {fold}")
        if "eval_spearman" in records:
            known = records.dropna(subset=["eval_spearman"])
            right.plot(known["step"], known["eval_spearman"], "o-", ms=3, color=f"C{fold}", label=f"fold {fold}")
            best = known.loc[known["eval_spearman"].idxmax()]
            right.plot(best["step"], best["eval_spearman"], "*", ms=13, color=f"C{fold}")
        _draw_stage_borders([axes for axes in (left, right) if axes.lines], records)
    if not right.lines:
        right.text(0.5, 0.5, "no questions were held out", ha="center", transform=right.transAxes)
    left.set_title("Loss", pad=18)  # room for the stages' names below it
    left.set(xlabel="step", ylabel="binary cross-entropy")
    right.set_title("Mean Spearman on held-out questions", pad=18)
    right.set(xlabel="step (star: the weights that were kept)")
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


def _draw_stage_borders(panels: list[Axes], records: pd.DataFrame) -> None:
    last_steps = records.groupby("number")["step"].max()
    names = records.groupby("number")["stage"].first()
    for axes in panels:
        for number, end in last_steps.items():
            start = last_steps.get(number - 1, 0)
            axes.axvline(end, color="#ccd2da", lw=1, zorder=0)
            axes.text((start + end) / 2, 1.0, names[number], ha="center", va="bottom", fontsize=7, color="#667",
                      transform=axes.get_xaxis_transform())  # fmt: skip


def plot_spearman(run_folder: Path) -> Figure:
    """Draw each target's Spearman against the mean of its group.

    Args:
        run_folder: Holds the scores.

    Returns:
        A figure.
    """
    by_target = read_json(run_folder / SCORES)["raw"]["one_row_per_question"]["by_target"]
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots()
    groups = ((QUESTION_TARGETS, _QUESTION_COLOUR, "question"), (ANSWER_TARGETS, _ANSWER_COLOUR, "answer"))
    names: list[str] = []
    for targets, colour, label in groups:
        known = sorted((by_target[name], name) for name in targets if by_target[name] is not None)
        places = np.arange(len(known)) + len(names)
        values = [value for value, _ in known]
        axes.barh(places, values, color=colour, height=0.7)
        axes.vlines(np.mean(values), places[0] - 0.5, places[-1] + 0.5, color="#333", ls="--", lw=1)
        axes.text(np.mean(values), places[-1] + 0.55, f"{label} mean {np.mean(values):.3f}", ha="center", fontsize=9)
        for place, value in zip(places, values, strict=True):
            axes.text(max(value, 0) + 0.005, place, f"{value:.3f}", va="center", fontsize=8)
        names += [name for _, name in known] + [""]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set(title="Spearman per target, out of fold, one row per question", xlabel="Spearman")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_distributions(run_folder: Path, train: pd.DataFrame) -> Figure:
    """Draw how the predictions of each target spread beside the ratings of the same rows.

    Args:
        run_folder: Holds out-of-fold predictions.
        train: The training table.

    Returns:
        A figure of 30 small pictures.
    """
    predicted = pd.read_csv(run_folder / OUT_OF_FOLD).set_index(ID)
    truth = train.set_index(ID).loc[predicted.index]
    figure = Figure(figsize=(12, 11), layout="constrained")
    grid = figure.subplots(6, 5, sharex=True)
    bins = np.linspace(0, 1, 31)
    for axes, name in zip(grid.flat, TARGETS, strict=True):
        colour = _QUESTION_COLOUR if name in QUESTION_TARGETS else _ANSWER_COLOUR
        for values, tint, alpha in ((truth[name], _TRUTH_COLOUR, 0.6), (predicted[name], colour, 0.75)):
            axes.hist(values, bins=bins, weights=np.full(len(values), 1 / len(values)), color=tint, alpha=alpha)
        axes.set_title(_shorten(name), fontsize=8)
        axes.set_yticks([])
    figure.suptitle("Share of rows by rating: true (grey) and predicted out of fold (question blue, answer orange)")
    return figure


def plot_ties(run_folder: Path) -> Figure:
    """Draw the blended predictions of each target in their order, and where they are tied.

    Args:
        run_folder: Holds the ensemble and its blended out-of-fold predictions.

    Returns:
        A figure of 30 small pictures.
    """
    blended = pd.read_csv(run_folder / BLENDED)[list(TARGETS)].to_numpy()
    ties = Ensemble.from_json((run_folder / ENSEMBLE).read_text(encoding="utf-8")).ties_
    tied = ties.transform(blended)
    share = np.linspace(0, 1, len(blended))
    figure = Figure(figsize=(12, 11), layout="constrained")
    grid = figure.subplots(6, 5, sharex=True)
    for axes, name, before, after in zip(grid.flat, TARGETS, blended.T, tied.T, strict=True):
        order = np.argsort(before, kind="stable")
        moved = after[order] != before[order]
        axes.plot(share, before[order], color=_TRUTH_COLOUR, lw=1.5)
        axes.fill_between(share, 0, 1, where=moved, color=_ANSWER_COLOUR, alpha=0.3, lw=0)
        axes.set(ylim=(0, 1), xlim=(0, 1))
        axes.set_title(f"{_shorten(name)}: {moved.mean():.0%} tied", fontsize=8)
    figure.suptitle("Blended out-of-fold predictions by share of rows, lowest first; orange rows share one value")
    return figure


def _shorten(target: str) -> str:
    return target.replace("question_", "q: ").replace("answer_", "a: ")


def plot_timeline(run_folder: Path) -> Figure:
    """Draw what each step of the flow took.

    Args:
        run_folder: Holds the timeline.

    Returns:
        A figure.
    """
    steps = pd.DataFrame(read_json(run_folder / TIMELINE)["steps"])[::-1]
    figure = Figure(figsize=(10, 0.9 + 0.35 * len(steps)), layout="constrained")
    axes = figure.subplots()
    axes.barh(steps["step"], steps["seconds"], left=steps["start"], color=_QUESTION_COLOUR, height=0.6)
    for row in steps.itertuples():
        axes.text(row.start + row.seconds, row.step, f" {row.seconds:.1f} s", va="center", fontsize=8)
    axes.set(title="Time per step of the flow", xlabel="seconds since the start")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def tabulate_coverage(coverage: Mapping[int, float]) -> pd.DataFrame:
    """Lay out the share of rows whose title, body and answer fit a number of tokens.

    Args:
        coverage: What `questlib.text.token_coverage` returns.

    Returns:
        One row per number of tokens.
    """
    return pd.DataFrame({"tokens": list(coverage), "rows that fit": [f"{share:.2%}" for share in coverage.values()]})


def summarize_scores(run_folder: Path) -> pd.DataFrame:
    """Lay the scores of a run out as a table.

    Args:
        run_folder: Holds the scores.

    Returns:
        One row per model, protocol and fold, with the mean of 30 targets and of the 29 without the rare one.
    """
    scores = read_json(run_folder / SCORES)
    raw, nested = scores["raw"], scores["nested"]
    rows = {
        "transformer, one row per question": raw["one_row_per_question"],
        "transformer, all rows": raw["all_rows"],
    }
    rows |= {f"transformer, one row per question, fold {fold['fold']}": fold for fold in raw["by_fold"]}
    rows |= {f"{name}, {nested['protocol']}": score for name, score in nested["scores"].items()}
    warning = "LEAKS: rows were split at random" if scores["leaks"] else ""
    return pd.DataFrame(
        [
            {
                "protocol": f"{name} {warning}".strip(),
                "rows": values["n_rows"],
                "mean of 30": values["mean"],
                f"without {RARE_TARGET}": values["mean_without_rare"],
            }
            for name, values in rows.items()
        ]
    ).round(4)


def describe_machine() -> pd.DataFrame:
    """Say what the run ran on: versions, device and cores."""
    facts = {"python": platform.python_version(), "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        facts[f"GPU {index}"] = torch.cuda.get_device_name(index)
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return pd.DataFrame(facts.items(), columns=["what", "version"])


def describe_parameters(run_folder: Path) -> pd.DataFrame:
    """Lay out what the run was asked to do.

    Args:
        run_folder: Holds the config.

    Returns:
        One row per parameter.
    """
    rows = []
    for group, content in read_json(run_folder / CONFIG).items():
        if isinstance(content, dict):
            rows += [(f"{group}.{name}", value) for name, value in content.items()]
        elif isinstance(content, list):
            rows += [(f"{group}[{number}]", value) for number, value in enumerate(content)]
        else:
            rows.append((group, content))
    return pd.DataFrame(rows, columns=["parameter", "value"])
