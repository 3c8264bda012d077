"""What came out of a sweep, or of any runs: rows of trials and settings, and which differences are more than luck."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from questlib.clock import read_sessions
from questlib.resume import flatten
from questlib.run_folder import RECIPE, SCORES, TIED, read_json
from questlib.scores import compare, read_tied
from questlib.sweeps import study as studies
from questlib.sweeps.definition import look_up, name_of
from questlib.sweeps.space import stand_for

# Columns of a table of trials; the parameters follow.
ABOUT = ["trial", "setting", "seed", "state", "value", "seconds", "error", "folder"]
# Columns of a table of settings, beside `setting` and the parameters.
SUMMARY = ["trials", "mean", "standard error", "behind", "error of that", "verdict", "seconds"]
# Two standard errors: one time in twenty, luck alone does as much.
_ERRORS_APART = 2.0


def read_study(study: optuna.Study, *, trials_folder: Path) -> pd.DataFrame:
    """Lay out a study's trials: a row each, without those that were broken off and begun again."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if attributes.get(studies.SURPLUS) or (trial.state == TrialState.FAIL and studies.ERROR not in attributes):
            continue
        name = name_of(attributes[studies.SETTING], attributes[studies.SEED])
        rows.append({
            "trial": name, "setting": attributes[studies.SETTING], "seed": attributes[studies.SEED],
            # What a pruned trial has is its last evaluation, which is another number than a score.
            "state": trial.state.name.lower(), "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "seconds": attributes.get(studies.SECONDS), "error": attributes.get(studies.ERROR, ""),
            "folder": str(trials_folder / name), **trial.params,
        })  # fmt: skip
    return _lay_out(rows, ABOUT, _parameters_of(rows))


def read_runs(folders: Iterable[Path], *, objective: str) -> pd.DataFrame:
    """Lay out runs of a loop of one's own, by what differs between their recipes; a run without scores has no value."""
    rows: list[dict] = []
    recipes = []
    for folder in folders:
        if not (folder / RECIPE).is_file():
            raise FileNotFoundError(f"{folder} must be a run folder, however it has no {RECIPE}")
        is_scored = (folder / SCORES).is_file()
        value = look_up(read_json(folder / SCORES), objective) if is_scored else None
        recipes.append(dict(flatten(read_json(folder / RECIPE))))
        rows.append({
            "trial": folder.name, "state": "complete" if is_scored else "fail", "value": value,
            "seconds": sum(session["seconds"] for session in read_sessions(folder)) or None,
            "error": "" if is_scored else f"no {SCORES}", "folder": str(folder),
        })  # fmt: skip
    if not rows:
        raise ValueError("there must be runs to report on, however none is named")
    names = sorted(set().union(*recipes))
    differing = [name for name in names if len({json.dumps(recipe.get(name)) for recipe in recipes}) > 1]
    seeds = [name for name in differing if name.split(".")[-1] == "seed"]
    parameters = [name for name in differing if name not in seeds]
    chosen = [{name: recipe.get(name) for name in parameters} for recipe in recipes]
    settings = {text: number for number, text in enumerate(dict.fromkeys(map(json.dumps, chosen)))}
    for row, recipe, values in zip(rows, recipes, chosen, strict=True):
        plain = {name: stand_for(value) for name, value in values.items()}
        row |= {"setting": settings[json.dumps(values)], "seed": recipe[seeds[0]] if seeds else None, **plain}
    return _lay_out(rows, ABOUT, parameters)


