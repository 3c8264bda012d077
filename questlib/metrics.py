"""The competition's metric, and the protocol under which it is honest."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.ranks import FloatArray, rank_values, sort_and_rank
from questlib.schema import RARE_TARGET, TARGETS

_MOST_DRAWS = 10_000  # that are kept side by side

Questions = Sequence[object] | npt.NDArray  # the question of each row


def spearman_by_target(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> FloatArray:
    """Correlate the ranks of each column of (n_rows, n_targets), in [-1, 1]; equal values share their mean rank.

    A constant target column cannot be ranked by anyone: its correlation is NaN. A constant prediction column ranks
    nothing where there was something to rank: its correlation is 0.

    Raises:
        ValueError: If the shapes differ or are not two-dimensional, two data frames have their labels in another
            order, there are fewer than two rows, or a value is NaN.

    Source:
        Google QUEST Q&A Labeling, evaluation page; checked against scipy.stats.spearmanr.
    """
    predicted, true = _read_pair(predictions, targets)
    if len(predicted) < 2:
        raise ValueError(f"a rank correlation must have at least two rows, however: {len(predicted)=}")
    for name, values in (("predictions", predicted), ("targets", true)):
        if np.isnan(values).any():
            columns = np.flatnonzero(np.isnan(values).any(axis=0)).tolist()
            raise ValueError(f"{name} must not hold NaN, however: NaN in columns {columns}")
    # A column at a time, copied: it stays in the processor's cache, as all columns at once would not.
    columns = zip(predicted.T, true.T, strict=True)
    return np.array([_correlate(*(np.ascontiguousarray(column) for column in pair)) for pair in columns])


def _read_pair(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    predicted, true = read_numbers(predictions, what="predictions"), read_numbers(targets, what="targets")
    if predicted.shape != true.shape or predicted.ndim != 2:
        raise ValueError(
            "predictions and targets must share one shape (n_rows, n_targets), however: "
            f"{predicted.shape=}, {true.shape=}"
        )
    if isinstance(predictions, pd.DataFrame) and isinstance(targets, pd.DataFrame):
        for name in ("index", "columns"):
            labels = getattr(predictions, name), getattr(targets, name)
            # Other labels altogether, such as those of an array's frame, say nothing of the order.
            if not labels[0].equals(labels[1]) and set(labels[0]) == set(labels[1]):
                first = next(pair for pair in zip(*labels, strict=True) if pair[0] != pair[1])
                raise ValueError(
                    f"predictions and targets must have their {name} in the same order, however the first to differ "
                    f"are {first}; reindex one like the other, or give arrays"
                )
    return predicted, true


def _correlate(predictions: FloatArray, targets: FloatArray) -> float:
    # The ranks are exact multiples of 1/2, and so are their sums, whatever the order they are added in.
    target_ranks = rank_values(targets)
    order, prediction_ranks = sort_and_rank(predictions)
    norms = (prediction_ranks @ prediction_ranks) * (target_ranks @ target_ranks)
    if not norms:
        return 0.0 if target_ranks.any() else np.nan
    correlation = float(prediction_ranks @ target_ranks.take(order)) / math.sqrt(norms)
    return max(-1.0, min(correlation, 1.0))


def mean_spearman(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Average `spearman_by_target` over the columns whose targets are not constant; a ValueError if all are."""
    return _mean_defined(spearman_by_target(predictions, targets))


def _mean_defined(by_target: FloatArray, *, but: str = "") -> float:
    defined = by_target[~np.isnan(by_target)]
    if not len(defined):
        raise ValueError(f"at least one target column{but} must vary, however: every column is constant")
    return float(defined.mean())


def read_numbers(values: npt.ArrayLike, *, what: str) -> FloatArray:
    """Read a table, called `what`, of anything that is a number; a null of whatever kind is NaN."""
    try:
        if isinstance(values, pd.DataFrame):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must hold numbers alone, (n_rows, n_targets), however: {error}") from error


