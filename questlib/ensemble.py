"""From every model's out-of-fold predictions to what is submitted: blend, host rates, exact ties, scored nested."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from questlib.artifacts import BLENDED, ENSEMBLE, SCORES, read_json, write_json, write_predictions
from questlib.blending import Blend
from questlib.data import IndexArray, Tables, question_of
from questlib.hosts import HostRates
from questlib.lexical import LexicalModel
from questlib.metrics import score_predictions
from questlib.schema import ANSWER_TARGETS, ID, QUESTION_TARGETS, TARGETS
from questlib.ties import RankTies

FloatArray = npt.NDArray[np.float64]

# A model that reads questions better need not read answers better.
_GROUPS = [0] * len(QUESTION_TARGETS) + [1] * len(ANSWER_TARGETS)
# One trained fold alone is cut into parts by question, so that nothing is scored on what it was fitted on.
_PARTS_OF_ONE_FOLD = 4


@dataclass(frozen=True, kw_only=True)
class FoldPredictions:
    """What the folds of one model predicted.

    Args:
        out_of_fold: Predictions of rows by the fold that never saw them, shape (n_train, 30); NaN where no such fold
            was trained.
        fold_of_row: The fold that scores each row, shape (n_train,).
        test: Predictions averaged over the trained folds, shape (n_test, 30).
    """

    out_of_fold: FloatArray
    fold_of_row: IndexArray
    test: FloatArray

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which rows have a prediction, shape (n_train,)."""
        return ~np.isnan(self.out_of_fold).any(axis=1)


def train_lexical(tables: Tables, *, fold_of_row: IndexArray, folds_to_train: int, run_folder: Path) -> FoldPredictions:
    """Fit the lexical model on the same folds as any other model.

    Args:
        tables: What `questlib.data.read_tables` returns.
        fold_of_row: The fold that scores each row, shape (n_train,).
        folds_to_train: How many folds, from the first on.
        run_folder: Takes the fold's models.

    Returns:
        Its predictions.
    """
    targets = tables.train[list(TARGETS)].to_numpy(dtype=np.float64)
    out_of_fold = np.full(targets.shape, np.nan)
    test = []
    for fold in range(folds_to_train):
        scored = fold_of_row == fold
        model = LexicalModel().fit(tables.train[~scored], targets[~scored])
        model.save(run_folder / f"fold-{fold}")
        out_of_fold[scored] = model.predict(tables.train[scored])
        test.append(model.predict(tables.test))
    return FoldPredictions(out_of_fold=out_of_fold, fold_of_row=fold_of_row, test=np.mean(test, axis=0))


