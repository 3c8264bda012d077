"""What came out of a sweep, or of any runs: rows of trials and settings, and which differences are more than luck."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from scipy.stats import studentized_range

from questlib.clock import read_sessions
from questlib.data import Tables
from questlib.marks import check_outputs
from questlib.paired import FREEDOM, compare, read_tied
from questlib.resume import flatten, hash_tables
from questlib.run_folder import INPUTS, OUTPUTS, RECIPE, SCORES, TIED, read_json
from questlib.sweeps import study as studies
from questlib.sweeps.definition import look_up, name_of
from questlib.sweeps.space import ABOUT, SUMMARY, stand_for

logger = logging.getLogger(__name__)

_TRAIN = "train.csv"
# How often luck alone may call any of a sweep's settings worse.
_RISK = 0.05


def read_study(study: optuna.Study, *, trials_folder: Path) -> pd.DataFrame:
    """Lay out a study's trials: a row each, once what a sampler asked for again, without what was broken off."""
    rows = []
    for trial in studies.list_trials(study):
        attributes = trial.user_attrs
        if studies.SAME in attributes or (trial.state == TrialState.FAIL and studies.ERROR not in attributes):
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


def read_runs(folders: Iterable[Path], *, objective: str, tables: Tables | None) -> pd.DataFrame:
    """Lay out runs of a loop of one's own, by what differs between their recipes; a run without scores has no value.

    What is no run, or was trained on another table than that of `tables`, is left out and told of in the log, and so
    is a run that was made once more with the same setting and seed: the newest stands.
    """
    runs, left_out = _choose_runs(folders, tables)
    if not runs:
        raise ValueError("; ".join(["there must be runs to report on, however there are none", *left_out]))
    for told in left_out:
        logger.warning("left out: %s", told)
    rows: list[dict] = []
    recipes = []
    for folder in runs:
        is_scored = (folder / SCORES).is_file()
        value = look_up(read_json(folder / SCORES), objective) if is_scored else None
        recipe = dict(flatten(read_json(folder / RECIPE)))
        hashes = read_json(folder / INPUTS).get("encoder", {}) if (folder / INPUTS).is_file() else {}
        recipe |= {f"weights of encoder {title.split()[0]}": digest[:8] for title, digest in hashes.items()}
        seed = recipe.pop("seed", None)
        # A member whose seed is the run's has none of its own.
        recipes.append({name: each for name, each in recipe.items() if name.split(".")[-1] != "seed" or each != seed})
        rows.append({
            "trial": folder.name, "seed": seed, "state": "complete" if is_scored else "fail", "value": value,
            "seconds": sum(session["seconds"] for session in read_sessions(folder)) or None,
            "error": "" if is_scored else f"no {SCORES}", "folder": str(folder),
        })  # fmt: skip
    names = sorted(set().union(*recipes))
    differing = [name for name in names if len({json.dumps(recipe.get(name, np.nan)) for recipe in recipes}) > 1]
    chosen = [{name: recipe.get(name, np.nan) for name in differing} for recipe in recipes]
    settings = {text: number for number, text in enumerate(dict.fromkeys(map(json.dumps, chosen)))}
    for row, values in zip(rows, chosen, strict=True):
        row |= {"setting": settings[json.dumps(values)], **{name: stand_for(each) for name, each in values.items()}}
    return _lay_out(_keep_newest(rows), ABOUT, differing)


def _keep_newest(rows: Sequence[dict]) -> list[dict]:
    # What was made twice tells nothing of another seed; of two, one that has a score stands.
    def age(row: dict) -> tuple[bool, str]:
        sessions = read_sessions(Path(row["folder"]))
        return row["state"] == "complete", sessions[-1].get("began", "") if sessions else ""

    kept: dict[tuple, dict] = {}
    for row in sorted(rows, key=age):
        older = kept.get((row["setting"], row["seed"]))
        if older:
            told = "left out: %s must be of a setting and seed of its own, however %s has the same"
            logger.warning(told, older["folder"], row["folder"])
        kept[row["setting"], row["seed"]] = row
    return [row for row in rows if row is kept[row["setting"], row["seed"]]]


def _choose_runs(folders: Iterable[Path], tables: Tables | None) -> tuple[list[Path], list[str]]:
    # Scores on other rows cannot be compared; what is no run of quest.ipynb does not say what it was trained on.
    wanted = None if tables is None else hash_tables(tables)[_TRAIN]
    runs, left_out = [], []
    for folder in folders:
        try:
            if (folder / OUTPUTS).is_file():
                check_outputs(folder, *(name for name in (RECIPE, INPUTS, SCORES, TIED) if (folder / name).is_file()))
            known = read_json(folder / INPUTS).get(_TRAIN) if (folder / INPUTS).is_file() else None
        except ValueError as error:
            left_out.append(str(error))
            continue
        if not (folder / RECIPE).is_file():
            left_out.append(f"{folder} must be a run folder, however it has no {RECIPE}")
        elif wanted and known not in (None, wanted):
            left_out.append(f"{folder} must be trained on the {_TRAIN} that is given, however it was on another")
        else:
            wanted = wanted or known
            runs.append(folder)
    return runs, left_out


