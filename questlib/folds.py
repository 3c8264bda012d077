"""Members times folds: each pair is trained on a device, predicts the rows it never saw, and is on disk at once."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from questlib.clock import Clock
from questlib.data import IndexArray, Tables, assign_folds, question_of
from questlib.devices import pick_device, pick_devices
from questlib.members import MEMBERS
from questlib.parallel import run_on_devices
from questlib.predictions import write_predictions
from questlib.recipe import MemberRecipe, Recipe
from questlib.run_folder import (
    HISTORY,
    OUT_OF_FOLD,
    RECIPE,
    SUBMISSION,
    TEST_PREDICTIONS,
    finished_whole,
    fold_folder,
    write_json,
)
from questlib.schema import ID
from questlib.scores import combine_members
from questlib.submission import write_submission

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FoldTask:
    """One member on one fold: all that a process needs to know of it."""

    member: MemberRecipe
    fold: int  # is scored; the others are learned from
    fold_of_row: IndexArray  # (n_train,)
    tables: Tables
    run_folder: Path
    cache_folder: Path

    @property
    def name(self) -> str:
        """As log lines and the timeline show it."""
        return f"{self.member.name}, fold {self.fold}"


@dataclass(frozen=True, kw_only=True)
class FinishedFold:
    """How many seconds a task took; what it made is in its folder."""

    fit_seconds: float
    predict_seconds: float


def train_members(
    tables: Tables,
    recipe: Recipe,
    *,
    run_folder: Path,
    cache_folder: Path,
    clock: Clock,
    devices: Sequence[torch.device] | None = None,
) -> pd.DataFrame:
    """Train every member on its folds, and write ensemble, scores and submission.

    The quick members come first, so that their submission stands while the others train.

    Args:
        tables: What `questlib.data.read_tables` returns.
        recipe: What to train.
        run_folder: Takes all of it.
        cache_folder: Holds what can be computed again.
        clock: Times the steps.
        devices: As many (member, fold) pairs train at once, one process per device; on one device they train here, one
            by one. Where None, all GPUs that compute, but one where a launcher gave this process its own.

    Returns:
        The submission as it was written.
    """
    if recipe.leaks:
        logger.warning("split=random leaks: a question stands on both sides, and the score reads too high")
    for member in recipe.members:  # all refused before the first hour is spent
        MEMBERS[member.kind](member, cache_folder=cache_folder).check()
    write_json(run_folder / RECIPE, recipe.to_dict())
    if devices is None:
        devices = [pick_device()] if "LOCAL_RANK" in os.environ else pick_devices()
    all_tasks = _list_tasks(tables, recipe, run_folder=run_folder, cache_folder=cache_folder)
    finished: dict[str, list[int]] = {}
    for is_quick in (True, False):
        tasks = [task for task in all_tasks if task.member.is_quick == is_quick]
        if not tasks:
            continue
        calls = {task.name: (task,) for task in tasks}
        for task, took in zip(tasks, run_on_devices(train_fold, calls, devices=devices), strict=True):
            logger.info("%s: fit in %.1f s, predicted in %.1f s", task.name, took.fit_seconds, took.predict_seconds)
            clock.finish_step(task.name)
            finished.setdefault(task.member.name, []).append(task.fold)
        in_order = {member.name: finished[member.name] for member in recipe.members if member.name in finished}
        test = combine_members(tables, in_order, run_folder=run_folder, leaks=recipe.leaks)
        submission = write_submission(
            run_folder / SUBMISSION, test, ids=tables.test[ID], sample_submission=tables.sample_submission
        )
        clock.finish_step(f"submission of {', '.join(in_order)}")
    return submission


def _list_tasks(tables: Tables, recipe: Recipe, *, run_folder: Path, cache_folder: Path) -> list[FoldTask]:
    fold_of_row = assign_folds(question_of(tables.train), split=recipe.split, folds=recipe.folds, seed=recipe.seed)
    return [
        FoldTask(
            member=member.for_fold(fold),
            fold=fold,
            fold_of_row=fold_of_row,
            tables=tables,
            run_folder=run_folder,
            cache_folder=cache_folder,
        )
        for member in recipe.members
        for fold in range(member.folds_to_train)
    ]


def train_fold(task: FoldTask) -> FinishedFold:
    """Train a member on all folds but one, predict that one and the test, and leave it whole in the run folder."""
    scored = np.flatnonzero(task.fold_of_row == task.fold)
    folder = fold_folder(task.run_folder, task.member.name, task.fold)
    log_folder = task.run_folder / "logs" / f"{task.member.name}-fold-{task.fold}"
    start = time.monotonic()
    member = MEMBERS[task.member.kind](task.member, cache_folder=task.cache_folder, log_folder=log_folder)
    member.fit(task.tables.train, rows=np.flatnonzero(task.fold_of_row != task.fold))
    fitted = time.monotonic()
    out_of_fold, test = member.predict(task.tables.train, rows=scored), member.predict(task.tables.test)
    predicted = time.monotonic()
    with finished_whole(folder) as temporary:
        member.save(temporary)
        ids = task.tables.train[ID].to_numpy()[scored]
        write_predictions(temporary / OUT_OF_FOLD, out_of_fold, ids=ids, folds=np.full(len(ids), task.fold))
        write_predictions(temporary / TEST_PREDICTIONS, test, ids=task.tables.test[ID])
        write_json(temporary / HISTORY, member.history)
    return FinishedFold(fit_seconds=fitted - start, predict_seconds=predicted - fitted)
