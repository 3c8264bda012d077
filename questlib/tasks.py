"""One member on one fold: what a process is given, and what it does with it."""

import gc
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from questlib.cpu.cores import give_freed_memory_back
from questlib.data import IndexArray, Tables
from questlib.marks import finished_whole
from questlib.members import MEMBERS
from questlib.plan import WHOLE, Share, Speed
from questlib.predictions import write_predictions
from questlib.recipe import MemberRecipe
from questlib.run_folder import (
    HISTORY,
    LOGS,
    OUT_OF_FOLD,
    TEST_PREDICTIONS,
    checkpoint_folder,
    fold_folder,
    read_json,
    write_json,
)
from questlib.schema import ID
from questlib.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

_SHARE = "share.json"


@dataclass(frozen=True, kw_only=True)
class FoldTask:
    """One member on one fold: all that a process needs to know of it."""

    member: MemberRecipe  # as asked
    fold: int  # is scored; the others are learned from
    fold_of_row: IndexArray  # (n_train,)
    tables: Tables
    run_folder: Path
    cache_folder: Path
    share: Share = WHOLE  # of the member's training, as far as time allows
    deadline: float = math.inf  # of the fit, by time.monotonic

    @property
    def name(self) -> str:
        """As log lines and the timeline show it."""
        return f"{self.member.name}, fold {self.fold}"

    @property
    def folder(self) -> Path:
        """Where it lies when it is finished."""
        return fold_folder(self.run_folder, self.member.name, self.fold)

    @property
    def scored_rows(self) -> IndexArray:
        """The rows of the fold, which are predicted and not learned from."""
        return np.flatnonzero(self.fold_of_row == self.fold)

    @property
    def training_rows(self) -> IndexArray:
        """All other rows."""
        return np.flatnonzero(self.fold_of_row != self.fold)

    @property
    def checkpoint_folder(self) -> Path:
        """Where the state of its training lies until then."""
        return checkpoint_folder(self.run_folder, self.member.name, self.fold, cache_folder=self.cache_folder)

    def read_progress(self) -> tuple[Share, int, float] | None:
        """Tell what an interrupted training was to do, and how far it is: finished stages, epochs of the next one."""
        progress, path = Checkpoints(self.checkpoint_folder).read_progress(), self.checkpoint_folder / _SHARE
        if progress is None or not path.is_file():
            return None
        try:
            return Share(**read_json(path)), *progress
        except ValueError:  # damaged: it is planned anew, and goes on from its checkpoint all the same
            return None


@dataclass(frozen=True, kw_only=True)
class FinishedFold:
    """How many seconds a task took, for how many epochs of each stage; what it made is in its folder."""

    fit_seconds: float
    predict_seconds: float
    epochs: tuple[float, ...]  # none where a part of them was trained before
    notes: list[str]  # what did not go as asked


def measure_fold(task: FoldTask) -> Speed | None:
    """Tell how fast a member would be trained on this fold; None for a kind that need not be asked."""
    logger.info("%s: a few steps tell how fast it is", task.member.name)
    _release_memory()
    member = MEMBERS[task.member.kind](
        task.member, cache_folder=task.cache_folder, checkpoint_folder=task.checkpoint_folder.parent
    )
    return member.measure(task.tables.train, rows=task.training_rows, test=task.tables.test)


def train_fold(task: FoldTask) -> FinishedFold:
    """Train a member on all folds but one, predict that one and the test, and leave it whole in the run folder."""
    start = time.monotonic()
    _release_memory()
    checkpoints = None if task.member.is_quick else task.checkpoint_folder
    is_resumed = task.read_progress() is not None
    if checkpoints is not None:
        write_json(checkpoints / _SHARE, asdict(task.share))
    member = MEMBERS[task.member.kind](
        task.member,
        cache_folder=task.cache_folder,
        log_folder=task.run_folder / LOGS / f"{task.member.name}-fold-{task.fold}",
        checkpoint_folder=checkpoints,
    )
    member.fit(
        task.tables.train, rows=task.training_rows, deadline=task.deadline, share=task.share, unrated=task.tables.test
    )
    fitted = time.monotonic()
    scored = task.scored_rows
    out_of_fold, test = member.predict(task.tables.train, rows=scored), member.predict(task.tables.test)
    with finished_whole(task.folder) as temporary:
        member.save(temporary)
        ids = task.tables.train[ID].to_numpy()[scored]
        write_predictions(temporary / OUT_OF_FOLD, out_of_fold, ids=ids, folds=np.full(len(ids), task.fold))
        write_predictions(temporary / TEST_PREDICTIONS, test, ids=task.tables.test[ID])
        write_json(temporary / HISTORY, member.history)
    Checkpoints(task.checkpoint_folder).remove()
    predicted = time.monotonic()
    last = {record["number"]: record["epoch"] for record in member.history}  # of each stage
    return FinishedFold(
        fit_seconds=fitted - start,
        predict_seconds=predicted - fitted,
        epochs=() if is_resumed else tuple(last.values()),
        notes=member.notes,
    )


def _release_memory() -> None:
    # A trainer and its model name one another: those of the last task, a gigabyte of a base-size encoder with its
    # optimiser, stay until Python looks for such circles.
    gc.collect()
    torch.cuda.empty_cache()
    give_freed_memory_back()
