"""A model of words and hosts alone: no torch, fitted in seconds, and wrong in other places than a transformer.

Weighted word counts of title, body and answer, the category, the host and a few lengths go through one ridge regression
for all targets, solved over pairs of rows, of which there are fewer than words.
"""

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array, hstack
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.validation import check_is_fitted

from questlib.checks import refuse_outside
from questlib.data import fill_nulls, refuse_missing
from questlib.metrics import read_numbers
from questlib.ranks import FloatArray
from questlib.run_folder import read_json, write_json, written_whole
from questlib.schema import METADATA_COLUMNS, TEXT_COLUMNS

# Words, and the signs that tell a question, a shout, a formula or a command from prose.
_TOKEN = r"(?u)\b\w+\b|[?!$\\]"
_COUNTED = (r"\n", r"\?", r"http", r"\d", r"[$\\`]")
_STATE, _ARRAYS = "lexical.json", "lexical.safetensors"


class LexicalModel(BaseEstimator):
    """Predict the targets from TF-IDF, one-hot metadata and lengths with a ridge.

    Args:
        alpha: Strength of the ridge.
        metadata_weight: Scale of the one-hot columns beside texts of unit length; 0 forgets category and host.
        length_weight: Scale of the standardised lengths.

    Attributes:
        mean_: Mean rating of each target, shape (n_targets,).
        weights_: What each feature adds to each rating, shape (n_features, n_targets).
        words_: For each text column in which two rows share a word, its fitted `TfidfVectorizer`.
        one_hot_: The fitted `OneHotEncoder` of category and host.
        length_mean_, length_scale_: Mean and standard deviation (1 where it is 0) of each length.
    """

    def __init__(self, *, alpha: float = 10.0, metadata_weight: float = 0.5, length_weight: float = 0.17) -> None:
        self.alpha, self.metadata_weight, self.length_weight = alpha, metadata_weight, length_weight

    def fit(self, frame: pd.DataFrame, targets: npt.ArrayLike) -> Self:
        """Learn from text and metadata, nulls filled, and from ratings in [0, 1], shape (n_rows, n_targets)."""
        for name in ("metadata_weight", "length_weight"):
            refuse_outside(getattr(self, name), low=0, high=1e6, what=name)
        filled = _filled(frame)
        true = read_numbers(targets, what="targets")
        if true.ndim != 2 or len(true) != len(frame) or not len(true):
            raise ValueError(f"targets must have shape ({len(frame)}, n_targets) with rows, however: {true.shape=}")
        if not np.isfinite(true).all():
            raise ValueError("targets must be finite, however: they hold NaN or infinity; drop these rows")
        found = {column: _fit_vectorizer(filled[column]) for column in TEXT_COLUMNS}
        self.words_ = {column: vectorizer for column, vectorizer in found.items() if vectorizer is not None}
        self.one_hot_ = _build_one_hot().fit(filled[list(METADATA_COLUMNS)])
        lengths = _measure(filled[list(TEXT_COLUMNS)])
        spread = lengths.std(axis=0)
        self.length_mean_, self.length_scale_ = lengths.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        features = self._transform(filled)
        self.mean_ = true.mean(axis=0)
        ridge = KernelRidge(alpha=self.alpha, kernel="linear").fit(features, true - self.mean_)
        self.weights_ = (features.T @ ridge.dual_coef_).astype(np.float32)
        return self

    def predict(self, frame: pd.DataFrame) -> FloatArray:
        """Predict ratings in [0, 1]; words, hosts and categories that `fit` has not seen count as absent."""
        check_is_fitted(self)
        filled = _filled(frame)
        if not len(filled):
            return np.zeros((0, len(self.mean_)))
        return np.clip(self._transform(filled) @ self.weights_ + self.mean_, 0, 1)

    def _transform(self, filled: pd.DataFrame) -> csr_array:
        texts = [vectorizer.transform(filled[column]) for column, vectorizer in self.words_.items()]
        metadata = self.one_hot_.transform(filled[list(METADATA_COLUMNS)]) * self.metadata_weight
        lengths = (_measure(filled[list(TEXT_COLUMNS)]) - self.length_mean_) / self.length_scale_ * self.length_weight
        return csr_array(hstack([*texts, metadata, csr_array(lengths)], format="csr"))  # (n_rows, n_features)

    def save(self, folder: str | Path) -> None:
        """Write words and categories as JSON, numbers as safetensors, into a folder that is created."""
        check_is_fitted(self)
        state = {
            "settings": self.get_params(),
            "words": {column: words.get_feature_names_out().tolist() for column, words in self.words_.items()},
            "categories": [values.tolist() for values in self.one_hot_.categories_],
        }
        folder = Path(folder).expanduser()
        write_json(folder / _STATE, state)
        arrays = {f"idf.{column}": vectorizer.idf_ for column, vectorizer in self.words_.items()}
        arrays |= {"length_mean": self.length_mean_, "length_scale": self.length_scale_}
        with written_whole(folder / _ARRAYS) as temporary:
            save_file(arrays | {"mean": self.mean_, "weights": self.weights_}, temporary)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model that predicts as the one that was saved."""
        folder = Path(folder).expanduser()
        state, arrays = read_json(folder / _STATE), load_file(folder / _ARRAYS)
        model = cls(**state["settings"])
        model.words_ = {column: _build_vectorizer(vocabulary=words) for column, words in state["words"].items()}
        for column, vectorizer in model.words_.items():
            vectorizer.idf_ = arrays[f"idf.{column}"]
        categories = [np.array(values, dtype=object) for values in state["categories"]]
        known = pd.DataFrame({name: values[:1] for name, values in zip(METADATA_COLUMNS, categories, strict=True)})
        model.one_hot_ = _build_one_hot(categories).fit(known)
        model.length_mean_, model.length_scale_ = arrays["length_mean"], arrays["length_scale"]
        model.mean_, model.weights_ = arrays["mean"], arrays["weights"]
        return model


def _build_one_hot(categories: list[npt.NDArray] | str = "auto") -> OneHotEncoder:
    encoder = OneHotEncoder(categories=categories, handle_unknown="ignore", dtype=np.float32)
    return encoder.set_output(transform="default")  # whatever a user set for all: pandas takes nothing sparse


def _build_vectorizer(vocabulary: list[str] | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(min_df=2, ngram_range=(1, 2), sublinear_tf=True, token_pattern=_TOKEN, vocabulary=vocabulary)


def _fit_vectorizer(texts: pd.Series) -> TfidfVectorizer | None:
    # A column without a word that two rows have says nothing.
    if len(texts) < 2:
        return None
    try:
        return _build_vectorizer().fit(texts)
    except ValueError as error:
        if "no terms remain" in str(error) or "empty vocabulary" in str(error):
            return None
        raise


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    wanted = [*TEXT_COLUMNS, *METADATA_COLUMNS]
    refuse_missing(frame, columns=wanted)
    return fill_nulls(frame[wanted])


def _measure(texts: pd.DataFrame) -> FloatArray:
    """Logarithms of how long each text is and how often each of the counted patterns occurs."""
    counts = [texts[column].str.len() for column in texts]
    counts += [texts[column].str.count(pattern) for column in texts for pattern in _COUNTED]
    return np.log1p(np.column_stack(counts).astype(np.float64))
