"""The first token."""

from torch import Tensor

from questlib.model.poolings.base import Pooling


class ClsPooling(Pooling):
    """Take the first token."""

    reads_first_only = True

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        return states[:, 0]
