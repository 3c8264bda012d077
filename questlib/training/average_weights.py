"""The weights of many steps in one: what the last steps did to each other's harm is averaged out."""

from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.training.best_weights import put_weights

# Weights of so many steps are averaged; more hardly differ.
_N_AVERAGED = 8


class AverageWeights(TrainerCallback):
    """Average the weights at evenly spaced steps of the last stretch of a stage, and leave the model with that.

    Args:
        share: Of the stage's steps; 0 averages nothing.

    Attributes:
        weights: The average so far, by name, in the CPU's memory.
        n_averaged: How many it is of.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self.weights: dict[str, Tensor] = {}
        self.n_averaged = 0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401  what the Trainer hands to every callback
    ) -> None:
        """Take in what is trained now when it is time; after the last step put the average in its place."""
        n_steps, step = state.max_steps, state.global_step
        first = n_steps - round(self._share * n_steps)
        every = max(1, (n_steps - first) // _N_AVERAGED)
        if step < first:  # what was the last stretch until there was more time
            self.weights, self.n_averaged = {}, 0
        if not self._share or step < first or (n_steps - step) % every:
            return
        self.n_averaged += 1
        for name, weight in event["model"].named_parameters():
            if weight.requires_grad:
                now = weight.detach().to("cpu", copy=True)
                average = self.weights.setdefault(name, now)
                if average is not now:
                    average.lerp_(now, 1 / self.n_averaged)
        if step >= n_steps:
            put_weights(event["model"], self.weights)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401
    ) -> None:
        """Do so too where the stage ends sooner than it was planned to."""
        if state.global_step < state.max_steps:
            put_weights(event["model"], self.weights)