def summarize_settings(trials: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Compare the settings, paired by seed, fold and question.

    Args:
        trials: As `read_study` or `read_runs` gives them.
        train: The training table; out-of-fold predictions are compared on its questions.

    Returns:
        A row per setting, best first: `mean` over its `trials`, its `standard error` over seeds, `behind` the best one
        by how much and with what `error of that`, what follows (`verdict`), `seconds`, and the parameters.
    """
    done = trials[(trials["state"] == "complete") & trials["value"].notna()]
    if done.empty:
        return pd.DataFrame(columns=["setting", *SUMMARY])
    parameters = list(trials.columns[len(ABOUT) :])
    groups = {setting: group for setting, group in done.groupby("setting")}
    order = sorted(groups, key=lambda setting: -groups[setting]["value"].mean())
    spread = _pool_spread(groups.values())
    rows = []
    for setting in order:
        group = groups[setting]
        n_trials = len(group)
        error = np.nan if spread is None else spread / np.sqrt(n_trials)
        behind = _compare_settings(groups[order[0]], group, train) if setting != order[0] else (0.0, 0.0, 0.0, 0)
        rows.append({
            "setting": setting, "trials": n_trials, "mean": group["value"].mean(), "standard error": error,
            "behind": behind[0], "error of that": behind[1],
            "verdict": "best" if setting == order[0] else _judge(*behind, spread=spread),
            "seconds": group["seconds"].mean(), **{name: group[name].iloc[0] for name in parameters},
        })  # fmt: skip
    return _lay_out(rows, ["setting", *SUMMARY], parameters)


def _pool_spread(groups: Iterable[pd.DataFrame]) -> float | None:
    # How much the score moves with the seed alone; known where a setting has several.
    deviations = [group["value"] - group["value"].mean() for group in groups if len(group) > 1]
    if not deviations:
        return None
    return float(np.sqrt(sum((each**2).sum() for each in deviations) / sum(len(each) - 1 for each in deviations)))


def _compare_settings(best: pd.DataFrame, other: pd.DataFrame, train: pd.DataFrame) -> tuple[float, float, float, int]:
    # Gain of the best, its standard error, the part of it that questions make, and the number of pairs.
    pairs = best.merge(other, on="seed", suffixes=("_best", "_other"))
    gains, errors = [], []
    for one, two in zip(pairs["folder_best"], pairs["folder_other"], strict=True):
        if (Path(one) / TIED).is_file() and (Path(two) / TIED).is_file():
            gain, error, _ = compare(train, read_tied(Path(two)), read_tied(Path(one)))
            gains.append(gain)
            errors.append(error)
    if not gains:  # other machines' folders: what is known are the values
        differences = (pairs["value_best"] - pairs["value_other"]).to_numpy()
        if not len(differences):
            return float(best["value"].mean() - other["value"].mean()), np.nan, np.nan, 0
        gains, errors = list(differences), [0.0]
    of_questions = float(np.mean(errors))
    n_pairs = len(gains)
    of_seeds = float(np.std(gains, ddof=1) / np.sqrt(n_pairs)) if n_pairs > 1 else 0.0
    return float(np.mean(gains)), float(np.hypot(of_questions, of_seeds)), of_questions, n_pairs


def _judge(gain: float, error: float, of_questions: float, n_pairs: int, *, spread: float | None) -> str:
    if not n_pairs or np.isnan(error):
        return "not compared: no seed in common"
    if spread is not None and n_pairs == 1:
        error = float(np.hypot(error, spread * np.sqrt(2)))
    if gain > _ERRORS_APART * error and (spread is not None or n_pairs > 1):
        return "worse"
    room = (gain / _ERRORS_APART) ** 2 - of_questions**2
    if spread is None:
        return "one seed alone: try several"
    if room <= 0:
        return "as good: try more folds"
    n_needed = int(np.ceil(2 * spread**2 / room))
    return f"as good: try {max(1, n_needed - n_pairs)} more seeds"


def as_study(trials: pd.DataFrame) -> optuna.Study:
    """Build a study in memory out of a table of trials, for Optuna's pictures."""
    parameters = list(trials.columns[len(ABOUT):])  # fmt: skip
    known = {name: _distribution_of(trials[name]) for name in parameters}
    study = optuna.create_study(direction="maximize")
    for row in trials.to_dict("records"):
        if row["state"] != "complete" or row["value"] is None or np.isnan(row["value"]):
            continue
        params = {name: row[name] for name in parameters if not is_missing(row[name])}
        study.add_trial(
            optuna.create_trial(
                params=params, distributions={name: known[name] for name in params}, value=float(row["value"])
            )
        )
    return study


def find_frontier(trials: pd.DataFrame) -> pd.Series:
    """Tell which trials no other one beats in score without taking more seconds."""
    done = trials.dropna(subset=["value", "seconds"]).sort_values(["seconds", "value"], ascending=[True, False])
    best = done["value"].cummax()
    return (done["value"] >= best) & ~done["value"].duplicated()


def is_missing(value: object) -> bool:
    """Tell whether a parameter does not apply; one may be null, which None stands for."""
    return isinstance(value, float) and np.isnan(value)


def _lay_out(rows: Sequence[dict], known: Sequence[str], parameters: Sequence[str]) -> pd.DataFrame:
    # A parameter stays what it is: where one is missing, a column of numbers makes 64.0 of 64, and nothing of null.
    values = {name: pd.Series([row.get(name, np.nan) for row in rows], dtype=object) for name in parameters}
    return pd.concat([pd.DataFrame(rows, columns=list(known)), pd.DataFrame(values)], axis="columns")


def _parameters_of(rows: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in ABOUT))


def _distribution_of(column: pd.Series) -> CategoricalDistribution | FloatDistribution:
    values: list[Any] = [value for value in column if not is_missing(value)]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(set(numbers)) > 1 and len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return FloatDistribution(low, high, log=low > 0 and high / low >= 10)
    return CategoricalDistribution(list(dict.fromkeys(values)) or [None])
