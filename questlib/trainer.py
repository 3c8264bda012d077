"""The Hugging Face Trainer through its documented hooks: length batches, our one way to predict, the best weights."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.batches import LengthBatchSampler, PassCollator, QuestRows, split_batch
from questlib.cores import OwnDropout, count_cores, map_on_cores
from questlib.inference import narrowed, predict
from questlib.metrics import mean_spearman
from questlib.model import QuestModel

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0
# Cores wait for their common memory the less, the fewer rows each holds; with fewer yet, gradients cost more than that.
_ROWS_OF_A_PART = 4


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
        self._word_gradient: Tensor | None = None

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
        """On a CPU, every core goes forward and backward over rows of its own; elsewhere as the Trainer does it.

        The gradients are those of the whole batch, added in one order, so that a seed decides the result.
        """
        if self.args.device.type != "cpu" or self.accelerator.num_processes > 1 or "input_ids" not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        assert isinstance(model, QuestModel)
        model.train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        n_rows = len(inputs["metadata"]) * self.current_gradient_accumulation_steps
        n_parts = max(count_cores(self.args.device), math.ceil(len(inputs["metadata"]) / _ROWS_OF_A_PART))
        parts = split_batch(inputs, n_parts)
        seeds = torch.randint(2**62, (len(parts),)).tolist()

        def differentiate(part_and_seed: tuple[dict[str, Tensor], int]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            part, seed = part_and_seed
            with self.compute_loss_context_manager(), OwnDropout(seed):
                loss = self.compute_loss(model, part) * len(part["metadata"]) / n_rows
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        with _shared_by_parts(model, precision=self.precision):
            results = map_on_cores(differentiate, list(zip(parts, seeds, strict=True)), device=self.args.device)
        for _, gradients in results:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    self._add_gradient(parameter, gradient)
        return torch.stack([loss for loss, _ in results]).sum()

    def _add_gradient(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
        elif gradient.is_sparse:
            # Kept from step to step: memory of this size is given back when freed, and slow to be had again.
            if self._word_gradient is None:
                self._word_gradient = torch.empty_like(parameter)
            parameter.grad = self._word_gradient.zero_().add_(gradient)
        else:
            parameter.grad = gradient.to(parameter.dtype)

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the held-out questions: mean Spearman over all their rows, and the mean binary cross-entropy."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        assert isinstance(rows, QuestRows)
        assert rows.targets is not None
        assert isinstance(self.model, QuestModel)
        assert isinstance(self.data_collator, PassCollator)
        batch_size = self.args.eval_batch_size
        predictions = predict(self.model, rows, self.data_collator, batch_size=batch_size, precision=self.precision)
        entropy = rows.targets * np.log(predictions) + (1 - rows.targets) * np.log1p(-predictions)
        metrics = {
            f"{metric_key_prefix}_spearman": mean_spearman(predictions, rows.targets),
            f"{metric_key_prefix}_loss": float(-entropy.mean()),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@contextmanager
def _shared_by_parts(model: QuestModel, *, precision: str) -> Iterator[None]:
    # What every part would do again: autocast turns the weights of products into bf16, and the gradient of the words is
    # zero but for those that were read.
    modules = [module for module in model.body.modules() if isinstance(module, nn.Linear)]
    weights = [parameter for module in modules for parameter in module.parameters()]
    words = model.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    words.sparse = True
    try:
        with narrowed(weights) if precision == "bf16" else nullcontext():
            yield
    finally:
        words.sparse = False


class BestWeights(TrainerCallback):
    """Keep the best weights over all stages in memory, and end a stage that stopped gaining.

    Args:
        patience: Evaluations in a row without a gain before a stage ends; 0 never ends it early.
        threshold: What counts as a gain, in Spearman.
    """

    def __init__(self, *, patience: int, threshold: float) -> None:
        self.patience = patience
        self.threshold = threshold
        self.best_score = -np.inf
        self._reference = -np.inf
        self._waited = 0
        self._weights: dict[str, Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Every stage has its whole patience."""
        self._waited = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """The last step counts too, wherever the evaluations fall."""
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401  what the Trainer hands to every callback
    ) -> None:
        """Keep what is trained now if it is the best so far."""
        score, model = event["metrics"]["eval_spearman"], event["model"]
        if score > self.best_score:
            self.best_score = score
            trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            self._weights |= {name: weight.detach().to("cpu", copy=True) for name, weight in trained.items()}
        if score > self._reference + self.threshold:
            self._reference, self._waited = score, 0
            return
        self._waited += 1
        if self.patience and self._waited >= self.patience:
            logger.info("no gain in %d evaluations: the stage ends, best %.4f", self._waited, self.best_score)
            control.should_training_stop = True

    def restore(self, model: QuestModel) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in self._weights:
                    weight.copy_(self._weights[name])


class StageLog(TrainerCallback):
    """Log a line every quarter of a minute, and keep what the Trainer logs.

    Args:
        name: The stage.

    Attributes:
        records: What the Trainer logged, with `step` and `epoch` of the stage.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[dict] = []
        self._start = self._last_line = time.monotonic()
        self._loss = "not logged yet"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the stage's own clock."""
        self._start = self._last_line = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401  what the Trainer hands to every callback
    ) -> None:
        """Keep a record; show an evaluation at once."""
        logs = event["logs"]
        self.records.append({"step": state.global_step, "epoch": state.epoch or 0.0} | logs)
        if "loss" in logs:
            self._loss = f"{logs['loss']:.4f}"
        if "eval_spearman" in logs:
            logger.info("%s: step %d: Spearman %.4f", self.name, state.global_step, logs["eval_spearman"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say how far the stage is, and how long it would run to its end."""
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        done = state.global_step / state.max_steps
        left = (now - self._start) * (1 - done) / done
        rows = state.global_step * args.train_batch_size * args.gradient_accumulation_steps / (now - self._start)
        logger.info(
            "%s: step %d of %d (%.0f %%), loss %s, %.1f rows/s, %.1f min left at most",
            self.name, state.global_step, state.max_steps, 100 * done, self._loss, rows, left / 60,
        )  # fmt: skip