def read_names(
    names: Sequence[object] | npt.NDArray | pd.Series, *, n_rows: int, what: str, remedy: str
) -> npt.NDArray[np.str_]:
    """Read the name that each row has in `what`, (n_rows,), as a string; rows without one are no rows of one name."""
    given = np.asarray(names, dtype=object)
    if given.shape != (n_rows,):
        raise ValueError(f"{what} must have shape ({n_rows},), however: {given.shape=}")
    missing = pd.isna(given)
    if missing.any():
        raise ValueError(f"{what} must name that of each row, however {int(missing.sum())} rows have none; {remedy}")
    return given.astype(str)


def number_questions(questions: Questions | None, *, n_rows: int) -> npt.NDArray[np.intp]:
    """Number the question of each row from 0, in the order of their names, (n_rows,); where None, every row is one."""
    if questions is None:
        return np.arange(n_rows)
    names = read_names(questions, n_rows=n_rows, what="questions", remedy="give questlib.question_of(frame)")
    return np.unique(names, return_inverse=True)[1]


def one_row_per_question(questions: Questions, *, draws: int, seed: int) -> list[npt.NDArray]:
    """Draw one random row per question, ascending, several times, as the hidden test has one row per question."""
    return _draw_rows(number_questions(questions, n_rows=len(questions)), draws=draws, seed=seed)


def _draw_rows(question_index: npt.NDArray[np.intp], *, draws: int, seed: int) -> list[npt.NDArray]:
    are_whole = all(isinstance(each, int | np.integer) for each in (draws, seed))
    if not len(question_index) or not are_whole or draws < 1 or seed < 0:
        raise ValueError(
            "there must be rows, draws and a seed of at least 0, in whole numbers, however: "
            f"{len(question_index)=}, {draws=}, {seed=}"
        )
    if draws > _MOST_DRAWS:
        raise ValueError(f"there must be at most {_MOST_DRAWS} draws, however: {draws=}; 20 tell nearly all")
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(question_index)) for _ in range(draws))
    return [np.sort(order[np.unique(question_index[order], return_index=True)[1]]) for order in orders]


def score_predictions(
    predictions: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    questions: Questions | None = None,
    draws: int = 20,
    seed: int = 0,
) -> dict:
    """Score predictions of shape (n_rows, 30), in submission order, as the project reports them.

    With questions one random row of each is scored, averaged over draws. Without them all rows are scored at once,
    which reads about 0.012 too high where questions repeat.

    Returns:
        `mean` of 30, `mean_without_rare` of the other 29, `by_target` (name to correlation or None), `n_rows` scored at
        a time, `n_draws`.

    Raises:
        ValueError: As `spearman_by_target`, or if there are other columns than 30, a row has no question, or there is
            nothing to rank.
    """
    predicted, true = _read_pair(predictions, targets)
    if true.shape[1] != len(TARGETS):
        raise ValueError(f"there must be a column for each of {len(TARGETS)} targets, however: {true.shape=}")
    question = number_questions(questions, n_rows=len(true))
    drawn = [np.arange(len(true))] if questions is None else _draw_rows(question, draws=draws, seed=seed)
    by_draw = np.stack([spearman_by_target(predicted[rows], true[rows]) for rows in drawn])  # (n_draws, n_targets)
    common = np.array([name != RARE_TARGET for name in TARGETS])
    defined = ~np.isnan(by_draw)
    by_target = np.where(defined, by_draw, 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    known = [float(value) if seen else None for value, seen in zip(by_target, defined.any(axis=0), strict=True)]
    return {
        "mean": float(np.mean([_mean_defined(row) for row in by_draw])),
        "mean_without_rare": float(np.mean([_mean_defined(row[common], but=f" but {RARE_TARGET}") for row in by_draw])),
        "by_target": dict(zip(TARGETS, known, strict=True)),
        "n_rows": len(drawn[0]),
        "n_draws": len(drawn),
    }
