"""What training makes small."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from questlib.config import refuse_outside, refuse_unknown
from questlib.schema import TARGETS


def weight_targets(weights: Mapping[str, float]) -> list[float]:
    """Spell out target weights in submission order.

    Args:
        weights: Weight by target name, each in [0, 1000]; a target that is not named weighs 1.

    Returns:
        30 weights with mean 1, so that they do not change the learning rate's meaning.

    Raises:
        ValueError: If a name is no target, or no weight is above 0.
    """
    refuse_unknown(weights, known=TARGETS, what="target in target_weights")
    for name, weight in weights.items():
        refuse_outside(weight, low=0, high=1000, what=f"target_weights[{name!r}]")
    spelled = [float(weights.get(name, 1.0)) for name in TARGETS]
    if not sum(spelled):
        raise ValueError("at least one target weight must be above 0, however: all are 0")
    return [weight * len(spelled) / sum(spelled) for weight in spelled]


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Average the binary cross-entropy over rows and targets.

    Args:
        logits: Shape (batch_size, n_targets).
        targets: Ratings in [0, 1], same shape; a rating is the share of raters who said yes.
        weights: One weight per target, shape (n_targets,).

    Returns:
        A scalar.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return torch.mean(losses * weights)
