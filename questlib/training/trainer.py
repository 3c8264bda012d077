"""The Hugging Face Trainer through its documented hooks: length batches, our one way to predict and one loss."""

import logging
import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from questlib.batches import LengthBatchSampler, PassCollator, QuestRows
from questlib.cpu.step import StepOnCores, split_batch
from questlib.metrics import mean_spearman
from questlib.model.prediction import predict_logits
from questlib.model.quest import QuestModel
from questlib.training.interruptions import Interruptions
from questlib.training.pace import Pace
from questlib.training.tape import Tape

logger = logging.getLogger(__name__)

_NO_ROW = -1.0  # fills up what a process has fewer rows of than others; no rating is below 0


class OneDeviceArguments(TrainingArguments):
    """Arguments for one device per process; with two GPUs the Trainer would take the slower `nn.DataParallel`."""

    @property
    def n_gpu(self) -> int:
        """At most one."""
        return min(1, super().n_gpu)


class QuestTrainer(Trainer):
    """A Trainer that batches rows by length, evaluates as `questlib.model.prediction` predicts, and survives faults.

    A batch that is too large for the device is differentiated in halves from then on, with the same gradients. A loss
    that is not finite, or has gradients that are not, changes nothing and ends the stage.

    Args:
        precision: "bf16", "fp16" or "fp32", for evaluation.
        tape: What the stage met before it was interrupted is played; all else is added to it.
        pace: Is told how long evaluations take, and leads the schedule.
        interruptions: Are told when a step is in progress.
        notes: Takes what did not go as asked.
        options: As the Trainer's.
    """

    def __init__(
        self,
        *,
        precision: str,
        tape: Tape,
        pace: Pace,
        interruptions: Interruptions,
        notes: list[str],
        **options: Any,  # noqa: ANN401  handed through to the Trainer
    ) -> None:
        super().__init__(**options)
        self.precision = precision
        self.tape = tape
        self.pace = pace
        self.interruptions = interruptions
        self.notes = notes
        assert isinstance(self.model, QuestModel)
        self._on_cores = StepOnCores(self.model, precision=precision)
        self._n_parts = 1  # of a batch, for want of memory
        self._group: list[dict[str, Tensor]] = []  # batches of the step in progress, and which step it is
        self._group_step = -1

    @property
    def compares_rows(self) -> bool:
        """Whether the loss of a row hangs on the others of its batch."""
        assert isinstance(self.model, QuestModel)
        return self.model.loss.compares_rows

    def get_train_dataloader(self) -> DataLoader:
        """Batch rows of like length; several processes share each batch."""
        assert isinstance(self.train_dataset, QuestRows)
        sampler = LengthBatchSampler(
            self.train_dataset, batch_size=self.args.train_batch_size, seed=self.args.seed,
            process=self.accelerator.process_index, n_processes=self.accelerator.num_processes,
        )  # fmt: skip
        return DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule that was asked for, and let the pace lead it."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        self.pace.follow(scheduler)
        return scheduler

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add the gradients of a batch, or play what it was."""
        self.interruptions.is_in_step = True
        if self.tape.is_playing:
            self._skip_step(model)
            return torch.tensor(self.tape.next_loss(), device=self.args.device)
        if self._group_step != self.state.global_step:
            self._group, self._group_step = [], self.state.global_step
        self._group.append(inputs)
        loss = self._differentiate(model, inputs)
        while loss is None:
            model.zero_grad()
            before = [self._differentiate(model, each) for each in self._group[:-1]]
            loss = None if None in before else self._differentiate(model, inputs)
        value = float(loss)
        if math.isfinite(value):
            self.tape.losses.append(value)
        else:
            self._end_without_step(model, "the loss was")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:  # noqa: ANN401  a number, on a device
        # After such a step every weight would be no number. A loss that is scaled overflows, and its scaler skips that.
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        is_scaled = getattr(self.accelerator, "scaler", None) is not None
        if not (is_scaled or self.control.should_training_stop or math.isfinite(norm)):
            del self.tape.losses[-len(self._group) :]  # its step was not made
            self._end_without_step(model, "gradients were")
        return norm

    def _end_without_step(self, model: nn.Module, what: str) -> None:
        self._skip_step(model)
        self.control.should_training_stop = True
        step = self.state.global_step + 1
        self.notes.append(f"{what} not finite at step {step}: the stage ended, with the best weights so far")

    def _skip_step(self, model: nn.Module) -> None:
        # Without gradients an optimiser changes nothing. One that scales its loss wants to have scaled one, and to see
        # some gradients, and skips these.
        model.zero_grad()
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None:
            first = next(parameter for parameter in model.parameters() if parameter.requires_grad)
            scaler.scale(first.new_zeros(()))
            first.grad = torch.full_like(first, float("inf"))

    def _differentiate(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor | None:
        # None where memory did not suffice, and less is asked for the next time.
        n_rows = len(inputs["metadata"])
        try:
            if self.accelerator.num_processes > 1:
                return self._differentiate_with_others(model, inputs)
            if self.args.device.type == "cpu" and "vectors" not in inputs:
                return self._differentiate_on_cores(model, inputs)
            if self._n_parts == 1:
                return super().training_step(model, inputs)
            return self._differentiate_in_parts(model, inputs)
        except torch.OutOfMemoryError as error:
            if self._n_parts >= n_rows or self.accelerator.num_processes > 1:
                raise
            told = str(error).split(".")[0]
        self._n_parts *= 2
        self.notes.append(f"memory did not suffice for a batch ({told}): it is computed in {self._n_parts} parts")
        logger.warning("%s", self.notes[-1])
        torch.cuda.empty_cache()
        return None

    def _differentiate_in_parts(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        # Nothing is kept of a part but its logits, and it goes forward once more to go backward: a loss may compare its
        # rows with those of others.
        model.train()
        assert isinstance(self.model, QuestModel)
        parts = split_batch(self._prepare_inputs(inputs), self._n_parts)
        logits = [checkpoint(_tell_logits, model, part, use_reentrant=False) for part in parts]
        labels = torch.cat([part["labels"] for part in parts]).float()
        loss = self.model.loss(torch.cat(logits), labels) / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()

    def _differentiate_with_others(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        # The loss is that of the rows of all processes, so that a step is the same step however many there are.
        model.train()
        assert isinstance(self.model, QuestModel)
        batch, others = self._prepare_inputs(inputs), self.accelerator
        own = _tell_logits(model, batch)
        logits, labels = (
            others.gather(others.pad_across_processes(each.detach(), pad_index=_NO_ROW))
            for each in (own, batch["labels"].float())
        )
        start = others.process_index * len(logits) // others.num_processes
        logits = torch.cat([logits[:start], own, logits[start + len(own) :]])
        are_rows = labels[:, 0] != _NO_ROW
        loss = self.model.loss(logits[are_rows], labels[are_rows]) / self.current_gradient_accumulation_steps
        others.backward(loss * others.num_processes)  # gradients are averaged over processes, and each adds its own
        return loss.detach()

    def _differentiate_on_cores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        model.train()
        n_rows = len(inputs["metadata"]) * self.current_gradient_accumulation_steps
        assert isinstance(self.model, QuestModel)
        n_parts, body = self._n_parts, self.model.body_of(inputs)

        if self.compares_rows:
            return self._on_cores.differentiate_together(
                inputs, partial(_tell_logits, model), self.model.loss, body=body, n_rows=n_rows, n_parts=n_parts
            )

        def loss_of(part: dict[str, Tensor]) -> Tensor:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part)
            assert isinstance(loss, Tensor)
            return loss

        return self._on_cores.differentiate(inputs, loss_of, body=body, n_rows=n_rows, n_parts=n_parts)

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the held-out questions: mean Spearman over all their rows, and the mean loss as in training."""
        if self.tape.knows_evaluation:
            metrics = self.tape.next_evaluation()
        else:
            rows = self.eval_dataset if eval_dataset is None else eval_dataset
            assert isinstance(rows, QuestRows)
            start = time.monotonic()
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._score(rows).items()}
            if not metrics:
                return {}
            self.pace.finish_evaluation(time.monotonic() - start, n_rows=len(rows))
            self.tape.evaluations.append(metrics)
        # A copy: what is told to the log is added to.
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _score(self, rows: QuestRows) -> dict[str, float]:
        assert rows.targets is not None
        assert isinstance(self.model, QuestModel)
        assert isinstance(self.data_collator, PassCollator)
        batch_size = self.args.eval_batch_size
        logits = predict_logits(self.model, rows, self.data_collator, batch_size=batch_size, precision=self.precision)
        if not torch.isfinite(logits).all():
            self.control.should_training_stop = True
            self.notes.append("predictions were not finite: the stage ended, with the best weights so far")
            return {}
        targets = torch.from_numpy(rows.targets).double()
        n_rows = self.args.train_batch_size if self.compares_rows else len(targets)
        losses = [
            self.model.loss(*pair) * len(pair[1]) / len(targets)
            for pair in zip(logits.split(n_rows), targets.split(n_rows), strict=True)
        ]
        return {"spearman": mean_spearman(logits.numpy(), rows.targets), "loss": float(torch.stack(losses).sum())}


def _tell_logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**{name: each for name, each in batch.items() if name != "labels"}).logits
