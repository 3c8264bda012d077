"""Two runs compared: by the score that is told, with the error of that."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from questlib.metrics import score_predictions
from questlib.paired import compare
from questlib.schema import ID, QUESTION, RARE_TARGET, TARGETS

COMMON = [name != RARE_TARGET for name in TARGETS]


def make_run(ids: pd.Series, predictions: np.ndarray, folds: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(predictions, index=ids, columns=list(TARGETS)).assign(fold=folds)


def make_runs(n_questions: int, *, n_answers: int, n_folds: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A table, and two runs with the same folds: the second sees more of the ratings."""
    generator = np.random.default_rng(0)
    questions = np.repeat(np.arange(n_questions), n_answers)
    ratings = generator.random((len(questions), len(TARGETS)))
    train = pd.DataFrame(ratings, columns=list(TARGETS))
    train.insert(0, ID, [f"row {row}" for row in range(len(train))])
    train[QUESTION] = [f"question {question}" for question in questions]
    noise = generator.random((2, *ratings.shape))
    before, after = (
        make_run(train[ID], 0.5 * each + share * ratings, questions % n_folds)
        for each, share in zip(noise, (0.2, 0.3), strict=True)
    )
    return train, before, after


def score_folds(train: pd.DataFrame, run: pd.DataFrame) -> float:
    """The score that a run tells: a mean over its folds."""
    by_fold = [
        score_predictions(
            run.loc[rows[ID], list(TARGETS)], rows[list(TARGETS)], questions=rows[QUESTION].tolist()
        )["mean_without_rare"]
        for _, rows in train.groupby(run["fold"].to_numpy())
    ]  # fmt: skip
    return float(np.mean(by_fold))


def test_scale_of_a_fold_is_no_gain():
    train, before, _ = make_runs(60, n_answers=2, n_folds=3)
    scaled = before.copy()
    scaled.loc[scaled["fold"] == 1, list(TARGETS)] **= 3  # in no fold any row changes its rank
    gain, error, n_questions = compare(train, before, scaled)
    assert gain == pytest.approx(0, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-12)
    assert n_questions == 60


def test_gain_is_the_difference_of_the_scores_told():
    train, before, after = make_runs(60, n_answers=1, n_folds=3)
    told = score_folds(train, after) - score_folds(train, before)
    assert compare(train, before, after)[0] == pytest.approx(told, abs=1e-12)


def test_run_of_other_folds_is_scored_over_its_own():
    train, before, after = make_runs(60, n_answers=1, n_folds=3)
    after["fold"] = np.arange(60) // 30
    told = score_folds(train, after) - score_folds(train, before)
    assert compare(train, before, after)[0] == pytest.approx(told, abs=1e-12)


def test_error_is_that_of_the_averaged_gain():
    # Answers differ much within a question, so that the gain of one draw is far less sure than their average.
    train, before, after = make_runs(60, n_answers=6, n_folds=2)
    runs = [frame[list(TARGETS)].to_numpy() for frame in (before, after)]
    ratings, folds = train[list(TARGETS)].to_numpy(), before["fold"].to_numpy()

    def gain(rows: np.ndarray) -> float:
        by_fold = []
        for here in (rows[folds[rows] == fold] for fold in (0, 1)):
            old, new, rated = (rankdata(each[here][:, COMMON], axis=0) for each in (*runs, ratings))
            old, new, rated = ((each - each.mean(axis=0)) / each.std(axis=0) for each in (old, new, rated))
            by_fold.append(np.mean((new - old) * rated))
        return float(np.mean(by_fold))

    generator = np.random.default_rng(1)
    averaged, single = [], []
    for _ in range(50):
        again = generator.integers(60, size=60)
        gains = [gain(6 * again + generator.integers(6, size=60)) for _ in range(10)]
        averaged.append(np.mean(gains))
        single.append(gains[0])
    error = compare(train, before, after)[1]
    assert error == pytest.approx(np.std(averaged, ddof=1), rel=0.35)
    assert error < 0.75 * np.std(single, ddof=1)


def test_runs_without_common_rows_are_not_compared():
    train, before, after = make_runs(8, n_answers=1, n_folds=2)
    assert compare(train, before[:4], after[4:]) == (0.0, 0.0, 0)
