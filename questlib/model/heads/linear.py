"""One layer."""

from torch import nn

from questlib.schema import TARGETS


class LinearHead(nn.Sequential):
    """Dropout and a linear layer: (batch_size, width) -> (batch_size, n_targets)."""

    def __init__(self, width: int, *, hidden_width: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(width, len(TARGETS)))
