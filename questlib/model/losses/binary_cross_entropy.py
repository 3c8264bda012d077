"""Each rating as the share of raters who said yes."""

import torch
from torch import Tensor
from torch.nn import functional

from questlib.model.losses.base import Loss


class BinaryCrossEntropy(Loss):
    """Average the binary cross-entropy over rows and targets."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it from the logits: a probability of 1 in floats has no logarithm of what is left."""
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return torch.mean(losses * logits.new_tensor(self.weights))
