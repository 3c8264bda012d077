"""Where a recurrent reading ends."""

import torch
from torch import Tensor, nn

from questlib.model.poolings.base import Pooling


class _RecurrentPooling(Pooling):
    """Read the tokens in both directions and take where each direction ends; half of `hidden_width` for each."""

    cell: type[nn.GRU] | type[nn.LSTM]

    def __init__(self, *, body_width: int, hidden_width: int) -> None:
        super().__init__(body_width=body_width, hidden_width=hidden_width)
        self.reader = self.cell(body_width, hidden_width // 2, batch_first=True, bidirectional=True)
        self.output_width = 2 * (hidden_width // 2)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool the tokens."""
        lengths = mask.sum(dim=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.reader(packed)
        ends = last[0] if isinstance(last, tuple) else last  # (2, n_passes, hidden_width / 2); an LSTM adds its cell
        return torch.cat([ends[0], ends[1]], dim=-1)


class GruPooling(_RecurrentPooling):
    """Read with gated recurrent units."""

    cell = nn.GRU


class LstmPooling(_RecurrentPooling):
    """Read with long short-term memory."""

    cell = nn.LSTM
