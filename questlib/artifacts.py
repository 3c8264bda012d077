"""The run folder: what a run leaves behind, each file whole or not there."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.schema import ID, TARGETS

CONFIG = "config.json"
SCORES = "scores.json"
TIMELINE = "timeline.json"
HISTORY = "history.json"
METADATA = "metadata.json"
TOKENIZER = "tokenizer"
OUT_OF_FOLD = "out_of_fold.csv"
TEST_PREDICTIONS = "test_predictions.csv"
BLENDED = "blended_out_of_fold.csv"
ENSEMBLE = "ensemble.json"
SUBMISSION = "submission.csv"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the wanted one and rename it at the end, so that readers never see half a file.

    Args:
        path: The file to write; its folder is created.

    Yields:
        Where to write. On an error it is removed, and what lay at `path` before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private, yet a run folder is to be read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; NaN is refused, because readers outside Python cannot parse it."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):  # a parameter out of np.linspace is as good a number as one typed in
        return value.item()
    raise TypeError(f"a run folder must hold JSON types only, however: {value!r}")


def read_json(path: Path) -> dict:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_predictions(
    path: Path, predictions: npt.NDArray, *, ids: npt.ArrayLike, folds: npt.ArrayLike | None = None
) -> None:
    """Write predictions as a table in submission order.

    Args:
        path: The CSV file.
        predictions: Shape (n_rows, 30).
        ids: The qa_id of each row, shape (n_rows,).
        folds: The fold each row was scored in; adds a column.
    """
    frame = pd.DataFrame(predictions, columns=list(TARGETS))
    frame.insert(0, ID, np.asarray(ids))  # by position: a Series would be aligned on its index
    if folds is not None:
        frame.insert(1, "fold", np.asarray(folds))
    with written_whole(path) as temporary:
        frame.to_csv(temporary, index=False)
