"""Two layers."""

from torch import nn

from questlib.schema import TARGETS


class HiddenHead(nn.Sequential):
    """A ReLU layer, dropout and a linear layer: (batch_size, width) -> (batch_size, n_targets)."""

    def __init__(self, width: int, *, hidden_width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden_width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_width, len(TARGETS))
        )
