"""Fine-tuning of whatever parameters the stage names, on the ratings."""

import math
from typing import Any

from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback

from questlib.batches import PassCollator, QuestRows
from questlib.model.halves import layers_of
from questlib.model.quest import QuestModel
from questlib.stage import Stage
from questlib.training.average_weights import AverageWeights
from questlib.training.checkpoint import is_added
from questlib.training.kinds.base import StageKind, match_parameters
from questlib.training.optimizer import build_optimizer
from questlib.training.progress import StageLog
from questlib.training.trainer import OneDeviceArguments, QuestTrainer
from questlib.training.vectors import cache_vectors, can_cache

_LOGS_PER_STAGE = 60


class FineTune(StageKind):
    """Train by the Hugging Face Trainer; where only the head's outputs learn, the body is run once."""

    @classmethod
    def check(cls, model: QuestModel, stage: Stage, collator: PassCollator) -> None:
        """Refuse patterns that match nothing, or only what is frozen; and rates by layer of a body without a list."""
        super().check(model, stage, collator)
        if not cls.learns(model, stage):
            raise ValueError(
                f"a stage must train something that is not frozen, however stage {stage.name!r} would train nothing: "
                f"{stage.trainable=}, freeze_layers={model.config.freeze_layers}; name more, or freeze fewer layers"
            )
        if stage.layer_decay < 1:
            layers_of(model.body)

    @classmethod
    def learns(cls, model: QuestModel, stage: Stage) -> bool:
        """Tell whether the stage would train anything."""
        frozen = {id(parameter) for parameter in model.frozen_parameters()}
        named = match_parameters(model, stage.trainable)
        return any(name in named and id(parameter) not in frozen for name, parameter in model.named_parameters())

    def train(self) -> list[dict]:
        """Train the job's model in place."""
        job, stage = self.job, self.job.stage
        trainable = self._name_trainable()
        for name, parameter in job.model.named_parameters():
            parameter.requires_grad_(name in trainable)
        for parameter in job.model.frozen_parameters():
            parameter.requires_grad_(False)
        job.pace.begin_stage(f"stage {stage.name}", job.tape, is_last=job.number == job.n_stages - 1)
        if not job.pace.has_time(self._seconds_to_read()):
            job.notes.append(f"stage {stage.name}: left out, for want of time")
            return []
        log = StageLog(f"stage {job.number + 1} of {job.n_stages}, {stage.name}", job.tape, folder=job.folder)
        average = AverageWeights(stage.average_share)
        trainer = self._build_trainer(
            model=job.model,
            args=self._arguments(),
            precision=job.precision,
            tape=job.tape,
            pace=job.pace,
            interruptions=job.keeper.interruptions,
            notes=job.notes,
            train_dataset=self._read_once(job.train_rows),
            eval_dataset=None if job.stop_rows is None else self._read_once(job.stop_rows),
            data_collator=job.collator,
            optimizers=(build_optimizer(job.model, stage, job.settings), None),
            callbacks=[job.pace, average, job.best, log, *self._boards(), job.keeper],
        )
        trainer.remove_callback(PrinterCallback)
        job.keeper.follow(trainer, average)
        with job.keeper.interruptions:
            try:
                if job.stop_rows is not None and job.number == 0:
                    # Where training begins counts too: a stage that only harms leaves nothing. Later ones begin with
                    # the best.
                    trainer.evaluate()
                trainer.train()
            except (KeyboardInterrupt, SystemExit):
                job.keeper.keep_interrupted()
                raise
        # It trained under autocast, and is to predict as it will once it is read from its file.
        trainer.accelerator.unwrap_model(job.model, keep_fp32_wrapper=False)
        return job.tape.records

    def _build_trainer(self, **options: Any) -> QuestTrainer:  # noqa: ANN401  as the trainer's
        return QuestTrainer(**options)

    def _name_trainable(self) -> set[str]:
        # What a kind adds to the model for its stage learns too.
        added = {name for name, _ in self.job.model.named_parameters() if is_added(name)}
        return match_parameters(self.job.model, self.job.stage.trainable) | added

    def _seconds_to_read(self) -> float:
        # What is done before the first step: a frozen body reads the rows.
        job = self.job
        n_rows = len(job.train_rows) + len(job.stop_rows or ())
        return n_rows * job.pace.seconds_per_row if can_cache(job.model) else 0.0

    def _boards(self) -> list[TrainerCallback]:
        if not self.job.settings.use_tensorboard:
            return []
        from torch.utils.tensorboard import SummaryWriter

        # Told where to write: an evaluation before the first step would send it to the current folder.
        folder = self.job.folder / f"{self.job.number}-{self.job.stage.name}"
        return [TensorBoardCallback(SummaryWriter(str(folder)))]

    def _read_once(self, rows: QuestRows) -> QuestRows:
        job = self.job
        if not can_cache(job.model):
            return rows
        return cache_vectors(
            job.model,
            rows,
            job.collator,
            folder=job.cache_folder,
            batch_size=2 * job.settings.batch_size,
            precision=job.precision,
        )

    def _arguments(self) -> TrainingArguments:
        job, stage, settings = self.job, self.job.stage, self.job.settings
        n_steps = math.ceil(math.ceil(len(job.train_rows) / settings.batch_size) / settings.accumulation * stage.epochs)
        every = settings.evaluate_every
        return OneDeviceArguments(
            output_dir=str(job.folder),
            num_train_epochs=stage.epochs,
            lr_scheduler_type=stage.schedule,
            warmup_steps=round(n_steps * stage.warmup_share),
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=2 * settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            eval_strategy="no" if job.stop_rows is None else "steps" if every else "epoch",
            eval_steps=every or None,
            save_strategy="no",
            logging_steps=max(1, n_steps // _LOGS_PER_STAGE),
            report_to=[],
            bf16=job.precision == "bf16",
            fp16=job.precision == "fp16",
            use_cpu=job.model.device.type == "cpu",
            seed=settings.seed + job.number,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
