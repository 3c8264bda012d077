"""Exact ties: where ratings are tied, predictions are tied too, as far as questions not seen gain by it.

Spearman ranks ties. Where 9 of 10 ratings of a column are 0, any order among the rows predicted 0 is noise, and one
common value for them scores higher. This module finds which rows to tie, exactly, and refuses what looks like luck.

The optimum. Sort a column by prediction and cut it into K cells that hold share w_k of the weight (a row weighs one
over the rows of its question, because the hidden test has one row per question). A segmentation leaves each cell where
it is or ties a run of cells [a, b). With W_k the cumulative weight, a run has the mid-rank R = (W_a + W_b - 1) / 2,
and with r the targets' ranks, centred and of unit norm, and S_k their cumulative sum, Spearman's correlation is

    N / sqrt(D),    N = sum of R (S_b - S_a),    D = sum of R^2 (W_b - W_a),    over the runs of the segmentation,

for a cell left in order is a run of one. Both sums are additive over runs, so for a fixed multiplier m the maximum of
N - m D is a longest path over the K + 1 boundaries: K (K + 1) / 2 edges, K steps that numpy does for all columns at
once.

Why that is enough. {(D, N): N <= c sqrt(D)} is convex for c > 0, so N / sqrt(D) is quasi-convex, and its maximum over
all segmentations lies on a vertex of the upper hull of their points (D, N), which maximises N - m D for some m.
`segmentation.best_segments` walks these vertices: a chord between two known ones gives m, and the path for m returns
either a new vertex between them or the proof that there is none; what lies between them is inside the triangle under
their supporting lines, whose apex bounds N / sqrt(D), and an interval whose bound does not exceed the best is dropped.
Nothing left open is the proof that the best is the global optimum. Cost: O(n log n) to sort n rows, O(K^2) a path,
about a dozen paths.

The guard. S comes from isotonic regressions on resampled questions, averaged. Tying a run gives up its inner order,
worth the sum of (rank - R) r over the run, which is known only to sqrt(variance of r in the run * lost D / questions):
N pays `caution` such standard errors for each tied run, and `least_gain` of correlation on top. Measured on unseen
questions (bench/ties.py), the charge in standard errors keeps the middle of a column in order and still ties the zeros.
"""

import json
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from questlib.checks import refuse_other_kind, refuse_outside
from questlib.metrics import Questions, number_questions, read_numbers
from questlib.ranks import FloatArray
from questlib.run_folder import as_json
from questlib.segmentation import best_segments

# Boundaries between cells: evenly spaced over the rows, and geometric towards both ends, where rare ratings live.
_EVEN_CELLS, _TAIL_CELLS = 128, 24
_TOLERANCE = 1e-10


