"""The average."""

from torch import Tensor

from questlib.model.poolings.base import Pooling


class MeanPooling(Pooling):
    """Average the tokens that are not padding."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        weights = mask.to(states.dtype).unsqueeze(-1)  # (n_passes, n_tokens, 1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
