"""What is made of the ratings before a model learns them; fitted on the rows that it learns from."""

from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from questlib.ranks import FloatArray
from questlib.schema import TARGETS

# A target that hardly varies would drown all others.
_MOST_WEIGHT = 5.0


class RankScale:
    """Put ratings where their ranks are, in [0, 1] by target: as far apart as rows lie between them.

    A rating that was not seen lies in proportion between its neighbours; the order, so the score, stays the same.
    """

    def fit(self, targets: npt.ArrayLike) -> Self:
        """Learn the ranks of ratings of shape (n_rows, n_targets)."""
        self._scales = []
        for column in np.asarray(targets, dtype=np.float64).T:
            levels, first = np.unique(column, return_index=True)
            ranks = rankdata(column)[first]
            # One level alone stays what it is.
            self._scales.append((levels, (ranks - ranks[0]) / (ranks[-1] - ranks[0]) if len(levels) > 1 else levels))
        return self

    def transform(self, targets: npt.ArrayLike) -> FloatArray:
        """Give each rating its place; same shape."""
        columns = np.asarray(targets, dtype=np.float64).T
        return np.stack(
            [np.interp(column, *scale) for column, scale in zip(columns, self._scales, strict=True)], axis=1
        )


def weigh_by_spread(targets: npt.ArrayLike) -> dict[str, float]:
    """Weigh each target by one over the standard deviation of its ratings, against the usual one, 5 at most."""
    spread = np.asarray(targets, dtype=np.float64).std(axis=0)
    usual = float(np.median(spread))
    weights = np.minimum(usual / np.maximum(spread, 1e-12), _MOST_WEIGHT) if usual else np.ones(len(spread))
    return dict(zip(TARGETS, weights.tolist(), strict=True))
