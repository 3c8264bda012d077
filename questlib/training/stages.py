"""Staged fine-tuning: a list of stages, each with its own learning rates, the best weights kept across all of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from questlib.batches import PassCollator, QuestRows
from questlib.devices import pick_device, pick_precision
from questlib.model.quest import QuestModel
from questlib.recipe import Stage, TrainingSettings
from questlib.training.best_weights import BestWeights
from questlib.training.kinds import STAGE_KINDS
from questlib.training.kinds.base import StageJob, match_parameters

logger = logging.getLogger(__name__)


def fit_stages(
    model: QuestModel,
    stages: Sequence[Stage],
    *,
    train_rows: QuestRows,
    stop_rows: QuestRows | None,
    collator: PassCollator,
    settings: TrainingSettings,
    folder: Path,
    cache_folder: Path,
) -> list[dict]:
    """Train a model stage after stage and leave it with the best weights of them all.

    Args:
        model: Trained in place.
        stages: In order; each begins where the best of those before it ended.
        train_rows: What is learned from.
        stop_rows: Questions that are neither learned from nor scored, to stop by; None trains every stage to its end.
        collator: Builds the batches.
        settings: What all stages share.
        folder: For TensorBoard logs.
        cache_folder: Holds what a frozen body makes of the rows, for stages that train only the head's outputs.

    Returns:
        The history: one record per evaluation or logged loss, with `stage`, `number`, `step` (over all stages) and
        `epoch` (of the stage).
    """
    for stage in stages:  # all refused before the first hour is spent
        match_parameters(model, stage.trainable)
    device = pick_device()
    precision = pick_precision(settings.precision, device)
    logger.info(
        "training on %s in %s: %d rows, %d to stop by", device, precision, len(train_rows), len(stop_rows or ())
    )
    model.to(device)  # type: ignore[arg-type]
    best = BestWeights(patience=settings.patience, threshold=settings.threshold)
    history: list[dict] = []
    for number, stage in enumerate(stages):
        job = StageJob(
            model=model,
            stage=stage,
            number=number,
            n_stages=len(stages),
            train_rows=train_rows,
            stop_rows=stop_rows,
            collator=collator,
            settings=settings,
            precision=precision,
            best=best,
            folder=folder,
            cache_folder=cache_folder,
        )
        records = STAGE_KINDS[stage.kind](job).train()
        best.restore(model)
        first_step = history[-1]["step"] if history else 0
        about = {"stage": stage.name, "number": number}
        history += [record | about | {"step": first_step + record["step"]} for record in records]
    return history
