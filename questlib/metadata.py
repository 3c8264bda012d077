"""What goes round the transformer: category, host and text statistics as numbers."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from questlib.data import refuse_missing
from questlib.run_folder import as_json
from questlib.schema import METADATA_COLUMNS, TEXT_COLUMNS

_STATISTICS = {
    "characters": lambda text: np.log1p(text.str.len()),
    "lines": lambda text: np.log1p(text.str.count("\n")),
    "question_marks": lambda text: np.log1p(text.str.count(r"\?")),
    "digits": lambda text: text.str.count(r"\d") / text.str.len().clip(lower=1),
    "symbols": lambda text: text.str.count(r"[{}();=<>\\$]") / text.str.len().clip(lower=1),
}
_LEAST_SCALE = 1e-9


class MetadataEncoder(TransformerMixin, BaseEstimator):
    """Encode category and host one-hot, and text statistics where asked for.

    Fit it on the training fold only. A category not seen there is a block of zeros; a host outside the most frequent
    ones is "Others".

    Args:
        n_hosts: How many hosts have a column of their own.
        use_text_statistics: Adds standardised lengths and shares of digits, symbols and question marks.

    Attributes:
        categories_, hosts_: The fold's categories and most frequent hosts, sorted.
        means_, scales_: Mean and standard deviation (1 where it is 0) of each text statistic.

    Example:
        >>> frame = pd.DataFrame({"category": ["SCIENCE", "CULTURE"], "host": ["a.org", "a.org"]})
        >>> MetadataEncoder(n_hosts=1).fit_transform(frame).tolist()
        [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, *, n_hosts: int = 10, use_text_statistics: bool = False) -> None:
        self.n_hosts, self.use_text_statistics = n_hosts, use_text_statistics

    def fit(self, frame: pd.DataFrame, targets: None = None) -> Self:
        """Learn the categories, the most frequent hosts (ties by name) and the scale of the statistics."""
        refuse_missing(frame, columns=self._columns)
        if not isinstance(self.n_hosts, int | np.integer):
            raise TypeError(f"n_hosts must be a whole number, however: {self.n_hosts!r}")
        if not isinstance(self.use_text_statistics, bool | np.bool_):  # a word for no is true
            raise TypeError(f"use_text_statistics must be True or False, however: {self.use_text_statistics!r}")
        if self.n_hosts < 0 or frame.empty:
            raise ValueError(
                f"n_hosts must not be negative and there must be rows, however: {self.n_hosts=}, {len(frame)=}"
            )
        _refuse_nulls(frame, columns=self._columns)
        self.categories_ = sorted(set(frame["category"]))
        by_count = sorted(Counter(frame["host"]).items(), key=lambda item: (-item[1], item[0]))
        self.hosts_ = sorted(host for host, _ in by_count[: self.n_hosts])
        statistics = self._statistics(frame)
        self.means_, scales = statistics.mean(axis=0), statistics.std(axis=0)
        # A constant column's deviation is a rounding error: dividing by it would make any other value enormous.
        self.scales_ = np.where(scales > _LEAST_SCALE, scales, 1.0)
        return self

    def get_feature_names_out(self, input_features: None = None) -> npt.NDArray[np.object_]:
        """Name the columns of what `transform` gives, in order, whatever `input_features` says."""
        check_is_fitted(self)
        names = [f"category={name}" for name in self.categories_]
        names += [f"host={name}" for name in (*self.hosts_, "Others")]
        if self.use_text_statistics:
            names += [f"{column}_{name}" for column in TEXT_COLUMNS for name in _STATISTICS]
        return np.array(names, dtype=object)

    def transform(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Encode rows: zeros and ones, then text statistics in standard deviations from the mean."""
        check_is_fitted(self)
        refuse_missing(frame, columns=self._columns)
        _refuse_nulls(frame, columns=self._texts)  # a category or host that is null is one not seen
        # Of whatever dtype, as objects: what pandas takes for unknown is equal to nothing, not even to false.
        category, host = (
            frame[name].to_numpy(dtype=object, na_value=None)[:, None] == np.array(known, dtype=object)
            for name, known in (("category", self.categories_), ("host", self.hosts_))
        )
        others = ~host.any(axis=1, keepdims=True)
        statistics = (self._statistics(frame) - self.means_) / self.scales_
        return np.hstack([category, host, others, statistics]).astype(np.float32)  # (n_rows, n_features)

    @property
    def _texts(self) -> tuple[str, ...]:
        return TEXT_COLUMNS if self.use_text_statistics else ()

    @property
    def _columns(self) -> tuple[str, ...]:
        return METADATA_COLUMNS + self._texts

    def _statistics(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        if not self.use_text_statistics:
            return np.empty((len(frame), 0))
        columns = [measure(frame[column]) for column in TEXT_COLUMNS for measure in _STATISTICS.values()]
        return np.column_stack(columns).astype(np.float64)

    def to_json(self) -> str:
        """Write parameters and learned state as JSON."""
        check_is_fitted(self)
        state = {name: getattr(self, name) for name in ("categories_", "hosts_")}
        arrays = {name: getattr(self, name).tolist() for name in ("means_", "scales_")}
        return as_json({"parameters": self.get_params(), "state": state, "arrays": arrays})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        stored = json.loads(text)
        encoder = cls(**stored["parameters"])
        encoder.categories_, encoder.hosts_ = (stored["state"][name] for name in ("categories_", "hosts_"))
        encoder.means_, encoder.scales_ = (np.array(stored["arrays"][name]) for name in ("means_", "scales_"))
        return encoder


def _refuse_nulls(frame: pd.DataFrame, *, columns: Iterable[str]) -> None:
    for name in columns:
        wrong = [value for value in frame[name].unique() if not isinstance(value, str)][:3]
        if wrong:
            raise TypeError(f"{name} must hold strings, however: {wrong}; fill nulls with questlib.data.fill_nulls")
