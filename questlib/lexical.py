"""A model of words and hosts alone: no torch, fitted in seconds, and wrong in other places than a transformer.

Weighted word counts of title, body and answer, the category, the host and a few lengths go through one ridge regression
for all targets, solved over pairs of rows, of which there are fewer than words. There is no saved state: to refit takes
seconds and gives the same model every time.

Facts about hosts are learned from the training fold, and no host is named here: all positives of
question_type_spelling, say, come from two of them. The model has them in its one-hot columns; `HostRates` gives them to
any model's predictions.
"""

import json
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from questlib.schema import METADATA_COLUMNS, TEXT_COLUMNS

FloatArray = npt.NDArray[np.float64]

# Words, and the signs that tell a question, a shout, a formula or a command from prose.
_TOKEN = r"(?u)\b\w+\b|[?!$\\]"
_COUNTED = (r"\n", r"\?", r"http", r"\d", r"[$\\`]")


class LexicalModel:
    """Predict the targets from TF-IDF, one-hot metadata and lengths with a ridge.

    Args:
        alpha: Strength of the ridge.
        metadata_weight: Scale of the one-hot columns beside texts of unit length; 0 forgets category and host.
        length_weight: Scale of the standardised lengths.
    """

    def __init__(self, *, alpha: float = 10.0, metadata_weight: float = 0.5, length_weight: float = 0.17) -> None:
        self.alpha = alpha
        self.metadata_weight = metadata_weight
        self.length_weight = length_weight

    def fit(self, frame: pd.DataFrame, targets: npt.ArrayLike) -> Self:
        """Learn words, categories, hosts and weights.

        Args:
            frame: The table's text and metadata columns; a null counts as empty.
            targets: Ratings in [0, 1], shape (n_rows, n_targets).

        Returns:
            The fitted model.

        Raises:
            ValueError: If a column is missing, the row counts differ, or a target is NaN.
        """
        true = np.asarray(targets, dtype=np.float64)
        if true.ndim != 2 or len(true) != len(frame) or not len(true):
            raise ValueError(f"targets must have shape ({len(frame)}, n_targets) with rows, however: {true.shape=}")
        if not np.isfinite(true).all():
            raise ValueError("targets must be finite, however: they hold NaN or infinity; drop these rows")
        self.mean_ = true.mean(axis=0)
        self.pipeline_ = self._assemble().fit(_filled(frame), true - self.mean_)
        return self

    def predict(self, frame: pd.DataFrame) -> FloatArray:
        """Predict ratings.

        Args:
            frame: The columns of `fit`; hosts, categories and words not seen there count as absent.

        Returns:
            Ratings in [0, 1], shape (n_rows, n_targets).

        Raises:
            RuntimeError: If called before `fit`.
            ValueError: If a column is missing.
        """
        if not hasattr(self, "pipeline_"):
            raise RuntimeError("LexicalModel must be fitted before it predicts, however: fit was not called; call fit")
        if not len(frame):
            return np.zeros((0, len(self.mean_)))
        return np.clip(self.pipeline_.predict(_filled(frame)) + self.mean_, 0, 1)

    def _assemble(self) -> Pipeline:
        words = [
            (column, TfidfVectorizer(min_df=2, ngram_range=(1, 2), sublinear_tf=True, token_pattern=_TOKEN), column)
            for column in TEXT_COLUMNS
        ]
        one_hot = ("metadata", OneHotEncoder(handle_unknown="ignore", dtype=np.float32), list(METADATA_COLUMNS))
        lengths = make_pipeline(FunctionTransformer(_measure), StandardScaler())
        weights = {"metadata": self.metadata_weight, "lengths": self.length_weight}
        steps = [*words, one_hot, ("lengths", lengths, list(TEXT_COLUMNS))]
        columns = ColumnTransformer(steps, transformer_weights=weights, sparse_threshold=1.0)
        return Pipeline([("columns", columns), ("ridge", KernelRidge(alpha=self.alpha, kernel="linear"))])


