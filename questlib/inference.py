"""A run folder over any table: each member averaged over its folds, blended and tied."""

from pathlib import Path

import numpy as np
import pandas as pd

from questlib.data import fill_nulls
from questlib.ensemble import Ensemble
from questlib.inputs import describe_mounts, find_folder
from questlib.members import load_member
from questlib.predictions import FloatArray
from questlib.run_folder import CACHE, ENSEMBLE, check_finished, fold_folder, read_json


def predict_table(run_folder: Path, frame: pd.DataFrame, *, cache_folder: Path = CACHE) -> FloatArray:
    """Predict any table that has the input columns with a run folder alone, in [0, 1], shape (n_rows, 30).

    Raises:
        FileNotFoundError: If the folder holds no ensemble, or a fold that the ensemble stands on is not finished.
        ValueError: If a fold holds something else than its run wrote.
    """
    folders, frame = find_folds(run_folder), fill_nulls(frame)
    ensemble = Ensemble.from_json((run_folder / ENSEMBLE).read_text(encoding="utf-8"))
    predictions = {name: predict_member(folders[name], frame, cache_folder=cache_folder) for name in ensemble.members_}
    return ensemble.transform(predictions, hosts=frame["host"].to_numpy(dtype=str))


def predict_member(folders: list[Path], frame: pd.DataFrame, *, cache_folder: Path = CACHE) -> FloatArray:
    """Predict a table with some folds of one member: their average, in [0, 1], shape (n_rows, 30)."""
    return np.mean([load_member(folder, cache_folder=cache_folder).predict(frame) for folder in folders], axis=0)


def find_run(name: str) -> Path:
    """Find a finished run's folder by its path, or by the slug of an attached dataset that holds it."""
    folder = find_folder(name, marker=ENSEMBLE)
    if folder is None:
        raise FileNotFoundError(f"no finished run {name!r} ({ENSEMBLE} marks one) is here: {describe_mounts()}")
    return folder


def find_folds(run_folder: Path) -> dict[str, list[Path]]:
    """Find the folders of the folds that a run's ensemble stands on, by member, and check that they are as written."""
    if not (run_folder / ENSEMBLE).is_file():
        raise FileNotFoundError(f"{run_folder} must hold {ENSEMBLE}, however it does not; name a finished run's folder")
    folds = read_json(run_folder / ENSEMBLE)["folds"]
    folders = {name: [fold_folder(run_folder, name, fold) for fold in each] for name, each in folds.items()}
    for folder in (folder for each in folders.values() for folder in each):
        check_finished(folder)
    return folders
