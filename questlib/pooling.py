"""From the states of a pass's tokens to one vector."""

import torch
from torch import Tensor, nn


class LayerMix(nn.Module):
    """Mix the body's last layers with learned weights that sum to 1; one layer alone is passed on.

    Args:
        n_layers: How many of the last layers are mixed.

    Shape:
        A tuple of (n_passes, n_tokens, body_width), the last layer last -> (n_passes, n_tokens, body_width).
    """

    def __init__(self, *, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers
        if n_layers > 1:
            # Begins near the last layer, which the body's own training made the most useful.
            self.weights = nn.Parameter(torch.tensor([0.0] * (n_layers - 1) + [2.0]))

    def forward(self, layers: tuple[Tensor, ...]) -> Tensor:
        """Mix the layers."""
        if self.n_layers == 1:
            return layers[-1]
        stacked = torch.stack(layers[-self.n_layers :])  # (n_layers, n_passes, n_tokens, body_width)
        return torch.einsum("l,lptw->ptw", self.weights.softmax(dim=0), stacked)


class Pooling(nn.Module):
    """From token states to a vector per pass; each pooling says how wide.

    Attributes:
        output_width: Width of the vector.
    """

    output_width: int


class ClsPooling(Pooling):
    """Take the first token.

    Shape:
        (n_passes, n_tokens, body_width), mask (n_passes, n_tokens) -> (n_passes, output_width).
    """

    def __init__(self, *, body_width: int) -> None:
        super().__init__()
        self.output_width = body_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        return states[:, 0]


class MeanPooling(Pooling):
    """Average the tokens that are not padding. Shape as `ClsPooling`."""

    def __init__(self, *, body_width: int) -> None:
        super().__init__()
        self.output_width = body_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        weights = mask.to(states.dtype).unsqueeze(-1)  # (n_passes, n_tokens, 1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class ClsMeanPooling(Pooling):
    """Put the first token and the average side by side. Shape as `ClsPooling`."""

    def __init__(self, *, body_width: int) -> None:
        super().__init__()
        self.cls, self.mean = ClsPooling(body_width=body_width), MeanPooling(body_width=body_width)
        self.output_width = 2 * body_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        return torch.cat([self.cls(states, mask), self.mean(states, mask)], dim=-1)


class RecurrentPooling(Pooling):
    """Read the tokens in both directions and take where each direction ends. Shape as `ClsPooling`.

    Args:
        body_width: Width of a token's state.
        cell: nn.GRU or nn.LSTM.
        hidden_width: Width of the output, both directions together; even.
    """

    def __init__(self, *, body_width: int, cell: type[nn.GRU] | type[nn.LSTM], hidden_width: int) -> None:
        super().__init__()
        self.reader = cell(body_width, hidden_width // 2, batch_first=True, bidirectional=True)
        self.output_width = 2 * (hidden_width // 2)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        lengths = mask.sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.reader(packed)
        ends = last[0] if isinstance(last, tuple) else last  # (2, n_passes, hidden_width / 2); an LSTM adds its cell
        return torch.cat([ends[0], ends[1]], dim=-1)


def average_passes(vectors: Tensor, rows: Tensor, kinds: Tensor, *, n_rows: int, n_kinds: int) -> Tensor:
    """Average the passes of each row and kind: windows of one text are one text.

    Args:
        vectors: Shape (n_passes, width).
        rows: The row of each pass, shape (n_passes,).
        kinds: The kind of each pass, shape (n_passes,).
        n_rows: Rows in the batch.
        n_kinds: Kinds of passes.

    Returns:
        Shape (n_rows, n_kinds, width).
    """
    slots = rows * n_kinds + kinds
    sums = vectors.new_zeros(n_rows * n_kinds, vectors.shape[-1]).index_add(0, slots, vectors)
    counts = vectors.new_zeros(n_rows * n_kinds).index_add(0, slots, torch.ones_like(slots, dtype=vectors.dtype))
    return (sums / counts.clamp(min=1).unsqueeze(-1)).view(n_rows, n_kinds, -1)