class RankTies(BaseEstimator):
    """Tie runs of predictions, per column, where that raises Spearman's correlation on questions not seen.

    What is learned are intervals of prediction values, so a row's answer does not depend on the other rows of its
    table; only a column whose order ties would take whole is left as it was in that table. Order is never
    reversed, and transforming twice equals transforming once.

    Args:
        caution: Standard errors that a tied run is charged for the order it gives up.
        least_gain: Correlation that a tied run is charged on top.
        n_resamples: Resamples of the questions whose isotonic fits are averaged; 0 takes the ratings as they are.
        seed: Seeds the resamples.

    Attributes:
        intervals_: For each column the tied runs as (lowest value, value to stay below, common value).

    Example:
        >>> predictions, targets = [[0.1], [0.3], [0.2], [0.9]], [[0.0], [0.0], [0.0], [1.0]]
        >>> ties = RankTies(caution=0, least_gain=0, n_resamples=0).fit(predictions, targets)
        >>> ties.transform(predictions)[:, 0].tolist()
        [0.0, 0.0, 0.0, 0.9]
    """

    def __init__(
        self, *, caution: float = 0.5, least_gain: float = 0.004, n_resamples: int = 100, seed: int = 0
    ) -> None:
        self.caution, self.least_gain = caution, least_gain
        self.n_resamples, self.seed = n_resamples, seed

    def fit(self, predictions: npt.ArrayLike, targets: npt.ArrayLike, *, questions: Questions | None = None) -> Self:
        """Learn which runs to tie, best from out-of-fold predictions; without questions every row is one."""
        refuse_other_kind(self.n_resamples, int, what="n_resamples")
        for name in ("caution", "least_gain", "n_resamples"):
            refuse_outside(getattr(self, name), low=0, high=1e6, what=name)
        predicted, true = _checked("predictions", predictions), _checked("targets", targets)
        if predicted.shape != true.shape or not len(predicted):
            raise ValueError(
                "predictions and targets must share one shape (n_rows, n_targets) with rows, however: "
                f"{predicted.shape=}, {true.shape=}"
            )
        question = number_questions(questions, n_rows=len(true))
        n_rows = np.bincount(question)
        weights = 1 / (n_rows[question] * len(n_rows))  # (n_rows,), sums to 1
        # A Poisson count per question is a bootstrap of questions.
        counts = np.random.default_rng(self.seed).poisson(1.0, (self.n_resamples, len(n_rows)))
        resamples = np.ascontiguousarray(counts.T, dtype=np.float32)  # (n_questions, n_resamples)
        columns = [_cut_column(*pair, weights, question, resamples) for pair in zip(predicted.T, true.T, strict=True)]
        chosen = self._choose_runs(columns, n_questions=len(n_rows)) if columns else []
        self.intervals_ = [[_interval(cut, *run) for run in runs] for cut, runs in zip(columns, chosen, strict=True)]
        return self

    def _choose_runs(self, columns: list["_Column"], *, n_questions: int) -> list[list[tuple[int, int]]]:
        ranks_to = np.stack([column.weight for column in columns])  # (n_targets, n_cells + 1), likewise below
        sums_to, squares_to = np.stack([column.ranks for column in columns]), np.stack([c.squares for c in columns])
        run = (slice(None), slice(None), None), (slice(None), None, slice(None))  # [column, start, stop]
        weight = np.maximum(ranks_to[run[1]] - ranks_to[run[0]], 0)
        middle = (ranks_to[run[1]] + ranks_to[run[0]] - 1) / 2
        rank_sum = sums_to[run[1]] - sums_to[run[0]]
        gain, spread = middle * rank_sum, middle**2 * weight
        cell = np.arange(ranks_to.shape[1] - 1)
        left_gain, left_spread = gain[:, cell, cell + 1], spread[:, cell, cell + 1]  # (n_targets, n_cells)
        spread_to = np.pad(np.cumsum(left_spread, axis=1), ((0, 0), (1, 0)))
        lost_spread = np.maximum(spread_to[run[1]] - spread_to[run[0]] - spread, 0)
        # One question more, as spread out as the whole column, so that a few equal ratings do not look certain.
        squares = squares_to[run[1]] - squares_to[run[0]] - rank_sum**2 / np.maximum(weight, _TOLERANCE)
        variance = (np.maximum(squares, 0) * n_questions + 1) / (weight * n_questions + 1)
        gain -= self.caution * np.sqrt(variance * lost_spread / n_questions)
        gain -= self.least_gain * np.sqrt(spread_to[:, -1])[:, None, None]
        return best_segments(gain, spread, left_gain, left_spread)

    def transform(self, predictions: npt.ArrayLike) -> FloatArray:
        """Give each tied run its common value, in [0, 1] where predictions are; all else stays as it is."""
        check_is_fitted(self)
        predicted = _checked("predictions", predictions)
        if predicted.shape[1] != len(self.intervals_):
            raise ValueError(f"predictions must have {len(self.intervals_)} columns, however: {predicted.shape=}")
        tied = predicted.copy()
        for column, intervals in enumerate(self.intervals_):
            for lowest, below, value in intervals:
                inside = (predicted[:, column] >= lowest) & (predicted[:, column] < below)
                tied[inside, column] = value
        # A constant column scores nothing (Kaggle refuses it), so there the raw order is the better answer.
        # A row alone has no order to lose, and is answered as among others.
        if len(tied):
            flattened = (np.ptp(tied, axis=0) == 0) & (np.ptp(predicted, axis=0) > 0)
            tied[:, flattened] = predicted[:, flattened]
        return tied

    def to_json(self) -> str:
        """Write what was set and learned as JSON; an open end of an interval is null."""
        check_is_fitted(self)
        intervals = [[[end if np.isfinite(end) else None for end in run] for run in runs] for runs in self.intervals_]
        return as_json({"settings": self.get_params(), "intervals": intervals})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read an estimator that transforms as the one that was written."""
        state = json.loads(text)
        ties = cls(**state["settings"])
        ties.intervals_ = [
            [(-np.inf if low is None else low, np.inf if below is None else below, value) for low, below, value in runs]
            for runs in state["intervals"]
        ]
        return ties


def _checked(name: str, values: npt.ArrayLike) -> FloatArray:
    array = read_numbers(values, what=name)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n_rows, n_targets), however: {array.shape=}")
    if not np.isfinite(array).all():
        columns = np.flatnonzero(~np.isfinite(array).all(axis=0)).tolist()
        raise ValueError(f"{name} must be finite, however: NaN or infinity in columns {columns}")
    return array


class _Column(NamedTuple):
    """One sorted column at its cell boundaries, each array of shape (n_cells + 1,)."""

    thresholds: FloatArray  # the value that separates the rows below from those above
    weight: FloatArray  # cumulative share of the weight
    ranks: FloatArray  # cumulative sum of the targets' smoothed ranks
    squares: FloatArray  # cumulative sum of the targets' squared ranks
    levels: tuple[float, float]  # the common values of a run that reaches the lower, the upper end


def _cut_column(
    predicted: FloatArray, true: FloatArray, weights: FloatArray, question: npt.NDArray, resamples: npt.NDArray
) -> _Column:
    n_rows = len(predicted)
    order = np.argsort(predicted, kind="stable")
    values = predicted[order]
    tail = np.geomspace(1, max(n_rows / 16, 1), _TAIL_CELLS)
    wanted = np.concatenate([np.linspace(0, n_rows, _EVEN_CELLS + 1)[1:-1], tail, n_rows - tail])
    # Equal predictions stay in one cell: a boundary moves down to the first row of its value.
    rows = np.sort(np.searchsorted(values, values[np.clip(wanted.round().astype(int), 0, n_rows - 1)]))
    bounds = np.concatenate([[0], rows, [n_rows]])
    above, under = values[rows], values[np.maximum(rows - 1, 0)]
    midway = under + (above - under) / 2
    inner = np.where(rows == 0, -np.inf, np.where(midway > under, midway, above))
    thresholds = np.concatenate([[-np.inf], inner, [np.inf]])
    sorted_weights = weights[order]
    rank = _centred_unit_ranks(true, weights)[order]

    def up_to_bounds(amounts: FloatArray) -> FloatArray:
        total = np.zeros((n_rows + 1, *amounts.shape[1:]))
        np.cumsum(amounts, axis=0, out=total[1:])
        return total[bounds]

    weight = up_to_bounds(sorted_weights)
    ranks = up_to_bounds(sorted_weights * rank)
    if resamples.shape[1]:
        # Rows sorted by cell are a sparse matrix (n_cells, n_questions) already, with `bounds` as its row pointers.
        shape = (len(bounds) - 1, len(resamples))
        drawn_weight, drawn_ranks = (
            csr_array((amounts, question[order], bounds), shape=shape) @ resamples
            for amounts in (sorted_weights, sorted_weights * rank)
        )  # (n_cells, n_resamples)
        smooth = np.mean([_rising(*pair) for pair in zip(drawn_ranks.T, drawn_weight.T, strict=True)], axis=0)
        ranks = np.concatenate([[0.0], np.cumsum(smooth * np.diff(weight))])
    levels = (min(0.0, float(values[0])), max(1.0, float(values[-1])))
    return _Column(thresholds, weight, ranks, up_to_bounds(sorted_weights * rank**2), levels)


def _centred_unit_ranks(true: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mid-ranks with weighted mean 0 and norm 1; zeros for a constant column."""
    _, level = np.unique(true, return_inverse=True)
    share = np.bincount(level, weights)
    middle = np.cumsum(share) - share / 2 - share.sum() / 2
    norm = np.sqrt(share @ middle**2)
    return (middle / norm if norm > _TOLERANCE else np.zeros_like(middle))[level]


def _rising(rank_sums: FloatArray, weights: FloatArray) -> FloatArray:
    """Isotonic mean rank per cell; a cell without rows takes what lies between its neighbours."""
    filled = np.flatnonzero(weights > 0)
    if not len(filled):
        return np.zeros_like(weights)
    fitted = isotonic_regression(rank_sums[filled] / weights[filled], weights=weights[filled]).x
    return np.interp(np.arange(len(weights)), filled, fitted)


def _interval(column: _Column, start: int, stop: int) -> tuple[float, float, float]:
    lowest, below = float(column.thresholds[start]), float(column.thresholds[stop])
    # The ends take the ends of the scale, the same for every fold, so that folds can be put together.
    value = column.levels[0] if lowest == -np.inf else column.levels[1] if below == np.inf else lowest
    return lowest, below, value
