"""What a member of a run is: fitted on rows of a table, it predicts any table, and comes back from its folder."""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.cache import CACHE, find_cache
from questlib.data import IndexArray, fill_nulls, read_ratings, refuse_missing
from questlib.plan import WHOLE, Share, Speed
from questlib.ranks import FloatArray
from questlib.recipe import MemberRecipe, read_member
from questlib.run_folder import RECIPE, read_json, write_json
from questlib.schema import INPUT_COLUMNS, QUESTION, TARGETS
from questlib.typed_json import write_typed

RecipeOfKind = TypeVar("RecipeOfKind", bound=MemberRecipe)


class Member(ABC, Generic[RecipeOfKind]):
    """One model, built from its recipe: a run fits it on a fold, a library user on any table.

    A kind names its recipe's class and fills in `_fit`, `_predict`, `_save` and `_load`; they are given frames with
    nulls filled and ratings as numbers.

    Args:
        recipe: Of the member's kind.
        cache_folder: Holds what can be computed again.
        log_folder: Takes logs of the training for other programs; in the cache where None.
        checkpoint_folder: Holds the state of an interrupted fit, which goes on from there; none is kept where None.

    Raises:
        TypeError: If the recipe is of another kind.

    Attributes:
        history: What was logged while it was fitted: records with `stage`, `number`, `step` and `epoch`.
        notes: What did not go as asked while it was fitted, in words.
        deadline: When the fit should be over, by `time.monotonic`.
        share: Of its epochs, that are planned to fit.
        unrated: Rows without ratings, for kinds that learn from those too.
    """

    recipe_class: type[RecipeOfKind]

    def __init__(
        self,
        recipe: RecipeOfKind,
        *,
        cache_folder: str | Path = CACHE,
        log_folder: str | Path | None = None,
        checkpoint_folder: str | Path | None = None,
    ) -> None:
        if not isinstance(recipe, self.recipe_class):
            raise TypeError(
                f"{type(self).__name__} must be built from a {self.recipe_class.__name__}, however: "
                f"{type(recipe).__name__}; build one"
            )
        self.recipe = recipe
        self.cache_folder = find_cache(Path(cache_folder))
        self.log_folder = self.cache_folder / "logs" if log_folder is None else Path(log_folder).expanduser()
        self.checkpoint_folder = None if checkpoint_folder is None else Path(checkpoint_folder).expanduser()
        self.history: list[dict] = []
        self.notes: list[str] = []
        self.deadline, self.share = math.inf, WHOLE
        self.unrated: pd.DataFrame | None = None
        self._is_fitted = False

    def check(self) -> None:  # noqa: B027  a kind need not have anything to check
        """Refuse a recipe that cannot be carried out here, before anything is trained."""

    def measure(self, frame: pd.DataFrame, *, rows: IndexArray, test: pd.DataFrame) -> Speed | None:
        """Try out how fast it would be fitted on rows of a table; None for a kind that need not be asked.

        What was computed of it and of the test before, and kept, costs nothing.
        """
        return None

    def fit(
        self,
        frame: pd.DataFrame,
        *,
        rows: npt.ArrayLike | None = None,
        deadline: float = math.inf,
        share: Share = WHOLE,
        unrated: pd.DataFrame | None = None,
    ) -> Self:
        """Learn the targets of a table; what was learned before is forgotten.

        Args:
            frame: The table, with the input columns, url and the 30 ratings; its text is read once for all rows. A null
                in text, category, host or url has its stated place; one in a rating is refused.
            rows: Indices of those to learn from, from 0, whatever the frame's own index; all where None.
            deadline: When it should be over, by `time.monotonic`: a kind that can be shortened is.
            share: Of its epochs, that are planned to fit; more are trained where there is time for many more.
            unrated: A table of which no rating is known, such as the test, for kinds that learn from one.

        Raises:
            TypeError: If the frame is none, or the rows are no indices.
            ValueError: If a column is missing, a rating is no number in [0, 1], or there is no row.
        """
        refuse_missing(frame, columns=(*INPUT_COLUMNS[1:], QUESTION, *TARGETS))
        chosen = _check_rows(rows, n_rows=len(frame))
        if not len(chosen):
            raise ValueError(f"there must be rows to learn from, however: {len(frame)=}, {len(chosen)=}")
        ratings = {name: read_ratings(frame[name]) for name in TARGETS}
        self._is_fitted = False
        self.history, self.notes, self.deadline, self.share = [], [], deadline, share
        if unrated is not None:
            refuse_missing(unrated, columns=INPUT_COLUMNS[1:])
        self.unrated = None if unrated is None else fill_nulls(unrated)
        self._fit(fill_nulls(frame).assign(**ratings), chosen)
        self._is_fitted = True
        return self

    def predict(self, frame: pd.DataFrame, *, rows: npt.ArrayLike | None = None) -> FloatArray:
        """Predict a table with the input columns, or the rows of it that are named, in [0, 1], shape (n_rows, 30).

        Raises:
            RuntimeError: If what was learned gives no numbers: finite weights may be so large that they overflow.
        """
        self._refuse_unfitted("predicts")
        refuse_missing(frame, columns=INPUT_COLUMNS[1:])
        predictions = self._predict(fill_nulls(frame), _check_rows(rows, n_rows=len(frame)))
        n_wrong = int((~np.isfinite(predictions)).any(axis=1).sum())
        if n_wrong:
            raise RuntimeError(
                f"member {self.recipe.name!r} must predict numbers, however not in {n_wrong} of {len(predictions)} "
                "rows; give lower learning rates, or another encoder"
            )
        return predictions

    def save(self, folder: str | Path) -> None:
        """Write the recipe and what was learned: weights as safetensors, all else as JSON."""
        self._refuse_unfitted("is saved")
        folder = Path(folder).expanduser()
        write_json(folder / RECIPE, write_typed(self.recipe.without_paths()))
        self._save(folder)

    @classmethod
    def load(cls, folder: str | Path, *, cache_folder: str | Path = CACHE) -> Self:
        """Read a member that predicts as the one that was saved."""
        recipe: Any = read_recipe(folder)  # of this kind, or refused
        member = cls(recipe, cache_folder=cache_folder)
        member._load(Path(folder).expanduser())
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


def read_recipe(folder: str | Path) -> MemberRecipe:
    """Read the recipe of a member that was saved in a folder."""
    path = Path(folder).expanduser() / RECIPE
    content = read_json(path) if path.is_file() else {}
    if "kind" not in content:  # that of a whole run has none
        raise FileNotFoundError(
            f"{folder} must hold {RECIPE} of a member, however it does not; name a folder that Member.save wrote, or "
            "members/<name>/fold-<k> of a run"
        )
    return read_member(content)


def _check_rows(rows: npt.ArrayLike | None, *, n_rows: int) -> IndexArray:
    if rows is None:
        return np.arange(n_rows)
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iu"):
        raise TypeError(
            f"rows must be indices, shape (n_rows,), however: {chosen.dtype=}, {chosen.shape=}; "
            "make them of a mask with numpy.flatnonzero"
        )
    outside = chosen[(chosen < 0) | (chosen >= n_rows)]
    if len(outside):
        raise ValueError(f"rows must lie in [0, {n_rows}), however: {outside[:5].tolist()}")
    return chosen.astype(np.intp)
