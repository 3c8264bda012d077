"""What a member of a run is: fitted on rows of a table, it predicts any table, and comes back from its folder."""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from questlib.cache import CACHE, find_cache
from questlib.data import IndexArray, fill_nulls
from questlib.plan import WHOLE, Share, Speed
from questlib.ranks import FloatArray
from questlib.recipe import read_member
from questlib.run_folder import RECIPE, read_json, write_json
from questlib.schema import INPUT_COLUMNS, QUESTION, TARGETS
from questlib.typed_json import write_typed


class Member(ABC):
    """One model, built from its recipe: a run fits it on a fold, a library user on any table.

    A kind fills in `_fit`, `_predict`, `_save` and `_load`; they are given frames with nulls filled.

    Args:
        recipe: Of the member's kind.
        cache_folder: Holds what can be computed again.
        log_folder: Takes logs of the training for other programs; in the cache where None.
        checkpoint_folder: Holds the state of an interrupted fit, which goes on from there; none is kept where None.

    Attributes:
        history: What was logged while it was fitted: records with `stage`, `number`, `step` and `epoch`.
        notes: What did not go as asked while it was fitted, in words.
        deadline: When the fit should be over, by `time.monotonic`.
        share: Of its epochs, that are planned to fit.
    """

    def __init__(
        self,
        recipe: Any,  # noqa: ANN401
        *,
        cache_folder: Path = CACHE,
        log_folder: Path | None = None,
        checkpoint_folder: Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.cache_folder = find_cache(Path(cache_folder))
        self.log_folder = log_folder or self.cache_folder / "logs"
        self.checkpoint_folder = checkpoint_folder
        self.history: list[dict] = []
        self.notes: list[str] = []
        self.deadline, self.share = math.inf, WHOLE
        self._is_fitted = False

    def check(self) -> None:  # noqa: B027  a kind need not have anything to check
        """Refuse a recipe that cannot be carried out here, before anything is trained."""

    def measure(self, frame: pd.DataFrame, *, rows: IndexArray) -> Speed | None:
        """Try out how fast it would be fitted on these rows; None for a kind that need not be asked."""
        return None

    def fit(
        self,
        frame: pd.DataFrame,
        *,
        rows: IndexArray | None = None,
        deadline: float = math.inf,
        share: Share = WHOLE,
    ) -> Self:
        """Learn the targets of a table with the input columns, url and the 30 ratings, nulls included.

        Args:
            frame: The table; its text is read once for all rows.
            rows: Indices of those to learn from, all where None.
            deadline: When it should be over, by `time.monotonic`: a kind that can be shortened is.
            share: Of its epochs, that are planned to fit; more are trained where there is time for many more.
        """
        _refuse_missing(frame, columns=(*INPUT_COLUMNS[1:], QUESTION, *TARGETS))
        if not frame[list(TARGETS)].apply(lambda ratings: ratings.between(0, 1)).to_numpy().all():
            raise ValueError(
                "every rating must be a number in [0, 1], however not all are; see questlib.data.read_table"
            )
        self.deadline, self.share = deadline, share
        self._fit(fill_nulls(frame), np.arange(len(frame)) if rows is None else rows)
        self._is_fitted = True
        return self

    def predict(self, frame: pd.DataFrame, *, rows: IndexArray | None = None) -> FloatArray:
        """Predict a table with the input columns, or the rows of it that are named, in [0, 1], shape (n_rows, 30)."""
        self._refuse_unfitted("predicts")
        _refuse_missing(frame, columns=INPUT_COLUMNS[1:])
        return self._predict(fill_nulls(frame), np.arange(len(frame)) if rows is None else rows)

    def save(self, folder: Path) -> None:
        """Write the recipe and what was learned: weights as safetensors, all else as JSON."""
        self._refuse_unfitted("is saved")
        write_json(folder / RECIPE, write_typed(self.recipe.without_paths()))
        self._save(folder)

    @classmethod
    def load(cls, folder: Path, *, cache_folder: Path = CACHE) -> Self:
        """Read a member that predicts as the one that was saved."""
        member = cls(read_member(read_json(folder / RECIPE)), cache_folder=cache_folder)
        member._load(folder)
        member._is_fitted = True
        return member

    def _refuse_unfitted(self, does: str) -> None:
        if not self._is_fitted:
            raise RuntimeError(f"a member must be fitted before it {does}, however: fit was not called; call fit")

    @abstractmethod
    def _fit(self, frame: pd.DataFrame, rows: IndexArray) -> None: ...

    @abstractmethod
    def _predict(self, frame: pd.DataFrame, rows: IndexArray) -> FloatArray: ...

    @abstractmethod
    def _save(self, folder: Path) -> None: ...

    @abstractmethod
    def _load(self, folder: Path) -> None: ...


def _refuse_missing(frame: pd.DataFrame, *, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"frame must hold the columns {missing}, however it holds {list(frame.columns)[:12]}; add them"
        )
