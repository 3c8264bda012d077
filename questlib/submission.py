"""The submission: checked, then written whole or not at all."""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from questlib.checks import refuse_unknown
from questlib.csv_table import write_csv
from questlib.data import refuse_missing
from questlib.ranks import FloatArray
from questlib.schema import ID, TARGETS

_SPREAD = 1e-6  # far below what any rating or tie is about


def write_submission(
    path: str | Path, predictions: npt.ArrayLike, *, ids: npt.ArrayLike, sample_submission: pd.DataFrame
) -> pd.DataFrame:
    """Write predictions, in [0, 1], (n_rows, 30), as CSV in the sample's column order and the test's row order.

    Those of a frame are known by its columns. What `check_against_sample` refuses is not written. The table that was
    written is returned.
    """
    refuse_missing(sample_submission, columns=(ID, *TARGETS), what="sample_submission")
    refuse_unknown(sample_submission.columns, known=(ID, *TARGETS), what="column of sample_submission")
    if isinstance(predictions, pd.DataFrame):
        refuse_missing(predictions, columns=TARGETS, what="predictions")
        predictions = predictions[list(TARGETS)].to_numpy()
    names = np.asarray(ids)  # by position: a Series would be aligned on its index
    if np.shape(predictions) != (names.size, len(TARGETS)):
        raise ValueError(
            f"predictions must have shape (n_rows, {len(TARGETS)}), with as many ids, however: "
            f"{np.shape(predictions)=}, {names.shape=}"
        )
    frame = pd.DataFrame(predictions, columns=list(TARGETS))
    frame.insert(0, ID, names.ravel())
    frame = frame[list(sample_submission.columns)]
    check_against_sample(frame, sample_submission)
    write_csv(Path(path).expanduser(), frame)
    return frame


def spread_constant(predictions: FloatArray, *, by: FloatArray) -> FloatArray:
    """Give columns that are constant, and so could not be ranked, a tiny spread; all else stays as it is.

    Args:
        predictions: In [0, 1], (n_rows, n_targets).
        by: What decides the order of the rows, same shape; where it is constant too, the mean of all its columns does,
            and where all rows are alike, their place.
    """
    spread = predictions.copy()
    for column in np.flatnonzero(np.ptp(predictions, axis=0) == 0) if len(predictions) > 1 else ():
        order = next(each for each in (by[:, column], by.mean(axis=1), np.arange(len(by))) if np.ptp(each))
        ranks = rankdata(order) / (len(order) + 1) - 0.5  # within (-0.5, 0.5)
        level = np.clip(predictions[:, column], _SPREAD, 1 - _SPREAD)
        spread[:, column] = level + _SPREAD * ranks
    return spread


def check_against_sample(frame: pd.DataFrame, sample_submission: pd.DataFrame) -> None:
    """Refuse what `check_submission` does, but for the order of the rows: the site goes by ids."""
    given, wanted = (each.astype(str).tolist() for each in (frame[ID], sample_submission[ID]))
    ids = given if sorted(given) == sorted(wanted) else wanted
    check_submission(frame, columns=list(sample_submission.columns), ids=ids)


def check_submission(frame: pd.DataFrame, *, columns: list[str], ids: npt.ArrayLike) -> None:
    """Refuse what the competition would refuse or score as nothing.

    Columns and ids must be those given, in order, and every value a number in [0, 1]. A constant column has no rank
    correlation, and the whole submission would fail; a single row is always constant, and passes.
    """
    if list(frame.columns) != columns:
        missing = [name for name in columns if name not in frame.columns]
        extra = [name for name in frame.columns if name not in columns]
        moved = "" if missing or extra else f", the first out of place is {_first_difference(frame.columns, columns)}"
        raise ValueError(
            f"the columns must be the sample's, in its order, however: {missing=}, {extra=}{moved}; "
            "write the sample's columns"
        )
    given, wanted = (np.asarray(each).astype(str) for each in (frame[ID], ids))
    if len(given) != len(wanted) or (given != wanted).any():
        raise ValueError(
            f"the ids must be the test's, in its order, however: {len(given)} rows for {len(wanted)}, "
            f"{len(set(wanted.tolist()) - set(given.tolist()))} ids missing, the first out of place is "
            f"{_first_difference(given.tolist(), wanted.tolist())}; write one row per test row"
        )
    values = frame.drop(columns=ID).apply(pd.to_numeric, errors="coerce")
    wrong = values.columns[~((values >= 0) & (values <= 1)).all()]  # NaN compares false
    if len(wrong):
        raise ValueError(f"every value must be a number in [0, 1], however not in: {wrong.tolist()}")
    constant = values.columns[values.nunique() < 2]
    if len(frame) > 1 and len(constant):
        raise ValueError(f"no column may be constant, because it cannot be ranked, however: {constant.tolist()}")


def _first_difference(given: Iterable[object], wanted: Iterable[object]) -> str:
    pairs = enumerate(zip_longest(given, wanted, fillvalue="nothing"))
    return next(f"{found!r} for {asked!r} at {place}" for place, (found, asked) in pairs if found != asked)
