"""Members times folds: each pair is trained on a device, predicts the rows it never saw, and is on disk at once."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from questlib.cache import find_cache
from questlib.clock import Clock
from questlib.data import Tables, assign_folds, question_of
from questlib.devices import pick_device, pick_devices
from questlib.marks import check_finished
from questlib.members import MEMBERS
from questlib.parallel import Workers
from questlib.processes import find_launched
from questlib.recipe import LexicalRecipe, Recipe
from questlib.resume import keep_inputs
from questlib.run_folder import locked
from questlib.schedule import Schedule
from questlib.schema import RARE_TARGET, TARGETS
from questlib.scores import can_be_scored
from questlib.standing import Standing
from questlib.tasks import FinishedFold, FoldTask, measure_fold, train_fold
from questlib.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)


def train_members(
    tables: Tables,
    recipe: Recipe,
    *,
    run_folder: str | Path,
    cache_folder: str | Path,
    clock: Clock,
    devices: Sequence[torch.device] | None = None,
) -> pd.DataFrame:
    """Train every member on its folds, as far as the clock's limit allows, and write ensemble, scores and submission.

    The quick members come first, so that their submission stands while the others train; after every finished fold it
    is replaced, if what there is now is as good. A run that was interrupted goes on where it was.

    Args:
        tables: What `questlib.data.read_tables` returns.
        recipe: What to train.
        run_folder: Takes all of it.
        cache_folder: Holds what can be computed again.
        clock: Times the steps, and knows the limit.
        devices: As many (member, fold) pairs train at once, one process per device; on one device they train here, one
            by one. Where None, all GPUs that compute, but one where a launcher gave this process its own.

    Returns:
        The submission as it stands.

    Raises:
        ValueError: If the folder holds a run of another recipe or of other tables.
        RuntimeError: If another process works in the folder, or no fold could be finished.
    """
    if recipe.leaks:
        logger.warning("split=random leaks: a question stands on both sides, and the score reads too high")
    run_folder, cache_folder = Path(run_folder).expanduser(), find_cache(Path(cache_folder))
    if devices is None:
        devices = [pick_device()] if find_launched().by_launcher else pick_devices()
    _refuse_unscorable(tables, recipe)
    with locked(run_folder):
        keep_inputs(run_folder, recipe, tables)
        for member in recipe.members:  # all refused before the first hour is spent
            MEMBERS[member.kind](member, cache_folder=cache_folder).check()
        standing = Standing(tables, recipe, run_folder=run_folder, clock=clock)
        tasks = [
            task for task in list_tasks(tables, recipe, run_folder, cache_folder) if not _take_finished(task, standing)
        ]
        if standing.finished:
            folds = ", ".join(f"{len(each)} of {name}" for name, each in standing.finished.items())
            clock.note(f"resumed: finished before were folds {folds}")
            standing.replace()
        quick, slow = ([task for task in tasks if task.member.is_quick == is_quick] for is_quick in (True, False))
        schedule = Schedule(recipe, clock=clock, standing=standing)
        with Workers([torch.device("cpu")]) as here:  # a process of its own would take longer to start
            _work_off(quick, here, schedule, standing)
        if slow and not standing.is_there:
            _stand_in(tables, standing, cache_folder)
        with Workers(devices) as workers:
            if slow and not math.isinf(clock.limit):
                _measure(slow, workers, schedule)
            _work_off(slow, workers, schedule, standing)
        return standing.read()


def list_tasks(tables: Tables, recipe: Recipe, run_folder: Path, cache_folder: Path) -> list[FoldTask]:
    """List what a run trains, the most valuable first: a fold of every member before a second one of any."""
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
        for fold in range(recipe.folds)
        for member in recipe.members
        if fold < member.folds_to_train
    ]


def _refuse_unscorable(tables: Tables, recipe: Recipe) -> None:
    questions = question_of(tables.train)
    fold_of_row = assign_folds(questions, split=recipe.split, folds=recipe.folds, seed=recipe.seed)
    most = max(member.folds_to_train for member in recipe.members)
    known = fold_of_row < most
    if not can_be_scored(questions[known], fold_of_row[known]):
        raise ValueError(
            "the folds to train must hold two questions in one of them, or four in the only one, to be scored, however "
            f"they hold {len(np.unique(questions[known]))} in all: folds={recipe.folds}, folds_to_train={most}; give "
            "more questions, or train more folds"
        )
    ratings = tables.train.loc[known, [name for name in TARGETS if name != RARE_TARGET]]
    if (ratings.nunique() < 2).all():
        raise ValueError(
            f"the ratings of a target but {RARE_TARGET} must vary in train.csv for a run to be scored, however in the "
            f"{len(ratings)} rows of the folds to train each is constant; give more rows, or other ratings"
        )


def _take_finished(task: FoldTask, standing: Standing) -> bool:
    try:
        check_finished(task.folder)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError) as error:
        standing.clock.note(f"{task.name}: is trained anew, because {error}")
        return False
    Checkpoints(task.checkpoint_folder).remove()  # left where the process was killed as the fold was finished
    standing.finished.setdefault(task.member.name, []).append(task.fold)
    return True


def _work_off(tasks: Sequence[FoldTask], workers: Workers, schedule: Schedule, standing: Standing) -> None:
    clock, waiting = standing.clock, list(tasks)
    running: dict[str, FoldTask] = {}
    tried: set[str] = set()
    fault: BaseException | None = None
    while waiting or running:
        while waiting and workers.is_free:
            planned = schedule.plan(waiting, running=list(running.values()), n_devices=workers.n_devices)
            if planned is None:
                dropped = ", ".join(task.name for task in waiting)
                clock.note(f"left out, for want of time: {dropped}")
                waiting.clear()
                break
            waiting = [task for task in waiting if task.name != planned.name]
            running[planned.name] = planned
            standing.refuse_changed_inputs()
            workers.start(planned.name, train_fold, planned)
        if not running:
            break
        name, outcome = workers.wait()
        task = running.pop(name)
        if isinstance(outcome, FinishedFold):
            schedule.learn(task, outcome)
            logger.info("%s: fit in %.1f s, predicted in %.1f s", name, outcome.fit_seconds, outcome.predict_seconds)
            for note in outcome.notes:
                clock.note(f"{name}: {note}")
            clock.finish_step(name)
            standing.add(task.member.name, task.fold)
        elif find_launched().size > 1:  # the others wait within the fold: who launched them ends them all
            raise outcome
        elif name in tried:
            fault = outcome
            clock.note(f"{name}: failed again and is left out: {outcome}")
        else:
            tried.add(name)
            waiting.append(task)
            clock.note(f"{name}: failed and is tried once more: {outcome}")
    if fault is not None and not standing.finished:
        raise fault


def _stand_in(tables: Tables, standing: Standing, cache_folder: Path) -> None:
    # No member is quick, and nothing else would stand for long.
    member = MEMBERS["lexical"](LexicalRecipe(), cache_folder=cache_folder).fit(tables.train)
    standing.stand_in(member.predict(tables.test))


def _measure(tasks: Sequence[FoldTask], workers: Workers, schedule: Schedule) -> None:
    waiting = list({task.member.name: task for task in reversed(tasks)}.values())[::-1]
    n_running = 0
    while True:
        # With nothing left nothing more is trained, and to measure it takes minutes where it is slow.
        while waiting and workers.is_free and schedule.left > 0:
            task = waiting.pop(0)
            workers.start(task.member.name, measure_fold, task)
            n_running += 1
        if not n_running:
            break
        name, speed = workers.wait()
        n_running -= 1
        if isinstance(speed, BaseException):  # the fold itself will tell, and is tried twice
            logger.warning("%s: its speed could not be measured: %s", name, speed)
        elif speed is not None:
            schedule.speeds[name] = speed
    schedule.clock.finish_step("measure the speed")
