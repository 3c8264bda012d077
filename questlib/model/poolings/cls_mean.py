"""The first token beside the average."""

import torch
from torch import Tensor

from questlib.model.poolings.base import Pooling
from questlib.model.poolings.cls import ClsPooling
from questlib.model.poolings.mean import MeanPooling


class ClsMeanPooling(Pooling):
    """Put the first token and the average side by side."""

    def __init__(self, *, body_width: int, hidden_width: int) -> None:
        super().__init__(body_width=body_width, hidden_width=hidden_width)
        self.cls, self.mean = (
            each(body_width=body_width, hidden_width=hidden_width) for each in (ClsPooling, MeanPooling)
        )
        self.output_width = self.cls.output_width + self.mean.output_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        return torch.cat([self.cls(states, mask), self.mean(states, mask)], dim=-1)
