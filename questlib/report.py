"""Pictures and tables of a run, drawn from its run folder alone: for the notebook's last cells and the page."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from questlib.charts import GREY, LINE, Picture, clean, new_figure
from questlib.clock import read_sessions
from questlib.comparison import MEAN, MEAN_WITHOUT_RARE
from questlib.data import read_table
from questlib.ensemble import Ensemble
from questlib.pieces import Html, show_distributions, show_table, show_ties
from questlib.recipe import Recipe, TransformerRecipe
from questlib.resume import flatten
from questlib.run_folder import BLENDED, ENSEMBLE, HISTORY, MEMBERS, RECIPE, RUN, SCORES, read_json
from questlib.schema import ANSWER_TARGETS, ID, RARE_TARGET, TARGETS

_TIED = "submitted: blended and tied"


def plot_learning_curves(run_folder: Path) -> list[Picture]:
    """Draw loss and, where questions were held out, Spearman over the steps: for each member trained in steps."""
    pictures = []
    for member, histories in _read_histories(run_folder).items():
        figure, axes = _new_curve(f"{member}: loss", histories)
        for fold, records in histories.items():
            _draw(axes, records, "loss", "-", label=f"training, fold {fold}", color=f"C{fold % 10}")
            _draw(axes, records, "eval_loss", "o--", label=f"held out, fold {fold}", color=f"C{fold % 10}")
        axes.legend(fontsize=8, loc="upper right")
        pictures.append(figure)
        if any("eval_spearman" in records for records in histories.values()):
            figure, axes = _new_curve(f"{member}: mean Spearman on held-out questions", histories)
            for fold, records in histories.items():
                known = _draw(axes, records, "eval_spearman", "o-", label=f"fold {fold}", color=f"C{fold % 10}")
                best = known.nlargest(1, "eval_spearman") if len(known) else known
                axes.plot(best["step"], best.get("eval_spearman", []), "*", ms=13, color=f"C{fold % 10}")
            axes.set_xlabel("step (star: the weights that were kept)")
            axes.legend(fontsize=8, loc="lower right")
            pictures.append(figure)
    return pictures


def _read_histories(run_folder: Path) -> dict[str, dict[int, pd.DataFrame]]:
    # By member and fold, of what is finished: a run that failed has some too.
    recipe = read_json(run_folder / RECIPE) if (run_folder / RECIPE).is_file() else {}
    histories: dict[str, dict[int, pd.DataFrame]] = {}
    for member in (each["name"] for each in recipe.get("members", [])):
        for path in sorted((run_folder / MEMBERS / member).glob(f"fold-*/{HISTORY}")):
            if records := read_json(path, of=list):
                histories.setdefault(member, {})[int(path.parent.name.split("-")[1])] = pd.DataFrame(records)
    return histories


def _new_curve(title: str, histories: Mapping[int, pd.DataFrame]) -> tuple[Picture, Axes]:
    figure = new_figure(width=5.4, height=3.4)
    axes = clean(figure.subplots(), grid="y")
    axes.set_title(title, pad=18)  # room for the stages' names below it
    axes.set_xlabel("step")
    longest = max(histories.values(), key=lambda records: records["step"].max())
    start = 0
    for end, name in longest.groupby("number").agg({"step": "max", "stage": "first"}).itertuples(index=False):
        middle, start = (start + end) / 2, end
        axes.axvline(end, color=LINE, lw=1, zorder=0)
        axes.annotate(
            name, (middle, 1.01), xycoords=("data", "axes fraction"), ha="center", size=8, color=GREY,
            parse_math=False,  # a name is no formula, whatever is in it
        )  # fmt: skip
    return figure, axes


def _draw(axes: Axes, records: pd.DataFrame, column: str, style: str, *, label: str, color: str) -> pd.DataFrame:
    # Gives the records that have the column.
    known = records.dropna(subset=column) if column in records else records.iloc[:0]
    if len(known):
        axes.plot(known["step"], known[column], style, ms=3, color=color, label=label)
    return known


def summarize_members(run_folder: Path) -> pd.DataFrame:
    """Lay out each member as it is, out of fold: its kind and encoder, its folds, and what it scores by itself."""
    recipe, scores = Recipe.from_dict(read_json(run_folder / RECIPE)).without_paths(), read_json(run_folder / SCORES)
    used = read_json(run_folder / ENSEMBLE)["folds"]
    rows = []
    for member in recipe.members:
        raw = scores["raw"].get(member.name)
        if raw is None:  # no fold of it was finished
            continue
        score = raw["one_row_per_question"]
        rows.append({
            "member": member.name, "kind": member.kind,
            "encoder": member.encoder if isinstance(member, TransformerRecipe) else "",
            "folds": f"{len(used[member.name])} of {member.folds_to_train}" if member.name in used else "not blended",
            MEAN: score["mean"], MEAN_WITHOUT_RARE: score["mean_without_rare"], "questions": score["n_rows"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def summarize_scores(run_folder: Path) -> pd.DataFrame:
    """Lay out members, blend and ties side by side, all scored on the same questions, which nothing was fitted on."""
    scores = read_json(run_folder / SCORES)["nested"]["scores"]
    names = {"blended": "blended", "tied": _TIED}
    rows = [
        {
            "what": names.get(name, f"{name} alone"), MEAN: score["mean"],
            MEAN_WITHOUT_RARE: score["mean_without_rare"], "questions": score["n_rows"],
        }
        for name, score in scores.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def summarize_targets(run_folder: Path) -> pd.DataFrame:
    """Lay out each target's Spearman: as submitted, blended, of every member alone; in each group the best first."""
    scores = read_json(run_folder / SCORES)["nested"]["scores"]
    table = pd.DataFrame({name: score["by_target"] for name, score in scores.items()}, dtype=float).loc[list(TARGETS)]
    table = table.rename(columns={"tied": "submitted"}).sort_values("submitted", ascending=False, kind="stable")
    table = table.sort_index(key=lambda names: names.isin(ANSWER_TARGETS), kind="stable")
    first = ["submitted", "blended"]  # on a narrow screen the others are scrolled to
    return table[[*first, *table.columns.drop(first)]].rename_axis("target").reset_index()


