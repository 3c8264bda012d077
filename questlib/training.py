"""Staged fine-tuning: a list of stages, each with its own learning rates, the best weights kept across all of them."""

import logging
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

from questlib.batches import PassCollator, QuestRows
from questlib.config import refuse_outside, refuse_unknown
from questlib.devices import PRECISIONS, pick_device, pick_precision
from questlib.features import cache_vectors, can_cache
from questlib.model import QuestModel
from questlib.trainer import BestWeights, OneDeviceArguments, QuestTrainer, StageLog

logger = logging.getLogger(__name__)

SCHEDULES: tuple[str, ...] = ("linear", "cosine", "constant", "constant_with_warmup")
OPTIMIZERS: tuple[str, ...] = ("adamw", "adamw_8bit")
_LOGS_PER_STAGE = 60


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training with its own parameters, learning rates and schedule.

    Args:
        name: As the log and the report show it.
        trainable: Patterns over parameter names, such as "head.*"; what none matches is frozen.
        epochs: Passes over the training rows, at most; early stopping may end the stage sooner.
        learning_rate: Of the body, the peak.
        head_learning_rate: Of the head, the peak.
        schedule: "linear" or "cosine" to 0, "constant", or "constant_with_warmup".
        warmup_share: Share of the stage's steps in which the rate rises from 0, in [0, 1].
        weight_decay: Of weight matrices; biases and norms have none.
    """

    name: str
    trainable: tuple[str, ...]
    epochs: float
    learning_rate: float
    head_learning_rate: float
    schedule: str = "linear"
    warmup_share: float = 0.0
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainable", tuple(self.trainable))  # JSON gives a list
        refuse_unknown([self.schedule], known=SCHEDULES, what="schedule")
        refuse_outside(self.epochs, low=1e-3, high=1000, what="epochs")
        refuse_outside(self.learning_rate, low=0, high=1, what="learning_rate")
        refuse_outside(self.head_learning_rate, low=0, high=1, what="head_learning_rate")
        refuse_outside(self.warmup_share, low=0, high=1, what="warmup_share")
        refuse_outside(self.weight_decay, low=0, high=10, what="weight_decay")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all stages share.

    Args:
        batch_size: Rows of a batch.
        accumulation: Batches whose gradients are added before a step.
        evaluate_every: Steps between evaluations on the held-out questions; 0 evaluates once an epoch.
        patience: Evaluations in a row without a gain before a stage ends; 0 never ends it early.
        threshold: What counts as a gain, in Spearman.
        optimizer: "adamw" (fused) or "adamw_8bit" (bitsandbytes).
        precision: "auto", "bf16", "fp16" or "fp32".
        seed: Seeds the head, the order of the rows and dropout.
        use_tensorboard: Writes TensorBoard logs.
    """

    batch_size: int = 16
    accumulation: int = 1
    evaluate_every: int = 0
    patience: int = 3
    threshold: float = 0.0
    optimizer: str = "adamw"
    precision: str = "auto"
    seed: int = 42
    use_tensorboard: bool = False

    def __post_init__(self) -> None:
        refuse_unknown([self.optimizer], known=OPTIMIZERS, what="optimizer")
        refuse_unknown([self.precision], known=PRECISIONS, what="precision")
        for name, low in (("batch_size", 1), ("accumulation", 1), ("evaluate_every", 0), ("patience", 0)):
            refuse_outside(getattr(self, name), low=low, high=1_000_000, what=name)


