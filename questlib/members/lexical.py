"""The lexical model as a member."""

from pathlib import Path

import pandas as pd

from questlib.data import IndexArray
from questlib.lexical import LexicalModel
from questlib.members.base import FloatArray, Member
from questlib.recipe import LexicalRecipe
from questlib.schema import TARGETS


class LexicalMember(Member[LexicalRecipe]):
    """See `questlib.lexical.LexicalModel`; its recipe is a `questlib.recipe.LexicalRecipe`."""

    recipe_class = LexicalRecipe

    def _fit(self, frame: pd.DataFrame, rows: IndexArray) -> None:
        recipe, chosen = self.recipe, frame.iloc[rows]
        self._model = LexicalModel(
            alpha=recipe.alpha, metadata_weight=recipe.metadata_weight, length_weight=recipe.length_weight
        ).fit(chosen, chosen[list(TARGETS)])

    def _predict(self, frame: pd.DataFrame, rows: IndexArray) -> FloatArray:
        return self._model.predict(frame.iloc[rows])

    def _save(self, folder: Path) -> None:
        self._model.save(folder)

    def _load(self, folder: Path) -> None:
        self._model = LexicalModel.load(folder)
