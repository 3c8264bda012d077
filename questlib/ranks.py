"""Ranks about 0, fast: ratings are counted, not sorted, and other numbers are sorted as integers."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Ratings are means of a few raters: of halves, thirds, ... that many steps tell apart.
_N_LEVELS = 256


def rank_values(values: FloatArray) -> FloatArray:
    """Rank values about 0, in the order of the rows; equal values share their mean rank."""
    # Few levels evenly apart, as ratings have, are counted and not sorted.
    codes = _digits(values, n_values=_N_LEVELS).astype(np.intp)
    levels = np.empty(_N_LEVELS)
    levels[codes] = values
    if (levels.take(codes) == values).all():
        counts = np.bincount(codes, minlength=_N_LEVELS)
        return (counts.cumsum() - (counts + len(values)) / 2).take(codes)
    order, ascending_ranks = sort_and_rank(values)
    ranks = np.empty(len(values))
    ranks[order] = ascending_ranks
    return ranks


def sort_and_rank(values: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Give the order that sorts values, and their ranks about 0 in that order; equal values share their mean rank."""
    # NumPy sorts 16-bit integers by radix, far faster than it compares floats, and 32 bits tell most values apart.
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
