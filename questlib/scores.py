"""The ensemble of a run and its honest scores, computed from the finished folds on disk and written by one function."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from questlib.data import IndexArray, Tables, question_of
from questlib.ensemble import Ensemble
from questlib.marks import mark_done
from questlib.metrics import score_predictions
from questlib.predictions import MemberPredictions, read_member, write_predictions
from questlib.ranks import FloatArray
from questlib.run_folder import BLENDED, DONE, ENSEMBLE, SCORES, TIED, fold_folder, write_json
from questlib.schema import ID, TARGETS

# One trained fold alone is cut into parts by question, so that nothing is scored on what it was fitted on.
_PARTS_OF_ONE_FOLD = 4


@dataclass(frozen=True, kw_only=True)
class Combination:
    """An ensemble of some finished folds, and what it is worth.

    Args:
        scores: What `scores.json` holds.
        ensemble: What `ensemble.json` holds.
        blended: Blended out-of-fold predictions, (n_known, 30); the ensemble was fitted on these rows.
        tied: What would have been submitted for them, each row by an ensemble fitted on other questions, same shape.
        ids: Of these rows, and the fold of each in `folds`, (n_known,).
        folds: See there.
        test: Tied test predictions in [0, 1], (n_test, 30).
    """

    scores: dict
    ensemble: dict
    blended: FloatArray
    tied: FloatArray
    ids: npt.NDArray
    folds: IndexArray
    test: FloatArray

    def write(self, run_folder: Path) -> None:
        """Write all but the test's predictions into a run folder."""
        write_predictions(run_folder / BLENDED, self.blended, ids=self.ids, folds=self.folds)
        write_predictions(run_folder / TIED, self.tied, ids=self.ids, folds=self.folds)
        write_json(run_folder / SCORES, self.scores)
        write_json(run_folder / ENSEMBLE, self.ensemble)
        # What is predicted with stands on these files, and on nothing else.
        folders = [
            fold_folder(run_folder, name, fold) for name, each in self.ensemble["folds"].items() for fold in each
        ]
        mark_done(run_folder, [ENSEMBLE, *((folder / DONE).relative_to(run_folder).as_posix() for folder in folders)])


def combine_members(
    tables: Tables, finished: Mapping[str, Sequence[int]], *, run_folder: Path, leaks: bool
) -> Combination | None:
    """Fit the ensemble on the out-of-fold predictions, score it nested, and apply it to the test.

    Args:
        tables: What `questlib.data.read_tables` returns.
        finished: The finished folds by member.
        run_folder: Holds them.
        leaks: Whether the split leaks; said in the protocol.

    Returns:
        None where the folds hold too few questions to fit on some and to score others: one question has no rank.
    """
    members = {name: read_member(run_folder, name, folds=folds, tables=tables) for name, folds in finished.items()}
    first = next(iter(members.values()))
    known = np.logical_and.reduce([member.known for member in members.values()])
    train, folds = tables.train[known], first.fold_of_row[known]
    targets, questions = train[list(TARGETS)].to_numpy(dtype=np.float64), question_of(train)
    if not can_be_scored(questions, folds):
        return None
    hosts, test_hosts = train["host"].to_numpy(dtype=str), tables.test["host"].to_numpy(dtype=str)
    out_of_fold = {name: member.out_of_fold[known] for name, member in members.items()}
    split = "rows split at random, which LEAKS: the score reads too high" if leaks else "folds grouped by question"
    nested = _predict_nested(out_of_fold, targets, questions=questions, hosts=hosts, folds=folds)
    tied = np.empty_like(targets)
    for part, predictions in nested:
        tied[part] = predictions["tied"]
    scores = {
        "protocol": f"out of fold, {split}; one random row per question, averaged over draws",
        "leaks": leaks,
        "raw": {name: score_member(member, tables) for name, member in members.items()},
        "nested": _score_parts(nested, targets, questions=questions),
        "ratings": {name: _count_shares(values) for name, values in zip(TARGETS, targets.T, strict=True)},
    }
    ensemble = Ensemble().fit(out_of_fold, targets, questions=questions, hosts=hosts)
    stands_on = {name: list(folds) for name, folds in finished.items()}
    return Combination(
        scores=scores,
        ensemble=json.loads(ensemble.to_json()) | {"folds": stands_on},
        blended=ensemble.blend(out_of_fold, hosts=hosts),
        tied=tied,
        ids=train[ID].to_numpy(),
        folds=folds,
        test=ensemble.transform({name: member.test for name, member in members.items()}, hosts=test_hosts),
    )


