"""The Hugging Face Trainer through its documented hooks: length batches, our one way to predict and one loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from questlib.batches import LengthBatchSampler, PassCollator, QuestRows
from questlib.cpu.step import StepOnCores
from questlib.metrics import mean_spearman
from questlib.model.prediction import predict_logits
from questlib.model.quest import QuestModel


class OneDeviceArguments(TrainingArguments):
    """Arguments for one device per process; with two GPUs the Trainer would take the slower `nn.DataParallel`."""

    @property
    def n_gpu(self) -> int:
        """At most one."""
        return min(1, super().n_gpu)


class QuestTrainer(Trainer):
    """A Trainer that batches rows by length and evaluates as `questlib.inference.predict` does.

    Args:
        precision: "bf16", "fp16" or "fp32", for evaluation.
        options: As the Trainer's.
    """

    def __init__(self, *, precision: str, **options: Any) -> None:  # noqa: ANN401  handed through to the Trainer
        super().__init__(**options)
        self.precision = precision
        assert isinstance(self.model, QuestModel)
        self._step = StepOnCores(self.model, precision=precision)

    def get_train_dataloader(self) -> DataLoader:
        """Batch rows of like length."""
        assert isinstance(self.train_dataset, QuestRows)
        sampler = LengthBatchSampler(
            self.train_dataset.lengths, batch_size=self.args.train_batch_size, seed=self.args.seed
        )
        loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """On a CPU, every core goes forward and backward over rows of its own; elsewhere as the Trainer does it."""
        if self.args.device.type != "cpu" or self.accelerator.num_processes > 1 or "input_ids" not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        n_rows = len(inputs["metadata"]) * self.current_gradient_accumulation_steps

        def loss_of(part: dict[str, Tensor]) -> Tensor:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part)
            assert isinstance(loss, Tensor)
            return loss

        return self._step.differentiate(inputs, loss_of, n_rows=n_rows)

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the held-out questions: mean Spearman over all their rows, and the mean loss as in training."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        assert isinstance(rows, QuestRows)
        assert rows.targets is not None
        assert isinstance(self.model, QuestModel)
        assert isinstance(self.data_collator, PassCollator)
        batch_size = self.args.eval_batch_size
        logits = predict_logits(self.model, rows, self.data_collator, batch_size=batch_size, precision=self.precision)
        metrics = {
            f"{metric_key_prefix}_spearman": mean_spearman(logits.numpy(), rows.targets),
            f"{metric_key_prefix}_loss": float(self.model.loss(logits, torch.from_numpy(rows.targets).double())),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