class Ensemble:
    """Blend models, scale rare targets by what their hosts have seen, then tie exactly.

    Attributes:
        blend_: The fitted `Blend`.
        hosts_: The fitted `HostRates`.
        ties_: The fitted `RankTies`.
    """

    def fit(
        self, predictions: Sequence[FloatArray], targets: FloatArray, *, questions: npt.NDArray, hosts: npt.NDArray
    ) -> Self:
        """Learn from out-of-fold predictions.

        Args:
            predictions: One array per model, each of shape (n_rows, 30).
            targets: Ratings, same shape.
            questions: The question of each row, shape (n_rows,).
            hosts: The host of each row, shape (n_rows,).

        Returns:
            The fitted ensemble.
        """
        self.blend_ = Blend(groups=_GROUPS).fit(predictions, targets, questions=questions)
        self.hosts_ = HostRates().fit(hosts, targets)
        self.ties_ = RankTies().fit(self.blend(predictions, hosts=hosts), targets, questions=questions)
        return self

    def blend(self, predictions: Sequence[FloatArray], *, hosts: npt.NDArray) -> FloatArray:
        """Blend and scale, but leave every row its own place.

        Args:
            predictions: One array per model, each of shape (n_rows, 30).
            hosts: The host of each row, shape (n_rows,).

        Returns:
            In [0, 1], shape (n_rows, 30).
        """
        return self.hosts_.transform(self.blend_.transform(predictions), hosts)

    def transform(self, predictions: Sequence[FloatArray], *, hosts: npt.NDArray) -> FloatArray:
        """Blend, scale and tie. Arguments and shape as `blend`."""
        return self.ties_.transform(self.blend(predictions, hosts=hosts))

    def to_json(self) -> str:
        """Write what was learned as JSON."""
        parts = {"blend": self.blend_.to_json(), "hosts": self.hosts_.to_json(), "ties": self.ties_.to_json()}
        return json.dumps({name: json.loads(part) for name, part in parts.items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        state = {name: json.dumps(part) for name, part in json.loads(text).items()}
        ensemble = cls()
        ensemble.blend_ = Blend.from_json(state["blend"])
        ensemble.hosts_ = HostRates.from_json(state["hosts"])
        ensemble.ties_ = RankTies.from_json(state["ties"])
        return ensemble


def combine_models(tables: Tables, models: Mapping[str, FoldPredictions], *, run_folder: Path) -> FloatArray:
    """Fit the ensemble on all out-of-fold predictions, score it nested, and apply it to the test.

    Args:
        tables: What `questlib.data.read_tables` returns.
        models: Predictions by model name, all of the same folds.
        run_folder: Takes the ensemble's state and its blended out-of-fold predictions; its scores gain `nested`.

    Returns:
        Tied test predictions in [0, 1], shape (n_test, 30).
    """
    first = next(iter(models.values()))
    train = tables.train[first.known]
    targets, questions = train[list(TARGETS)].to_numpy(dtype=np.float64), question_of(train)
    hosts, test_hosts = train["host"].to_numpy(dtype=str), tables.test["host"].to_numpy(dtype=str)
    out_of_fold = {name: model.out_of_fold[first.known] for name, model in models.items()}
    folds = first.fold_of_row[first.known]
    nested = score_nested(out_of_fold, targets, questions=questions, hosts=hosts, folds=folds)
    ensemble = Ensemble().fit(list(out_of_fold.values()), targets, questions=questions, hosts=hosts)
    blended = ensemble.blend(list(out_of_fold.values()), hosts=hosts)
    write_predictions(run_folder / BLENDED, blended, ids=train[ID].to_numpy(), folds=folds)
    write_json(run_folder / ENSEMBLE, json.loads(ensemble.to_json()))
    write_json(run_folder / SCORES, read_json(run_folder / SCORES) | {"nested": nested})
    return ensemble.transform([model.test for model in models.values()], hosts=test_hosts)


def score_nested(
    models: Mapping[str, FloatArray],
    targets: FloatArray,
    *,
    questions: npt.NDArray,
    hosts: npt.NDArray,
    folds: IndexArray,
) -> dict:
    """Score each model, the blend and the ties side by side, each part by an ensemble fitted on the other parts.

    Args:
        models: Out-of-fold predictions by model name, each of shape (n_rows, 30).
        targets: Ratings, same shape.
        questions: The question of each row, shape (n_rows,).
        hosts: The host of each row, shape (n_rows,).
        folds: The fold of each row, shape (n_rows,). Parts are folds; one fold alone is cut by question.

    Returns:
        `protocol`, and under `scores` a score by model name, by `blended` and by `tied`: the mean over the parts.
    """
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if len(parts) == 1:
        splitter = GroupKFold(_PARTS_OF_ONE_FOLD, shuffle=True, random_state=0)
        parts = [part for _, part in splitter.split(questions, groups=questions)]
    by_part: dict[str, list[dict]] = {}
    for part in parts:
        others = np.setdiff1d(np.arange(len(targets)), part)
        ensemble = Ensemble().fit(
            [model[others] for model in models.values()],
            targets[others],
            questions=questions[others],
            hosts=hosts[others],
        )
        here = [model[part] for model in models.values()]
        blended, tied = (step(here, hosts=hosts[part]) for step in (ensemble.blend, ensemble.transform))
        for name, predicted in (*zip(models, here, strict=True), ("blended", blended), ("tied", tied)):
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
