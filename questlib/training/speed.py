"""How fast a training would be, tried out on a few rows."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from questlib.batches import LengthBatchSampler, PassCollator, QuestRows
from questlib.devices import pick_device, pick_precision
from questlib.model.prediction import predict_logits
from questlib.model.quest import QuestModel
from questlib.plan import Speed
from questlib.recipe import TrainingSettings
from questlib.run_folder import UNFINISHED, told_when_full
from questlib.stage import PseudoLabelStage, Stage
from questlib.training.best_weights import BestWeights
from questlib.training.keeper import Keeper
from questlib.training.kinds import STAGE_KINDS
from questlib.training.kinds.base import StageJob
from questlib.training.pace import Pace
from questlib.training.states import hold_states
from questlib.training.vectors import can_cache

# The first steps of a training are slower than those after them: memory is taken for the first time.
_STEPS = 6
# What an optimiser, a data loader and a log of their own take before and after a stage.
_SECONDS_OF_STAGE = 1.0
# With a deadline steps are timed; this one is never met.
_LONG = 1e6


def measure_speed(
    model: QuestModel,
    stages: Sequence[Stage],
    *,
    train_rows: QuestRows,
    stop_rows: QuestRows | None,
    collator: PassCollator,
    settings: TrainingSettings,
    folder: Path,
    cache_folder: Path,
    n_unread: tuple[int, int],
    before: float,
    n_unrated: int,
) -> Speed:
    """Train a model, which is spoilt by it, for a few steps of each stage, let it predict, and write it.

    Args:
        model: As `questlib.training.fit_stages` takes it, and so all that follows.
        stages: See there.
        train_rows: See there.
        stop_rows: See there.
        collator: See there.
        settings: See there.
        folder: Where a model is written for a moment.
        cache_folder: See there.
        n_unread: Rows of the training table, and of the test, that frozen layers are still to read.
        before: Seconds that it took to come here.
        n_unrated: Rows that a stage which rates rows itself would have beside those of the table.
    """
    device = pick_device()
    precision = pick_precision(settings.precision, device)
    model.to(device)  # type: ignore[arg-type]
    sample = _take_usual(train_rows, batch_size=settings.batch_size * settings.accumulation)
    sample, frozen_row = _read_frozen(model, sample, collator, batch_size=2 * settings.batch_size, precision=precision)
    steps = _time_steps(model, stages, sample, collator, settings, precision=precision, folder=cache_folder)
    row = _time_prediction(model, sample, collator, batch_size=2 * settings.batch_size, precision=precision)
    after = _time_writing(model, folder)
    n_stop = len(stop_rows or ())
    fixed, by_epoch = [], []
    for stage in stages:
        step, is_cached = steps[stage.kind, stage.trainable]
        n_rated = n_unrated if isinstance(stage, PseudoLabelStage) else 0
        n_rows = len(train_rows) + n_rated
        n_steps = math.ceil(n_rows / settings.batch_size / settings.accumulation)
        n_evaluations = n_steps / settings.evaluate_every if settings.evaluate_every else 1.0
        # A frozen body reads all rows once, and evaluates for nothing.
        fixed.append(_SECONDS_OF_STAGE + row * (n_stop + n_rated + (n_rows if is_cached else 0)))
        by_epoch.append(n_steps * step + (0.0 if is_cached else n_evaluations * n_stop * row))
    return Speed(
        before=before,
        stages=tuple(fixed),
        epochs=tuple(by_epoch),
        row=row,
        after=after,
        read_train=frozen_row * n_unread[0],
        read_test=frozen_row * n_unread[1],
    )


def _time_steps(
    model: QuestModel,
    stages: Sequence[Stage],
    rows: QuestRows,
    collator: PassCollator,
    settings: TrainingSettings,
    *,
    precision: str,
    folder: Path,
) -> dict[tuple[str, tuple[str, ...]], tuple[float, bool]]:
    # Seconds of a step, and whether a frozen body reads the rows once, of each kind of stage and what it trains.
    steps, settings = {}, replace(settings, use_tensorboard=False)
    for stage in {(stage.kind, stage.trainable): stage for stage in stages}.values():
        job = _plan_job(model, stage, rows, collator, settings, precision=precision, folder=folder)
        STAGE_KINDS[stage.kind](job).train()
        steps[stage.kind, stage.trainable] = job.pace.step_seconds, can_cache(model)
    return steps


def _plan_job(
    model: QuestModel,
    stage: Stage,
    rows: QuestRows,
    collator: PassCollator,
    settings: TrainingSettings,
    *,
    precision: str,
    folder: Path,
) -> StageJob:
    # One epoch over some rows, of which nothing is kept.
    best = BestWeights(patience=0, threshold=0.0)
    keeper = Keeper(None, model=model, best=best, history=[], notes=[])
    return StageJob(
        model=model,
        stage=replace(stage, epochs=1.0),
        number=0,
        n_stages=1,
        train_rows=rows,
        stop_rows=None,
        collator=collator,
        settings=settings,
        precision=precision,
        best=best,
        keeper=keeper,
        tape=keeper.begin_stage(0),
        pace=Pace(deadline=time.monotonic() + _LONG, notes=[]),
        notes=[],
        folder=folder,
        cache_folder=folder,
    )


def _read_frozen(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> tuple[QuestRows, float]:
    # Rows past the layers that are frozen, if any are, and the seconds of one.
    if model.halves is None:
        return rows, 0.0
    start = time.monotonic()
    states = hold_states(model, rows, collator, batch_size=batch_size, precision=precision)
    return states, (time.monotonic() - start) / len(rows)


def _time_prediction(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> float:
    start = time.monotonic()
    predict_logits(model, rows, collator, batch_size=batch_size, precision=precision)
    return (time.monotonic() - start) / len(rows)


def _time_writing(model: QuestModel, folder: Path) -> float:
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    # Within a run folder: what a killed process leaves is removed by its name.
    with told_when_full(folder / "model"), tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as temporary:
        model.save_pretrained(temporary)
    return time.monotonic() - start


def _take_usual(rows: QuestRows, *, batch_size: int) -> QuestRows:
    # A step takes about as long as one of the mean length: batches hold rows of like length, and a question's answers.
    batches = list(LengthBatchSampler(rows, batch_size=batch_size, seed=0))
    batches.sort(key=lambda batch: (len(batch) < batch_size, abs(rows.lengths[batch].mean() - rows.lengths.mean())))
    chosen = np.concatenate(batches[:_STEPS])
    assert rows.targets is not None
    return QuestRows(rows.passes, rows.metadata[chosen], targets=rows.targets[chosen], rows=chosen)