def can_be_scored(questions: npt.NDArray, folds: IndexArray) -> bool:
    """Tell whether an ensemble can be fitted on some of these rows' questions and scored on others, (n_rows,) each."""
    return len(cut_parts(questions, folds)) > 1


def _count_shares(ratings: FloatArray) -> dict[str, float]:
    # For pictures: the run folder has no tables.
    values, counts = np.unique(ratings.round(6), return_counts=True)
    return {f"{value:g}": count / len(ratings) for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


def score_member(member: MemberPredictions, tables: Tables) -> dict:
    """Score a member's out-of-fold predictions: `one_row_per_question`, `all_rows`, and the first of them `by_fold`."""
    known, folds = member.known, member.fold_of_row[member.known]
    predicted, questions = member.out_of_fold[known], question_of(tables.train)[known]
    targets = tables.train.loc[known, list(TARGETS)].to_numpy(dtype=np.float64)
    by_fold = [
        {"fold": int(fold)}
        | score_predictions(predicted[folds == fold], targets[folds == fold], questions=questions[folds == fold])
        for fold in np.unique(folds)
        if len(np.unique(questions[folds == fold])) > 1  # one question has no rank
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
    nested = _predict_nested(members, targets, questions=questions, hosts=hosts, folds=folds)
    return _score_parts(nested, targets, questions=questions)


def _predict_nested(
    members: Mapping[str, FloatArray],
    targets: FloatArray,
    *,
    questions: npt.NDArray,
    hosts: npt.NDArray,
    folds: IndexArray,
) -> list[tuple[IndexArray, dict[str, FloatArray]]]:
    # The rows of each part, and what is predicted for them by each member, by blend and ties fitted on the other parts.
    nested = []
    for part in cut_parts(questions, folds):
        others = np.setdiff1d(np.arange(len(targets)), part)
        ensemble = Ensemble().fit(
            {name: each[others] for name, each in members.items()},
            targets[others],
            questions=questions[others],
            hosts=hosts[others],
        )
        here = {name: each[part] for name, each in members.items()}
        blended, tied = (step(here, hosts=hosts[part]) for step in (ensemble.blend, ensemble.transform))
        nested.append((part, here | {"blended": blended, "tied": tied}))
    return nested


def cut_parts(questions: npt.NDArray, folds: IndexArray) -> list[IndexArray]:
    """Give the rows of each part that is scored alone, no part where there are too few questions; (n_rows,) each.

    Parts are folds; one fold alone is cut by question, and so are folds of one question each, which has no rank.
    """
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if len(parts) > 1 and max(len(np.unique(questions[part])) for part in parts) > 1:
        return parts
    n_parts = min(_PARTS_OF_ONE_FOLD, len(np.unique(questions)) // 2)
    if n_parts < 2:
        return []
    splitter = GroupKFold(n_parts, shuffle=True, random_state=0)
    return [part for _, part in splitter.split(questions, groups=questions)]


def _score_parts(
    nested: Sequence[tuple[IndexArray, dict[str, FloatArray]]], targets: FloatArray, *, questions: npt.NDArray
) -> dict:
    by_part: dict[str, list[dict]] = {}
    for part, predictions in nested:
        if len(np.unique(questions[part])) > 1:  # one question has no rank
            for name, predicted in predictions.items():
                score = score_predictions(predicted, targets[part], questions=questions[part])
                by_part.setdefault(name, []).append(score)
    n_apart = sum(len(np.unique(questions[part])) for part, _ in nested)
    others = "questions" if n_apart == len(np.unique(questions)) else "rows"  # a split that leaks cuts questions
    return {
        "protocol": f"fitted on the other {others}, one random row per question, mean over "
        f"{len(by_part['tied'])} parts",
        "scores": {name: _average(scores) for name, scores in by_part.items()},
    }


def _average(scores: list[dict]) -> dict:
    by_target = {}
    for name in TARGETS:
        known = [score["by_target"][name] for score in scores if score["by_target"][name] is not None]
        by_target[name] = float(np.mean(known)) if known else None
    means = {name: float(np.mean([score[name] for score in scores])) for name in ("mean", "mean_without_rare")}
    return means | {"by_target": by_target, "n_rows": sum(score["n_rows"] for score in scores)}