def summarize_settings(trials: pd.DataFrame, train: pd.DataFrame | None) -> pd.DataFrame:
    """Compare the settings, paired by seed, fold and question.

    A setting is called worse by the procedure of Games and Howell: Tukey's range test, which holds for all settings at
    once and for a best one that is only known afterwards, with Welch's degrees of freedom. What luck with the seed
    makes of a score is pooled over the settings.

    Args:
        trials: As `read_study` or `read_runs` gives them.
        train: The training table; out-of-fold predictions are compared on its questions. Scores alone are where None.

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
    spread, _ = _find_spread(done, ["setting"])
    # What a seed does to all settings alike, such as another split, is no luck of one of them.
    noise, freedom = _find_spread(done, ["setting", "seed"])
    if not freedom:
        noise, freedom = _find_spread(done, ["setting"])
    rows: list[dict] = []
    for setting in order:
        group = groups[setting]
        behind, error, verdict = 0.0, 0.0, "best"
        if rows:
            gain = _compare_settings(groups[order[0]], group, train)
            behind = gain.mean
            error = float(np.hypot(gain.of_questions, noise * np.sqrt(2 / gain.n_pairs) if freedom else 0.0))
            verdict = _judge(gain, noise=noise, freedom=freedom, n_settings=len(order))
        rows.append({
            "setting": setting, "trials": len(group), "mean": group["value"].mean(),
            "standard error": spread / np.sqrt(len(group)), "behind": behind, "error of that": error,
            "verdict": verdict, "seconds": group["seconds"].mean(),
            **{name: group[name].iloc[0] for name in parameters},
        })  # fmt: skip
    return _lay_out(rows, ["setting", *SUMMARY], parameters)


def _find_spread(done: pd.DataFrame, effects: Sequence[str]) -> tuple[float, int]:
    # How scores deviate (NaN where nothing is left to tell) beside what these make of them, and its degrees of freedom.
    levels = pd.get_dummies(done[list(effects)].astype(str), dtype=float).to_numpy()
    values = done["value"].to_numpy(dtype=np.float64)
    fitted, _, rank, _ = np.linalg.lstsq(levels, values)
    freedom = len(values) - int(rank)
    deviations = values - levels @ fitted
    return (float(np.sqrt(np.sum(deviations**2) / freedom)), freedom) if freedom else (np.nan, 0)


@dataclass(frozen=True, kw_only=True)
class _Gain:
    """How much better the best setting is than another, over pairs of trials with the same seed."""

    mean: float
    n_pairs: float  # NaN where there are none
    of_questions: float = 0.0  # standard error that the questions make
    by_questions: bool = False  # whether that is known
    fault: str = ""  # why there are no pairs


def _compare_settings(best: pd.DataFrame, other: pd.DataFrame, train: pd.DataFrame | None) -> _Gain:
    pairs = best.merge(other, on="seed", suffixes=("_best", "_other"))
    differences = (pairs["value_best"] - pairs["value_other"]).to_numpy(dtype=np.float64)
    if not len(pairs):
        mean = float(best["value"].mean() - other["value"].mean())
        return _Gain(mean=mean, n_pairs=np.nan, fault="no seed in common")
    folders = [(Path(one), Path(two)) for one, two in zip(pairs["folder_best"], pairs["folder_other"], strict=True)]
    here = [pair for pair in folders if all((folder / TIED).is_file() for folder in pair)]
    if train is None or not here:  # another objective, or other machines' folders: what is known are the values
        return _Gain(mean=float(differences.mean()), n_pairs=len(pairs))
    compared = [compare(train, read_tied(two), read_tied(one)) for one, two in here]
    gains = [(gain, error) for gain, error, n_questions in compared if n_questions]
    if not gains:
        return _Gain(mean=float(differences.mean()), n_pairs=np.nan, fault="no question in common")
    mean, of_questions = np.mean(gains, axis=0).tolist()
    return _Gain(mean=mean, n_pairs=len(gains), of_questions=of_questions, by_questions=True)


def _judge(gain: _Gain, *, noise: float, freedom: int, n_settings: int) -> str:
    if gain.fault:
        return f"not compared: {gain.fault}"
    if not freedom:
        return "one seed alone: try several"
    told = "" if gain.by_questions else ", by seeds alone"
    variances = [(gain.of_questions**2, FREEDOM), (2 * noise**2 / gain.n_pairs, freedom)]
    variance = sum(each for each, _ in variances)
    if not variance:
        return ("worse" if gain.mean > 0 else "as good") + told
    apart = _find_critical(n_settings, int(variance**2 / sum(each**2 / known for each, known in variances)))
    if gain.mean > apart * np.sqrt(variance):
        return f"worse{told}"
    room = (gain.mean / apart) ** 2 - gain.of_questions**2
    if room <= 0:
        return f"as good: try more folds{told}" if gain.by_questions else f"as good{told}"
    n_more = int(np.ceil(2 * noise**2 / room)) - int(gain.n_pairs)
    return f"as good: try {max(1, n_more)} more seeds{told}"


@cache
def _find_critical(n_settings: int, freedom: int) -> float:
    # Errors of a difference that the best and the worst of so many equal settings seldom lie apart.
    return float(studentized_range.ppf(1 - _RISK, n_settings, max(1, freedom)) / np.sqrt(2))


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