def describe_protocol(run_folder: Path) -> str:
    """Say in words how the scores that stand side by side were made; loudly where they leak."""
    scores = read_json(run_folder / SCORES)
    warning = "LEAKS: rows were split at random, and every score reads too high. " if scores["leaks"] else ""
    rare = f"The mean of 29 is without {RARE_TARGET}, which is positive in too few rows to tell."
    return f"{warning}Mean Spearman {scores['protocol']}. Blend and ties are {scores['nested']['protocol']}. {rare}"


def show_scores(run_folder: Path) -> Html:
    """Show the scores side by side, and how they were made."""
    table = show_table(summarize_scores(run_folder), bars=[MEAN, MEAN_WITHOUT_RARE])
    return Html(f"{table}<p>{describe_protocol(run_folder)}</p>")


def show_targets(run_folder: Path) -> Html:
    """Show each target's score, raw and submitted."""
    table = summarize_targets(run_folder)
    return show_table(table, decimals=3, bars=table.columns[1:])


def show_run_distributions(run_folder: Path) -> Html:
    """Show how the blended out-of-fold predictions of each target spread beside the ratings of the same rows."""
    blended = read_table(run_folder / BLENDED, columns=(ID, *TARGETS))
    return show_distributions(blended, read_json(run_folder / SCORES).get("ratings", {}))


def show_run_ties(run_folder: Path) -> Html:
    """Show the blended out-of-fold predictions of each target in their order, and where they are tied."""
    blended = read_table(run_folder / BLENDED, columns=(ID, *TARGETS))[list(TARGETS)]
    ensemble = Ensemble.from_json((run_folder / ENSEMBLE).read_text(encoding="utf-8"))
    tied = ensemble.ties_.transform(blended.to_numpy())
    return show_ties(blended, pd.DataFrame(tied, columns=list(TARGETS)))


def summarize_course(run_folder: Path) -> pd.DataFrame:
    """Say what was planned and what did not go as asked: shortened, left out, resumed, tried again; by session."""
    lines: list[tuple[int, float, str]] = []
    for number, session in enumerate(read_sessions(run_folder), start=1):
        limit = session.get("limit_seconds")
        lines.append((number, 0.0, f"time limit {limit / 60:g} min" if limit else "no time limit"))
        lines += [(number, each["seconds"] / 60, each["plan"]) for each in session.get("plan", [])]
        lines += [(number, each["seconds"] / 60, each["note"]) for each in session.get("notes", [])]
        if "steps" in session:
            lines.append((number, session["seconds"] / 60, f"{len(session['steps'])} steps are done"))
    table = pd.DataFrame(lines, columns=["session", "minute", "what"])
    return _without_one_session(table.sort_values(["session", "minute"], kind="stable").round({"minute": 1}))


def summarize_time(run_folder: Path) -> pd.DataFrame:
    """Lay out what each step of the flow took, session by session."""
    rows = [
        {"session": number, "step": step["step"], "seconds": step["seconds"], "from minute": step["start"] / 60}
        for number, session in enumerate(read_sessions(run_folder), start=1)
        for step in session.get("steps", [])
    ]
    table = pd.DataFrame(rows, columns=["session", "step", "seconds", "from minute"])
    return _without_one_session(table)


def _without_one_session(table: pd.DataFrame) -> pd.DataFrame:
    return table if table["session"].nunique() > 1 else table.drop(columns="session")


def show_time(run_folder: Path) -> Html:
    """Show what each step of the flow took."""
    return show_table(summarize_time(run_folder), decimals=1, bars=["seconds"])


def lay_out(facts: Mapping[str, object]) -> pd.DataFrame:
    """Lay out facts, as `run.json` has them, in two columns."""
    rows = {name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in flatten(facts)}
    return pd.DataFrame(
        [(name, "" if value is None else str(value)) for name, value in rows.items()], columns=["what", "value"]
    )


def describe_run(run_folder: Path) -> pd.DataFrame:
    """Lay out what a finished run was, its parameters aside."""
    return lay_out({name: value for name, value in read_json(run_folder / RUN).items() if name != "parameters"})


def describe_parameters(run_folder: Path) -> pd.DataFrame:
    """Lay out what the run was asked to do: a row per parameter, a column per member that has it, and one for all."""
    recipe = Recipe.from_dict(read_json(run_folder / RECIPE)).without_paths().to_dict()
    columns = {member["name"]: dict(flatten(member)) for member in recipe.pop("members")}
    table = pd.DataFrame(columns | {"all members": recipe})
    table = table.map(lambda value: "" if value is np.nan else value if isinstance(value, str) else json.dumps(value))
    return table.rename_axis("parameter").reset_index()
