"""The predictions of a member: of each fold the rows that it never saw, and of all folds the test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.csv_table import write_csv
from questlib.data import IndexArray, Tables, read_table
from questlib.marks import check_finished
from questlib.ranks import FloatArray
from questlib.run_folder import OUT_OF_FOLD, TEST_PREDICTIONS, fold_folder
from questlib.schema import ID, TARGETS


@dataclass(frozen=True, kw_only=True)
class MemberPredictions:
    """What the folds of one member predicted."""

    out_of_fold: FloatArray  # (n_train, 30), each row by the fold that never saw it; NaN where there is none
    fold_of_row: IndexArray  # (n_train,), the fold that predicted each row; -1 where there is none
    test: FloatArray  # (n_test, 30), averaged over the folds

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which rows have a prediction, shape (n_train,)."""
        return self.fold_of_row >= 0


def write_predictions(
    path: Path, predictions: npt.NDArray, *, ids: npt.ArrayLike, folds: npt.ArrayLike | None = None
) -> None:
    """Write predictions, (n_rows, 30), as a CSV table in submission order, with a column of folds where given."""
    frame = pd.DataFrame(predictions, columns=list(TARGETS))
    frame.insert(0, ID, np.asarray(ids))  # by position: a Series would be aligned on its index
    if folds is not None:
        frame.insert(1, "fold", np.asarray(folds))
    write_csv(path, frame)


def read_member(run_folder: Path, name: str, *, folds: Sequence[int], tables: Tables) -> MemberPredictions:
    """Read what some finished folds of a member predicted, in the order of the tables' rows.

    A fold that is not finished, was changed since, or belongs to other tables is refused.
    """
    out_of_fold = np.full((len(tables.train), len(TARGETS)), np.nan)
    fold_of_row = np.full(len(tables.train), -1, dtype=np.intp)
    place = pd.Index(tables.train[ID].astype(str))
    test = []
    for fold in folds:
        folder = fold_folder(run_folder, name, fold)
        check_finished(folder, OUT_OF_FOLD, TEST_PREDICTIONS)
        scored, tested = (read_table(folder / name, columns=(ID, *TARGETS)) for name in (OUT_OF_FOLD, TEST_PREDICTIONS))
        rows = place.get_indexer(scored[ID])
        if (rows < 0).any() or tested[ID].tolist() != tables.test[ID].astype(str).tolist():
            raise ValueError(f"{folder} must hold predictions of these tables, however its ids are others; run it anew")
        out_of_fold[rows], fold_of_row[rows] = scored[list(TARGETS)].to_numpy(), fold
        test.append(tested[list(TARGETS)].to_numpy())
    return MemberPredictions(out_of_fold=out_of_fold, fold_of_row=fold_of_row, test=np.mean(test, axis=0))
