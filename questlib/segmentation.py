"""The segmentation of sorted columns with the highest gain / sqrt(spread); questlib.ties says why it is exact."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from questlib.ranks import FloatArray

# Gains are correlations, so this is far below what any table can tell.
_TOLERANCE = 1e-10


class _Vertex(NamedTuple):
    spread: float
    gain: float
    multiplier: float  # the slope of a line that passes through it and over every segmentation


def best_segments(
    gain: FloatArray, spread: FloatArray, left_gain: FloatArray, left_spread: FloatArray
) -> list[list[tuple[int, int]]]:
    """Find the tied runs (start, stop) of each column's segmentation with the highest gain / sqrt(spread), ascending.

    `gain` and `spread` are N, less its charges, and D of each tied run, shape (n_columns, n_cells + 1, n_cells + 1);
    `left_gain` and `left_spread` are N and D of each cell left in order, shape (n_columns, n_cells).
    """
    by_stop = np.ascontiguousarray(gain.transpose(2, 0, 1)), np.ascontiguousarray(spread.transpose(2, 0, 1))
    multipliers = np.zeros(len(gain))
    total_gain, total_spread, _ = _longest_paths(*by_stop, left_gain, left_spread, multipliers)
    origin = _Vertex(0.0, 0.0, np.inf)  # everything tied
    best = [_Vertex(*point, 0.0) for point in zip(total_spread.tolist(), total_gain.tolist(), strict=True)]
    # A column without any positive gain cannot be helped; its list of open intervals starts empty.
    open_intervals = [[(np.inf, origin, right)] if right.gain > _TOLERANCE else [] for right in best]
    while any(open_intervals):
        chosen = {column: max(intervals) for column, intervals in enumerate(open_intervals) if intervals}
        for column, (bound, left, right) in chosen.items():
            open_intervals[column].remove((bound, left, right))
            multipliers[column] = (right.gain - left.gain) / (right.spread - left.spread)
        total_gain, total_spread, _ = _longest_paths(*by_stop, left_gain, left_spread, multipliers)
        for column, (_, left, right) in chosen.items():
            found = _Vertex(float(total_spread[column]), float(total_gain[column]), float(multipliers[column]))
            height = found.gain - left.gain - found.multiplier * (found.spread - left.spread)
            if height <= _TOLERANCE or not left.spread < found.spread < right.spread:
                continue  # the chord is an edge of the hull
            if _score(found) > _score(best[column]):
                best[column] = found
            halves = [(_bound(*ends), *ends) for ends in ((left, found), (found, right))]
            still_open = [*open_intervals[column], *halves]
            open_intervals[column] = [one for one in still_open if one[0] > _score(best[column]) + _TOLERANCE]
    solved = np.array([vertex.multiplier for vertex in best])
    _, _, came_from = _longest_paths(*by_stop, left_gain, left_spread, solved)
    return [_trace(path) if vertex.gain > _TOLERANCE else [] for path, vertex in zip(came_from, best, strict=True)]


def _score(vertex: _Vertex) -> float:
    return vertex.gain / vertex.spread**0.5 if vertex.spread > 0 else 0.0


def _bound(left: _Vertex, right: _Vertex) -> float:
    """No segmentation between two vertices scores above the point where their supporting lines meet, or above them."""
    if not np.isfinite(left.multiplier) or left.multiplier - right.multiplier < _TOLERANCE:
        return np.inf if not np.isfinite(left.multiplier) else max(_score(left), _score(right))
    rise = left.gain - left.multiplier * left.spread - right.gain + right.multiplier * right.spread
    spread = -rise / (left.multiplier - right.multiplier)
    apex = _Vertex(spread, left.gain + left.multiplier * (spread - left.spread), 0.0)
    return max(_score(left), _score(right), _score(apex))


def _longest_paths(
    gain_by_stop: FloatArray, spread_by_stop: FloatArray, left_gain: FloatArray, left_spread: FloatArray, m: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Maximise N - m D; the path names for each boundary the start of its tied run, or -1 for a cell left in order."""
    n_boundaries, n_columns, _ = gain_by_stop.shape
    column = np.arange(n_columns)
    value, gain, spread = np.zeros((3, n_columns, n_boundaries))
    came_from = np.full((n_columns, n_boundaries), -1)
    left_value = left_gain - m[:, None] * left_spread
    for stop in range(1, n_boundaries):
        tied = value[:, :stop] + gain_by_stop[stop, :, :stop] - m[:, None] * spread_by_stop[stop, :, :stop]
        start = tied.argmax(axis=1)
        in_order = value[:, stop - 1] + left_value[:, stop - 1]
        is_tied = tied[column, start] > in_order + _TOLERANCE
        came_from[:, stop] = np.where(is_tied, start, -1)
        before = np.where(is_tied, start, stop - 1)
        value[:, stop] = np.where(is_tied, tied[column, start], in_order)
        for total, by_stop, left in ((gain, gain_by_stop, left_gain), (spread, spread_by_stop, left_spread)):
            total[:, stop] = total[column, before] + np.where(is_tied, by_stop[stop, column, start], left[:, stop - 1])
    return gain[:, -1], spread[:, -1], came_from


def _trace(came_from: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    runs, stop = [], len(came_from) - 1
    while stop > 0:
        start = int(came_from[stop])
        if start >= 0:
            runs.append((start, stop))
        stop = start if start >= 0 else stop - 1
    return runs[::-1]
