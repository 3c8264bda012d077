"""Each rating as steps on a ladder: was it above the first, the second, ...?"""

import torch
from torch import Tensor
from torch.nn import functional

from questlib.model.losses.base import Loss

# Between the ratings that two or three raters can agree on: 0, 1/3, 1/2, 2/3, 1.
_STEPS = (1 / 6, 5 / 12, 7 / 12, 5 / 6)


class Ordinal(Loss):
    """Average the binary cross-entropy over rows, targets and steps: the cumulative link model, or proportional odds.

    A row is above a step with the odds of its logit over those of the step, so that one logit answers for all steps and
    stays what ranks the rows.
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it."""
        steps = torch.logit(logits.new_tensor(_STEPS))[:, None, None]
        above = targets > torch.sigmoid(steps)  # (n_steps, batch_size, n_targets)
        losses = functional.binary_cross_entropy_with_logits(logits - steps, above.to(logits.dtype), reduction="none")
        return torch.mean(losses * logits.new_tensor(self.weights))
