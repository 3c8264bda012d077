"""Cross-entropy, and a margin between two rows that were rated apart: the score is about ranks."""

import torch
from torch import Tensor

from questlib.model.losses.binary_cross_entropy import BinaryCrossEntropy

# What a row that was rated higher should be ahead, in probability.
_MARGIN = 0.1


class MarginRanking(BinaryCrossEntropy):
    """Add what two rows of a batch lack of a margin between them, where one was rated higher; mean over such pairs."""

    compares_rows = True

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it; a batch of equal ratings has the cross-entropy alone."""
        rated = targets[:, None] - targets[None]  # (batch_size, batch_size, n_targets)
        ahead = torch.sigmoid(logits)
        lacking = (_MARGIN - (ahead[:, None] - ahead[None])).clamp(min=0) * (rated > 0)
        by_target = lacking.sum(dim=(0, 1)) / (rated > 0).sum(dim=(0, 1)).clamp(min=1)
        return super().__call__(logits, targets) + torch.mean(by_target * logits.new_tensor(self.weights))
