"""What the training fold knows about hosts, given to any model's predictions; no host is named here.

All positives of question_type_spelling, say, come from two hosts, and a blend of transformers hardly knows.
"""

import json
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from questlib.checks import refuse_outside
from questlib.metrics import read_names, read_numbers
from questlib.ranks import FloatArray
from questlib.run_folder import as_json


class HostRates(BaseEstimator):
    """Scale down a rare target's predictions on hosts where the training fold has not seen it.

    In rare columns each prediction is multiplied by the host's smoothed mean rating over the overall mean, at most 1;
    all other columns stay as they are. A host never seen counts as an average one.

    Args:
        rare_share: A target is rare if at most this share of its ratings is above 0.
        strength: How many average rows each host's mean is smoothed with.

    Attributes:
        n_targets_: How many columns there are.
        rates_: For each rare column its hosts' factors in [0, 1].
    """

    def __init__(self, *, rare_share: float = 0.005, strength: float = 20.0) -> None:
        self.rare_share, self.strength = rare_share, strength

    def fit(self, hosts: Sequence[str] | npt.NDArray | pd.Series, targets: npt.ArrayLike) -> Self:
        """Learn the factors from the training fold's ratings in [0, 1], shape (n_rows, n_targets)."""
        true = read_numbers(targets, what="targets")
        if true.ndim != 2:
            raise ValueError(f"targets must have shape (n_rows, n_targets), however: {true.shape=}")
        names = _read_hosts(hosts, n_rows=len(true))
        if not len(true) or not ((true >= 0) & (true <= 1)).all():
            raise ValueError(
                f"targets must be ratings in [0, 1], however: {len(true)=}, or some are NaN or outside; drop these rows"
            )
        refuse_outside(self.rare_share, low=0, high=1, what="rare_share")
        refuse_outside(self.strength, low=0, high=1e9, what="strength")
        known, place, n_rows = np.unique(names, return_inverse=True, return_counts=True)
        self.n_targets_ = true.shape[1]
        self.rates_: dict[int, dict[str, float]] = {}
        for column, ratings in enumerate(true.T):
            if 0 < np.mean(ratings > 0) <= self.rare_share:
                mean = ratings.mean()
                smoothed = (np.bincount(place, ratings) + self.strength * mean) / (n_rows + self.strength)
                factors = np.minimum(smoothed / mean, 1).tolist()
                self.rates_[column] = dict(zip(known.tolist(), factors, strict=True))
        return self

    def transform(self, predictions: npt.ArrayLike, hosts: Sequence[str] | npt.NDArray | pd.Series) -> FloatArray:
        """Scale the rare columns of scores of at least 0, shape (n_rows, n_targets)."""
        check_is_fitted(self)
        scaled = read_numbers(predictions, what="predictions").copy()
        if scaled.ndim != 2 or scaled.shape[1] != self.n_targets_:
            raise ValueError(f"predictions must have {self.n_targets_} columns, however: {scaled.shape=}")
        names = _read_hosts(hosts, n_rows=len(scaled))
        if not (scaled >= 0).all():
            raise ValueError("predictions must be numbers of at least 0, however some are negative or NaN; clip them")
        for column, factors in self.rates_.items():
            scaled[:, column] *= [factors.get(name, 1.0) for name in names.tolist()]
        return scaled

    def to_json(self) -> str:
        """Write what was set and learned as JSON."""
        check_is_fitted(self)
        return as_json(self.get_params() | {"n_targets": self.n_targets_, "rates": self.rates_})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read an estimator that transforms as the one that was written."""
        state = json.loads(text)
        rates = cls(rare_share=state["rare_share"], strength=state["strength"])
        rates.n_targets_ = state["n_targets"]
        rates.rates_ = {int(column): factors for column, factors in state["rates"].items()}
        return rates


def _read_hosts(hosts: Sequence[str] | npt.NDArray | pd.Series, *, n_rows: int) -> npt.NDArray[np.str_]:
    return read_names(hosts, n_rows=n_rows, what="hosts", remedy="give questlib.data.fill_nulls(frame)['host']")
