"""The submission: checked, then written whole or not at all."""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.artifacts import written_whole
from questlib.schema import ID, TARGETS


def write_submission(
    path: Path, predictions: npt.NDArray, *, ids: npt.ArrayLike, sample_submission: pd.DataFrame
) -> pd.DataFrame:
    """Write predictions in the sample's column order and the test's row order.

    Args:
        path: The CSV file.
        predictions: In [0, 1], columns in the order of `questlib.schema.TARGETS`, shape (n_rows, 30).
        ids: The qa_id of each row of test.csv, in its order.
        sample_submission: Gives the columns and their order.

    Returns:
        The table that was written.

    Raises:
        ValueError: As `check_submission`; nothing is written then.
    """
    frame = pd.DataFrame(predictions, columns=list(TARGETS))
    frame.insert(0, ID, np.asarray(ids))  # by position: a Series would be aligned on its index
    frame = frame[list(sample_submission.columns)]
    check_submission(frame, columns=list(sample_submission.columns), ids=ids)
    with written_whole(path) as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def check_submission(frame: pd.DataFrame, *, columns: list[str], ids: npt.ArrayLike) -> None:
    """Refuse what the competition would refuse or score as nothing.

    Args:
        frame: The submission.
        columns: The sample's columns, in order.
        ids: The ids that must be there, in order.

    Raises:
        ValueError: If columns or ids differ, a value is not a number in [0, 1], or a column is constant: its rank
            correlation does not exist, and the whole submission would fail. A single row is always constant; it passes.
    """
    if list(frame.columns) != columns:
        missing = [name for name in columns if name not in frame.columns]
        extra = [name for name in frame.columns if name not in columns]
        moved = "" if missing or extra else f", the first out of place is {_first_difference(frame.columns, columns)}"
        raise ValueError(
            f"the columns must be the sample's, in its order, however: {missing=}, {extra=}{moved}; "
            "write the sample's columns"
        )
    given, wanted = frame[ID].to_numpy(), np.asarray(ids)
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
