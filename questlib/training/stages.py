"""Staged fine-tuning: a list of stages, each with its own learning rates, the best weights kept across all of them."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from questlib.batches import PassCollator, QuestRows
from questlib.checks import refuse_missing
from questlib.devices import pick_device, pick_precision
from questlib.model.body import find_not_finite
from questlib.model.quest import QuestModel
from questlib.recipe import TrainingSettings
from questlib.run_folder import EVALUATIONS
from questlib.stage import Stage
from questlib.training.best_weights import BestWeights
from questlib.training.checkpoint import Checkpoints
from questlib.training.keeper import Keeper
from questlib.training.kinds import STAGE_KINDS
from questlib.training.kinds.base import StageJob
from questlib.training.pace import Pace

logger = logging.getLogger(__name__)


def fit_stages(
    model: QuestModel,
    stages: Sequence[Stage],
    *,
    train_rows: QuestRows,
    stop_rows: QuestRows | None,
    unrated_rows: QuestRows | None = None,
    collator: PassCollator,
    settings: TrainingSettings,
    folder: str | Path,
    cache_folder: str | Path,
    checkpoints: Checkpoints | None = None,
    deadline: float = math.inf,
    share: float = 1.0,
    notes: list[str] | None = None,
) -> list[dict]:
    """Train a model stage after stage and leave it with the best weights of them all.

    Args:
        model: Trained in place.
        stages: In order; each begins where the best of those before it ended.
        train_rows: What is learned from.
        stop_rows: Questions that are neither learned from nor scored, to stop by; None trains every stage to its end.
        unrated_rows: What a pseudo_label stage rates and learns too; without any it is like another.
        collator: Builds the batches.
        settings: What all stages share.
        folder: For logs: a line for each evaluation, TensorBoard's where asked for.
        cache_folder: Holds what a frozen body makes of the rows, for stages that train only the head's outputs.
        checkpoints: Hold the state of the training; one that is found there is gone on from. None keeps nothing.
        deadline: When it should be over, by `time.monotonic`; stages are shortened, and later ones left out, for it.
        share: Of the steps of every stage, that are planned to fit until then.
        notes: Takes what did not go as asked, in words.

    Returns:
        The history: one record per evaluation or logged loss, with `stage`, `number`, `step` (over all stages) and
        `epoch` (of the stage).
    """
    notes = [] if notes is None else notes
    check_stages(model, stages, collator=collator, settings=settings)
    device = pick_device()
    precision = pick_precision(settings.precision, device)
    n_stop = len(stop_rows or ())
    logger.info("training on %s in %s: %d rows, %d to stop by", device, precision, len(train_rows), n_stop)
    model.to(device)  # type: ignore[arg-type]
    best = BestWeights(patience=settings.patience, threshold=settings.threshold)
    pace = Pace(deadline=deadline, share=share, notes=notes)
    history: list[dict] = []
    keeper = Keeper(checkpoints, model=model, best=best, history=history, notes=notes)
    for number, stage in list(enumerate(stages))[_begin(keeper, Path(folder)) :]:
        job = StageJob(
            model=model, stage=stage, number=number, n_stages=len(stages), train_rows=train_rows, stop_rows=stop_rows,
            unrated_rows=unrated_rows, collator=collator, settings=settings, precision=precision, best=best,
            keeper=keeper, pace=pace, tape=keeper.begin_stage(number), notes=notes, folder=Path(folder),
            cache_folder=Path(cache_folder),
        )  # fmt: skip
        _add_records(history, STAGE_KINDS[stage.kind](job).train(), job=job)
        best.restore(model)
    _refuse_not_finite(model)
    keeper.begin_stage(len(stages))
    return history


def check_stages(
    model: QuestModel, stages: Sequence[Stage], *, collator: PassCollator, settings: TrainingSettings
) -> None:
    """Refuse stages and settings that cannot be carried out on a model here, before the first hour is spent."""
    if settings.optimizer == "adamw_8bit":
        refuse_missing("bitsandbytes", what="optimizer adamw_8bit", install="questlib[eight-bit]")
    if settings.use_tensorboard:
        refuse_missing("tensorboard", what="use_tensorboard", install="tensorboard")
    for stage in stages:
        STAGE_KINDS[stage.kind].check(model, stage, collator)


def _begin(keeper: Keeper, folder: Path) -> int:
    # A training that goes on keeps its log.
    first = keeper.find_back()
    if not keeper.is_resumed:
        (folder / EVALUATIONS).unlink(missing_ok=True)
    return first


def _add_records(history: list[dict], records: list[dict], *, job: StageJob) -> None:
    first_step = history[-1]["step"] if history else 0
    about = {"stage": job.stage.name, "number": job.number}
    history += [record | about | {"step": first_step + record["step"]} for record in records]


def _refuse_not_finite(model: QuestModel) -> None:
    wrong = find_not_finite(model)
    if wrong:
        raise RuntimeError(f"every weight must be finite after training, however not in {len(wrong)}: {wrong[:3]}")
