"""Boosted stumps as a member: each target is a sum of many answers to one question about metadata or a text's shape.

They tell where a line does not: neither the shortest nor the longest answers are the best. Fitted in seconds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor

from questlib.data import IndexArray
from questlib.members.base import FloatArray, Member
from questlib.metadata import MetadataEncoder
from questlib.recipe import BoostedRecipe
from questlib.run_folder import read_json, write_json, written_whole
from questlib.schema import TARGETS

_N_HOSTS = 100  # more than have rows to learn from
_SHARE_OF_ROWS, _SHARE_OF_FEATURES = 0.7, 0.2  # that a stump is chosen by: the next one sees others
_ROWS_AT_A_TIME = 10_000
_METADATA, _STUMPS = "metadata.json", "stumps.safetensors"


class BoostedMember(Member[BoostedRecipe]):
    """Gradient boosting of stumps (Friedman 2001) for each target over metadata and text statistics, no words."""

    recipe_class = BoostedRecipe

    def _fit(self, frame: pd.DataFrame, rows: IndexArray) -> None:
        known, recipe = frame.iloc[rows], self.recipe
        self._encoder = MetadataEncoder(n_hosts=_N_HOSTS, use_text_statistics=True).fit(known)
        features = self._encoder.transform(known)
        share = _SHARE_OF_ROWS if len(known) > 1 else 1.0
        stumps = [
            GradientBoostingRegressor(
                n_estimators=recipe.n_stumps, learning_rate=recipe.shrinkage, max_depth=1, subsample=share,
                max_features=_SHARE_OF_FEATURES, random_state=number,
            ).fit(features, known[target]).estimators_[:, 0]
            for number, target in enumerate(TARGETS)
        ]  # fmt: skip
        # Each of shape (n_targets, n_stumps)
        told = np.array([[_read_stump(each) for each in of_target] for of_target in stumps])
        # A copy: safetensors writes memory as it lies, whatever a view says of it.
        column, threshold, low, high = np.ascontiguousarray(np.moveaxis(told, -1, 0))
        self._stumps = {
            "mean": known[list(TARGETS)].to_numpy().mean(axis=0), "column": column.astype(np.int64),
            "threshold": threshold, "low": low * recipe.shrinkage, "high": high * recipe.shrinkage,
        }  # fmt: skip

    def _predict(self, frame: pd.DataFrame, rows: IndexArray) -> FloatArray:
        features = np.asarray(self._encoder.transform(frame.iloc[rows]))  # in 32 bits, as stumps were made
        mean, *stumps = (self._stumps[name] for name in ("mean", "column", "threshold", "low", "high"))
        predicted = np.tile(mean, (len(rows), 1))
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            for target, (column, threshold, low, high) in enumerate(zip(*stumps, strict=True)):
                is_low = features[part].take(column, axis=1) <= threshold  # (n_rows, n_stumps), row by row in memory
                predicted[part, target] += np.where(is_low, low, high).sum(axis=1)
        return predicted.clip(0, 1)

    def _save(self, folder: Path) -> None:
        write_json(folder / _METADATA, {"metadata": self._encoder.to_json()})
        with written_whole(folder / _STUMPS) as temporary:
            save_file(self._stumps, temporary)

    def _load(self, folder: Path) -> None:
        self._encoder = MetadataEncoder.from_json(read_json(folder / _METADATA)["metadata"])
        self._stumps = load_file(folder / _STUMPS)


def _read_stump(stump: DecisionTreeRegressor) -> tuple[float, float, float, float]:
    # The column asked, up to where its value is low, and what it says then and else; without a split all are low.
    tree = stump.tree_
    values = tree.value[:, 0, 0]
    if len(values) == 1:
        return 0, np.inf, values[0], values[0]
    return tree.feature[0], tree.threshold[0], values[tree.children_left[0]], values[tree.children_right[0]]
