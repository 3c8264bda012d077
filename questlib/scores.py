"""The ensemble of a run and its honest scores, computed from the finished folds on disk and written by one function."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from questlib.data import IndexArray, Tables, question_of
from questlib.ensemble import Ensemble
from questlib.metrics import score_predictions
from questlib.predictions import FloatArray, MemberPredictions, read_member, write_predictions
from questlib.run_folder import BLENDED, ENSEMBLE, SCORES, write_json
from questlib.schema import ID, TARGETS

# One trained fold alone is cut into parts by question, so that nothing is scored on what it was fitted on.
_PARTS_OF_ONE_FOLD = 4


def combine_members(
    tables: Tables, finished: Mapping[str, Sequence[int]], *, run_folder: Path, leaks: bool
) -> FloatArray:
    """Fit the ensemble on the out-of-fold predictions, score it nested, and apply it to the test.

    Args:
        tables: What `questlib.data.read_tables` returns.
        finished: The finished folds by member.
        run_folder: Holds them; takes ensemble, blended out-of-fold predictions and scores.
        leaks: Whether the split leaks; said in the protocol.

    Returns:
        Tied test predictions in [0, 1], shape (n_test, 30).
    """
    members = {name: read_member(run_folder, name, folds=folds, tables=tables) for name, folds in finished.items()}
    first = next(iter(members.values()))
    known = np.logical_and.reduce([member.known for member in members.values()])
    train, folds = tables.train[known], first.fold_of_row[known]
    targets, questions = train[list(TARGETS)].to_numpy(dtype=np.float64), question_of(train)
    hosts, test_hosts = train["host"].to_numpy(dtype=str), tables.test["host"].to_numpy(dtype=str)
    out_of_fold = {name: member.out_of_fold[known] for name, member in members.items()}
    split = "rows split at random, which LEAKS: the score reads too high" if leaks else "folds grouped by question"
    scores = {
        "protocol": f"out of fold, {split}; one random row per question, averaged over draws",
        "leaks": leaks,
        "raw": {name: score_member(member, tables) for name, member in members.items()},
        "nested": score_nested(out_of_fold, targets, questions=questions, hosts=hosts, folds=folds),
    }
    ensemble = Ensemble().fit(out_of_fold, targets, questions=questions, hosts=hosts)
    blended = ensemble.blend(out_of_fold, hosts=hosts)
    write_predictions(run_folder / BLENDED, blended, ids=train[ID].to_numpy(), folds=folds)
    write_json(run_folder / SCORES, scores)
    stands_on = {name: list(folds) for name, folds in finished.items()}
    write_json(run_folder / ENSEMBLE, json.loads(ensemble.to_json()) | {"folds": stands_on})
    return ensemble.transform({name: member.test for name, member in members.items()}, hosts=test_hosts)


def score_member(member: MemberPredictions, tables: Tables) -> dict:
    """Score a member's out-of-fold predictions: `one_row_per_question`, `all_rows`, and the first of them `by_fold`."""
    known, folds = member.known, member.fold_of_row[member.known]
    predicted, questions = member.out_of_fold[known], question_of(tables.train)[known]
    targets = tables.train.loc[known, list(TARGETS)].to_numpy(dtype=np.float64)
    by_fold = [
        {"fold": int(fold)}
        | score_predictions(predicted[folds == fold], targets[folds == fold], questions=questions[folds == fold])
        for fold in np.unique(folds)
    ]
    return {
        "one_row_per_question": score_predictions(predicted, targets, questions=questions),
        "all_rows": score_predictions(predicted, targets),
        "by_fold": [{name: fold[name] for name in ("fold", "mean", "mean_without_rare", "n_rows")} for fold in by_fold],
    }


def score_nested(
    members: Mapping[str, FloatArray],
    targets: FloatArray,
    *,
    questions: npt.NDArray,
    hosts: npt.NDArray,
    folds: IndexArray,
) -> dict:
    """Score each member, the blend and the ties side by side, each part by an ensemble fitted on the other parts.

    Args:
        members: Out-of-fold predictions by name, each of shape (n_rows, 30).
        targets: Ratings, same shape.
        questions: The question of each row, shape (n_rows,).
        hosts: The host of each row, shape (n_rows,).
        folds: The fold of each row, shape (n_rows,). Parts are folds; one fold alone is cut by question.

    Returns:
        `protocol`, and under `scores` a score by member, by `blended` and by `tied`: the mean over the parts.
    """
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if len(parts) == 1:
        splitter = GroupKFold(_PARTS_OF_ONE_FOLD, shuffle=True, random_state=0)
        parts = [part for _, part in splitter.split(questions, groups=questions)]
    parts = [part for part in parts if len(np.unique(questions[part])) > 1]  # one question has no rank
    by_part: dict[str, list[dict]] = {}
    for part in parts:
        others = np.setdiff1d(np.arange(len(targets)), part)
        ensemble = Ensemble().fit(
            {name: each[others] for name, each in members.items()},
            targets[others],
            questions=questions[others],
            hosts=hosts[others],
        )
        here = {name: each[part] for name, each in members.items()}
        blended, tied = (step(here, hosts=hosts[part]) for step in (ensemble.blend, ensemble.transform))
        for name, predicted in (here | {"blended": blended, "tied": tied}).items():
            by_part.setdefault(name, []).append(score_predictions(predicted, targets[part], questions=questions[part]))
    return {
        "protocol": f"fitted on the other questions, one random row per question, mean over {len(parts)} parts",
        "scores": {name: _average(scores) for name, scores in by_part.items()},
    }


def _average(scores: list[dict]) -> dict:
    by_target = {}
    for name in TARGETS:
        known = [score["by_target"][name] for score in scores if score["by_target"][name] is not None]
        by_target[name] = float(np.mean(known)) if known else None
    means = {name: float(np.mean([score[name] for score in scores])) for name in ("mean", "mean_without_rare")}
    return means | {"by_target": by_target, "n_rows": sum(score["n_rows"] for score in scores)}
