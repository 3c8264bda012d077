"""A run folder over any table: each member averaged over its folds, blended and tied."""

import logging
import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from questlib.cache import CACHE
from questlib.clock import Clock
from questlib.data import fill_nulls, refuse_missing
from questlib.ensemble import Ensemble
from questlib.inputs import describe_mounts, find_folder
from questlib.marks import check_finished, refuse_added
from questlib.members import load_member
from questlib.ranks import FloatArray
from questlib.run_folder import ENSEMBLE, fold_folder, read_json
from questlib.schema import INPUT_COLUMNS

logger = logging.getLogger(__name__)

# A fold may take this much longer than the slowest of its member so far; then blend, ties and submission come.
_SLOWER = 1.2
_CLOSING_SECONDS = 20.0


def predict_table(
    run_folder: str | Path,
    frame: pd.DataFrame,
    *,
    cache_folder: str | Path = CACHE,
    clock: Clock | None = None,
    changed_on_purpose: bool = False,
) -> FloatArray:
    """Predict any table that has the input columns with a run folder alone, in [0, 1], shape (n_rows, 30).

    Args:
        run_folder: Of a finished run.
        frame: The table.
        cache_folder: Holds what can be computed again.
        clock: Every member's first fold is predicted before any second one; those that its limit has no time for are
            left out, and it is told so.
        changed_on_purpose: Takes files that are not what the run wrote.

    Raises:
        FileNotFoundError: If the folder holds no ensemble, or a fold that the ensemble stands on is not finished.
        ValueError: If a column is missing, or a fold holds something else than its run wrote.
    """
    run_folder = Path(run_folder).expanduser()
    refuse_missing(frame, columns=INPUT_COLUMNS[1:])
    folders, frame = find_folds(run_folder, changed_on_purpose=changed_on_purpose), fill_nulls(frame)
    ensemble = Ensemble.from_json((run_folder / ENSEMBLE).read_text(encoding="utf-8"))
    names = ensemble.members_
    predicted: dict[str, list[FloatArray]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)  # of the slowest fold
    left_out = []
    for name, folder in _in_turn({name: folders[name] for name in names}):
        start = time.monotonic()
        if predicted[name] and clock and clock.limit - start < _SLOWER * seconds[name] + _CLOSING_SECONDS:
            left_out.append(f"{name}, {folder.name}")
            continue
        predicted[name].append(load_member(folder, cache_folder=cache_folder).predict(frame))
        seconds[name] = max(seconds[name], time.monotonic() - start)
        logger.info("%s, %s: %d rows in %.1f s", name, folder.name, len(frame), time.monotonic() - start)
    if clock and left_out:
        clock.note(f"left out, for want of time: {', '.join(left_out)}")
    averages = {name: np.mean(each, axis=0) for name, each in predicted.items()}
    return ensemble.transform(averages, hosts=frame["host"].to_numpy(dtype=str))


def _in_turn(folders: Mapping[str, list[Path]]) -> Iterator[tuple[str, Path]]:
    for folds in zip_longest(*folders.values()):
        yield from ((name, folder) for name, folder in zip(folders, folds, strict=True) if folder is not None)


def find_run(name: str) -> Path:
    """Find a finished run's folder by its path, or by the slug of an attached dataset that holds it."""
    folder = find_folder(name, marker=ENSEMBLE)
    if folder is None:
        raise FileNotFoundError(f"no finished run {name!r} ({ENSEMBLE} marks one) is here: {describe_mounts()}")
    return folder


def find_folds(run_folder: Path, *, changed_on_purpose: bool = False) -> dict[str, list[Path]]:
    """Find the folders of the folds that a run's ensemble stands on, by member.

    All that is read must be what the run wrote, unless it was `changed_on_purpose`.
    """
    if not (run_folder / ENSEMBLE).is_file():
        raise FileNotFoundError(f"{run_folder} must hold {ENSEMBLE}, however it does not; name a finished run's folder")
    if not changed_on_purpose:
        check_finished(run_folder)
    folds = read_json(run_folder / ENSEMBLE)["folds"]
    folders = {name: [fold_folder(run_folder, name, fold) for fold in each] for name, each in folds.items()}
    for folder in (folder for each in folders.values() for folder in each):
        if not changed_on_purpose:
            check_finished(folder)
            refuse_added(folder)
    return folders
