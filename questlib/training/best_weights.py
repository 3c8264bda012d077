"""The best weights of a training, and when a stage has had its time."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.model.quest import QuestModel

logger = logging.getLogger(__name__)


class BestWeights(TrainerCallback):
    """Keep the best weights over all stages in memory, and end a stage that stopped gaining.

    Args:
        patience: Evaluations in a row without a gain before a stage ends; 0 never ends it early.
        threshold: What counts as a gain, in Spearman.

    Attributes:
        weights: The best so far, by name, in the CPU's memory.
    """

    def __init__(self, *, patience: int, threshold: float) -> None:
        self.patience = patience
        self.threshold = threshold
        self.best_score = -np.inf
        self._reference = -np.inf
        self._waited = 0
        self.weights: dict[str, Tensor] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401  what the Trainer hands to every callback
    ) -> None:
        """Every stage has its whole patience; what it is the first to train was part of the best so far."""
        self._waited = 0
        if self.weights:
            self.weights |= _copy_trained(event["model"], but=self.weights)

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
            self.weights |= _copy_trained(model)
        if score > self._reference + self.threshold:
            self._reference, self._waited = score, 0
            return
        self._waited += 1
        if self.patience and self._waited >= self.patience:
            logger.info("no gain in %d evaluations: the stage ends, best %.4f", self._waited, self.best_score)
            control.should_training_stop = True

    def restore(self, model: QuestModel) -> None:
        """Put the best weights back."""
        put_weights(model, self.weights)

    def get_scores(self) -> dict[str, float]:
        """Give what decides which weights are the best, as JSON has it; nothing before the first evaluation."""
        return {} if np.isinf(self.best_score) else {"best": self.best_score, "reference": self._reference}

    def put_scores(self, scores: dict[str, float]) -> None:
        """Take what `get_scores` gave."""
        if scores:
            self.best_score, self._reference = scores["best"], scores["reference"]


def _copy_trained(model: QuestModel, *, but: Collection[str] = ()) -> dict[str, Tensor]:
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in model.named_parameters()
        if weight.requires_grad and name not in but
    }


@torch.no_grad()
def put_weights(model: QuestModel, weights: Mapping[str, Tensor]) -> None:
    """Give a model those weights that are there, by name."""
    for name, weight in model.named_parameters():
        if name in weights:
            weight.copy_(weights[name])
