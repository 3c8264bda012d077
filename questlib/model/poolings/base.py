"""What a pooling is."""

from torch import Tensor, nn


class Pooling(nn.Module):
    """From token states to a vector per pass.

    Shape:
        (n_passes, n_tokens, body_width), mask (n_passes, n_tokens) -> (n_passes, output_width).

    Args:
        body_width: Width of a token's state.
        hidden_width: Width that a pooling which learns may use.

    Attributes:
        output_width: Width of the vector.
        reads_first_only: Whether no token but the first is read: the body need not compute the others' last states.
    """

    output_width: int
    reads_first_only = False

    def __init__(self, *, body_width: int, hidden_width: int) -> None:
        super().__init__()
        self.output_width = body_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        raise NotImplementedError
