"""Cross-entropy, and the correlation of ranks itself, made soft so that it has a gradient."""

import torch
from torch import Tensor

from questlib.model.losses.binary_cross_entropy import BinaryCrossEntropy

_SHARPNESS = 10.0  # of soft ranks: a difference in logits that is clear counts as a place


class SoftSpearman(BinaryCrossEntropy):
    """Add how far the correlation of soft ranks with the ratings' ranks is from 1, mean over targets that vary."""

    compares_rows = True

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute it; a batch of equal ratings has the cross-entropy alone."""
        ranks = _centred(torch.sigmoid(_SHARPNESS * (logits[:, None] - logits[None])).sum(dim=1))
        true = _centred(torch.sign(targets[:, None] - targets[None]).sum(dim=1))
        varies = (true != 0).any(dim=0)
        norms = (ranks.square().sum(dim=0) + 1e-6).sqrt() * true.square().sum(dim=0).clamp(min=1e-6).sqrt()
        missing = (1 - (ranks * true).sum(dim=0) / norms) * varies
        return super().__call__(logits, targets) + torch.mean(missing * logits.new_tensor(self.weights))


def _centred(ranks: Tensor) -> Tensor:
    return ranks - ranks.mean(dim=0)