class HostRates:
    """Scale down a rare target's predictions on hosts where the training fold has not seen it.

    In rare columns each prediction is multiplied by the host's smoothed mean rating over the overall mean, at most 1;
    all other columns stay as they are. A host never seen counts as an average one.

    Args:
        rare_share: A target is rare if at most this share of its ratings is above 0.
        strength: How many average rows each host's mean is smoothed with.

    Attributes:
        rates_: For each rare column its hosts' factors in [0, 1].
    """

    def __init__(self, *, rare_share: float = 0.005, strength: float = 20.0) -> None:
        self.rare_share = rare_share
        self.strength = strength

    def fit(self, hosts: Sequence[str] | npt.NDArray | pd.Series, targets: npt.ArrayLike) -> Self:
        """Learn the factors from the training fold.

        Args:
            hosts: The host of each row, shape (n_rows,).
            targets: Ratings in [0, 1], shape (n_rows, n_targets).

        Returns:
            The fitted estimator.

        Raises:
            ValueError: If the row counts differ, or a target is NaN.
        """
        true, names = np.asarray(targets, dtype=np.float64), np.asarray(hosts, dtype=str)
        if true.ndim != 2 or names.shape != (len(true),):
            raise ValueError(f"hosts and targets must have one row each, however: {names.shape=}, {true.shape=}")
        if not np.isfinite(true).all():
            raise ValueError("targets must be finite, however: they hold NaN or infinity; drop these rows")
        known, place, n_rows = np.unique(names, return_inverse=True, return_counts=True)
        self.rates_: dict[int, dict[str, float]] = {}
        for column, ratings in enumerate(true.T):
            if 0 < np.mean(ratings > 0) <= self.rare_share:
                mean = ratings.mean()
                smoothed = (np.bincount(place, ratings) + self.strength * mean) / (n_rows + self.strength)
                factors = np.minimum(smoothed / mean, 1).tolist()
                self.rates_[column] = dict(zip(known.tolist(), factors, strict=True))
        return self

    def transform(self, predictions: npt.ArrayLike, hosts: Sequence[str] | npt.NDArray | pd.Series) -> FloatArray:
        """Scale the rare columns.

        Args:
            predictions: Scores of at least 0, shape (n_rows, n_targets).
            hosts: The host of each row, shape (n_rows,).

        Returns:
            The scaled scores, same shape.

        Raises:
            RuntimeError: If called before `fit`.
            ValueError: If the row counts differ.
        """
        if not hasattr(self, "rates_"):
            raise RuntimeError("HostRates must be fitted before it transforms, however: fit was not called; call fit")
        scaled, names = np.array(predictions, dtype=np.float64), np.asarray(hosts, dtype=str)
        if scaled.ndim != 2 or names.shape != (len(scaled),):
            raise ValueError(f"predictions and hosts must have one row each, however: {scaled.shape=}, {names.shape=}")
        for column, factors in self.rates_.items():
            scaled[:, column] *= [factors.get(name, 1.0) for name in names.tolist()]
        return scaled

    def to_json(self) -> str:
        """Write what was set and learned as JSON."""
        return json.dumps({"rare_share": self.rare_share, "strength": self.strength, "rates": self.rates_})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read an estimator that transforms as the one that was written."""
        state = json.loads(text)
        rates = cls(rare_share=state["rare_share"], strength=state["strength"])
        rates.rates_ = {int(column): factors for column, factors in state["rates"].items()}
        return rates


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    wanted = [*TEXT_COLUMNS, *METADATA_COLUMNS]
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise ValueError(f"frame must have the columns {wanted}, however: missing {missing}")
    return frame[wanted].fillna("").astype(str)


def _measure(texts: pd.DataFrame) -> FloatArray:
    """Logarithms of how long each text is and how often each of the counted patterns occurs."""
    counts = [texts[column].str.len() for column in texts]
    counts += [texts[column].str.count(pattern) for column in texts for pattern in _COUNTED]
    return np.log1p(np.column_stack(counts).astype(np.float64))