def build_stages(stages: Sequence[dict[str, Any]], *, cycles: int) -> list[Stage]:
    """Build the list of stages from plain parameters.

    Args:
        stages: The fields of `Stage`, one mapping each.
        cycles: How many times the list is gone through.

    Returns:
        The stages in the order they run.

    Raises:
        ValueError: If a field is unknown or missing, or there is no stage.
    """
    required = [field.name for field in fields(Stage) if field.default is MISSING]
    for number, stage in enumerate(stages):
        refuse_unknown(stage, known=[field.name for field in fields(Stage)], what=f"field of stage {number}")
        missing = [name for name in required if name not in stage]
        if missing:
            raise ValueError(f"stage {number} must state {missing}, however: {stage}")
    if not stages or cycles < 1:
        raise ValueError(f"there must be a stage and a cycle, however: {len(stages)=}, {cycles=}")
    return [Stage(**stage) for stage in stages] * cycles


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

    Raises:
        ValueError: If a stage's pattern matches no parameter.
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
        log = StageLog(f"stage {number + 1} of {len(stages)}, {stage.name}")
        arguments = _training_arguments(
            stage,
            settings,
            n_rows=len(train_rows),
            evaluates=stop_rows is not None,
            precision=precision,
            device=device,
            seed=settings.seed + number,
            folder=folder / f"{number}-{stage.name}" if settings.use_tensorboard else folder,
        )
        trainable = match_parameters(model, stage.trainable)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)
        stage_rows = {"train_dataset": train_rows, "eval_dataset": stop_rows}
        if can_cache(model):
            stage_rows = {
                name: rows
                and cache_vectors(
                    model, rows, collator, folder=cache_folder, batch_size=2 * settings.batch_size, precision=precision
                )
                for name, rows in stage_rows.items()
            }
        trainer = QuestTrainer(
            model=model,
            args=arguments,
            precision=precision,
            **stage_rows,
            data_collator=collator,
            optimizers=(_build_optimizer(model, stage, settings), None),
            callbacks=[best, log],
        )
        trainer.remove_callback(PrinterCallback)
        if stop_rows is not None and number == 0:
            # Where training begins counts too: a stage that only harms leaves nothing. Later ones begin with the best.
            trainer.evaluate()
        trainer.train()
        best.restore(model)
        first_step = history[-1]["step"] if history else 0
        about = {"stage": stage.name, "number": number}
        history += [record | about | {"step": first_step + record["step"]} for record in log.records]
    return history


def _training_arguments(
    stage: Stage,
    settings: TrainingSettings,
    *,
    n_rows: int,
    evaluates: bool,
    precision: str,
    device: torch.device,
    seed: int,
    folder: Path,
) -> TrainingArguments:
    n_steps = math.ceil(math.ceil(n_rows / settings.batch_size) / settings.accumulation * stage.epochs)
    every = settings.evaluate_every
    return OneDeviceArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=round(n_steps * stage.warmup_share),
        weight_decay=stage.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        eval_strategy="no" if not evaluates else "steps" if every else "epoch",
        eval_steps=every or None,
        save_strategy="no",
        # Several processes share each batch, so that a step is the same step however many there are.
        accelerator_config={"split_batches": True},
        logging_steps=max(1, n_steps // _LOGS_PER_STAGE),
        report_to=["tensorboard"] if settings.use_tensorboard else [],
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        seed=seed,
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def _build_optimizer(model: QuestModel, stage: Stage, settings: TrainingSettings) -> torch.optim.Optimizer:
    groups = []
    for in_head, rate in ((False, stage.learning_rate), (True, stage.head_learning_rate)):
        for decays, decay in ((False, 0.0), (True, stage.weight_decay)):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and name.startswith("head.") == in_head and (parameter.ndim > 1) == decays
            ]
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("adamw_8bit needs bitsandbytes; install it or choose optimizer adamw") from error
    return AdamW8bit(groups)


def match_parameters(model: QuestModel, patterns: Sequence[str]) -> set[str]:
    """Find the parameters that patterns name.

    Args:
        model: Has the parameters.
        patterns: Shell-style patterns over parameter names.

    Returns:
        The names.

    Raises:
        ValueError: If a pattern matches none.
    """
    names = [name for name, _ in model.named_parameters()]
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatch(name, pattern)}
        if not found:
            raise ValueError(
                f"a trainable pattern must match a parameter, however: {pattern!r}; names look like {names[-1]!r}"
            )
        matched |= found
    return matched
