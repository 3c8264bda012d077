"""The competition's metric, and the protocol under which it is honest."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from questlib.schema import RARE_TARGET, TARGETS

FloatArray = npt.NDArray[np.float64]

# Ratings are means of a few raters: of halves, thirds, ... that many steps tell apart.
_N_LEVELS = 256


def spearman_by_target(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> FloatArray:
    """Correlate the ranks of each column; equal values share their mean rank.

    A constant target column cannot be ranked by anyone: its correlation is NaN. A constant prediction column ranks
    nothing where there was something to rank: its correlation is 0.

    Args:
        predictions: Scores, shape (n_rows, n_targets); only their order within a column matters.
        targets: Ratings, same shape.

    Returns:
        One correlation per column, in [-1, 1] or NaN, shape (n_targets,).

    Raises:
        ValueError: If the shapes differ or are not two-dimensional, there are fewer than two rows, or a value is NaN.

    Source:
        Google QUEST Q&A Labeling, evaluation page; checked against scipy.stats.spearmanr.
    """
    predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise ValueError(
            "predictions and targets must share one shape (n_rows, n_targets), however: "
            f"{predicted.shape=}, {true.shape=}"
        )
    if len(predicted) < 2:
        raise ValueError(f"a rank correlation must have at least two rows, however: {len(predicted)=}")
    for name, values in (("predictions", predicted), ("targets", true)):
        if np.isnan(values).any():
            columns = np.flatnonzero(np.isnan(values).any(axis=0)).tolist()
            raise ValueError(f"{name} must not hold NaN, however: NaN in columns {columns}")
    # A column at a time, copied: it stays in the processor's cache, as all columns at once would not.
    columns = zip(predicted.T, true.T, strict=True)
    return np.array([_correlate(*(np.ascontiguousarray(column) for column in pair)) for pair in columns])


def _correlate(predictions: FloatArray, targets: FloatArray) -> float:
    # The ranks are exact multiples of 1/2, and so are their sums, whatever the order they are added in.
    target_ranks = _rank(targets)
    order, prediction_ranks = _sort(predictions)
    norms = (prediction_ranks @ prediction_ranks) * (target_ranks @ target_ranks)
    if not norms:
        return 0.0 if target_ranks.any() else np.nan
    correlation = float(prediction_ranks @ target_ranks.take(order)) / math.sqrt(norms)
    return max(-1.0, min(correlation, 1.0))


def _rank(values: FloatArray) -> FloatArray:
    # Ranks about 0 in the order of the rows. Few levels evenly apart, as ratings have, are counted and not sorted.
    codes = _digits(values, n_values=_N_LEVELS).astype(np.intp)
    levels = np.empty(_N_LEVELS)
    levels[codes] = values
    if (levels.take(codes) == values).all():
        counts = np.bincount(codes, minlength=_N_LEVELS)
        return (counts.cumsum() - (counts + len(values)) / 2).take(codes)
    order, ascending_ranks = _sort(values)
    ranks = np.empty(len(values))
    ranks[order] = ascending_ranks
    return ranks


def _sort(values: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    # The order that sorts values, and their ranks about 0 in that order; equal values share their mean rank. NumPy
    # sorts 16-bit integers by radix, several times as fast as it compares floats, and 32 bits tell most values apart.
    digits = _digits(values, n_values=2**32)
    order = np.lexsort((digits.astype(np.uint16), (digits >> 16).astype(np.uint16)))
    ascending = values.take(order)
    if (ascending[1:] > ascending[:-1]).all():
        return order, np.arange(len(values)) - (len(values) - 1) / 2
    finish = ascending.argsort(kind="stable")  # fast where little is left to do
    order, ascending = order.take(finish), ascending.take(finish)
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1], [True])))
    return order, np.repeat((starts[1:] + starts[:-1] - len(values)) / 2, np.diff(starts))


def _digits(values: FloatArray, *, n_values: int) -> npt.NDArray[np.uint32]:
    # From the least value to the greatest in equal steps; all 0 where their distance is too small or large for that
    low, high = float(values.min()), float(values.max())
    scale = (n_values - 1) / (high - low) if high > low else 0.0
    if not 0 < scale < np.inf:
        return np.zeros(len(values), dtype=np.uint32)
    return ((values - low) * scale).astype(np.uint32)


def mean_spearman(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Average the Spearman rank correlation over the target columns that can be ranked.

    Args:
        predictions: Scores, shape (n_rows, n_targets).
        targets: Ratings, same shape.

    Returns:
        The mean over the columns whose targets are not constant, in [-1, 1]; higher is better.

    Raises:
        ValueError: As `spearman_by_target`, or if every target column is constant.
    """
    return _mean_defined(spearman_by_target(predictions, targets))


def _mean_defined(by_target: FloatArray) -> float:
    defined = by_target[~np.isnan(by_target)]
    if not len(defined):
        raise ValueError("at least one target column must vary, however: every column is constant")
    return float(defined.mean())


def one_row_per_question(questions: Sequence[object] | npt.NDArray, *, draws: int, seed: int) -> list[npt.NDArray]:
    """Draw one random row of each question, several times, as the hidden test has one row per question.

    Args:
        questions: The question each row belongs to, shape (n_rows,).
        draws: How many independent draws.
        seed: Seeds all draws.

    Returns:
        One array of ascending row indices per draw, each of shape (n_questions,).

    Raises:
        ValueError: If there are no rows or draws is below 1.
    """
    _, question_index = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    if not len(question_index) or draws < 1:
        raise ValueError(f"there must be rows and draws, however: {len(question_index)=}, {draws=}")
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        order = generator.permutation(len(question_index))
        _, first = np.unique(question_index[order], return_index=True)
        drawn.append(np.sort(order[first]))
    return drawn


def score_predictions(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    questions: Sequence[object] | npt.NDArray | None = None,
    draws: int = 20,
    seed: int = 0,
) -> dict:
    """Score the 30 columns as the project reports them.

    Args:
        predictions: Scores in submission order, shape (n_rows, 30).
        targets: Ratings, same shape.
        questions: The question of each row; scores one random row per question, averaged over draws. Without it all
            rows are scored at once, which reads about 0.012 too high where questions repeat.
        draws: Number of draws.
        seed: Seeds the draws.

    Returns:
        `mean` of 30, `mean_without_rare` of the other 29, `by_target` (name to correlation or None), `n_rows` scored at
        a time, `n_draws`.

    Raises:
        ValueError: As `spearman_by_target`.
    """
    predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    drawn = [np.arange(len(true))] if questions is None else one_row_per_question(questions, draws=draws, seed=seed)
    by_draw = np.stack([spearman_by_target(predicted[rows], true[rows]) for rows in drawn])  # (n_draws, n_targets)
    common = np.array([name != RARE_TARGET for name in TARGETS])
    defined = ~np.isnan(by_draw)
    by_target = np.where(defined, by_draw, 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    return {
        "mean": float(np.mean([_mean_defined(row) for row in by_draw])),
        "mean_without_rare": float(np.mean([_mean_defined(row[common]) for row in by_draw])),
        "by_target": {
            name: float(value) if seen else None
            for name, value, seen in zip(TARGETS, by_target, defined.any(axis=0), strict=True)
        },
        "n_rows": len(drawn[0]),
        "n_draws": len(drawn),
    }
