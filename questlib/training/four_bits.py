"""Matrices of 4 bits a weight, which do not learn: what is added to them does (QLoRA, arXiv 2305.14314)."""

import torch
from torch import Tensor, nn


class FourBitLinear(nn.Module):
    """A linear layer whose matrix is rounded to 4-bit normal floats, by bitsandbytes.

    Not by its own such layer, which on a CPU loses gradients once it has predicted (0.50.2).

    Args:
        layer: What it stands for; its bias is shared.

    Shape:
        As of the layer.
    """

    def __init__(self, layer: nn.Linear) -> None:
        from bitsandbytes.functional import quantize_4bit

        super().__init__()
        self.bias = layer.bias
        # Neither a parameter nor a buffer: whoever lists those counts on numbers.
        self._packed, self._about = quantize_4bit(layer.weight.detach(), quant_type="nf4")

    def forward(self, states: Tensor) -> Tensor:
        """Multiply; what is kept for going backward is the packed matrix."""
        from bitsandbytes import matmul_4bit

        kind = states.device.type
        if torch.is_autocast_enabled(kind):  # which knows torch's own products alone
            states = states.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(states.dtype)
        return matmul_4bit(states, self._packed.t(), quant_state=self._about, bias=bias)

    def unpack(self) -> Tensor:
        """Give the matrix in 32 bits; rounded again, it is the same."""
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(self._packed, self._about)

    def to_linear(self) -> nn.Linear:
        """Give a plain layer with the matrix as it is rounded."""
        matrix = self.unpack()
        n_out, n_in = matrix.shape
        plain = nn.Linear(n_in, n_out, bias=False, device="meta")  # nothing is drawn
        plain.weight, plain.bias = nn.Parameter(matrix), self.bias
        return plain


def unpacked(model: nn.Module) -> dict[str, Tensor]:
    """Give the matrices of a model's layers of this kind, by the names that they have as parameters."""
    return {f"{name}.weight": each.unpack() for name, each in model.named_modules() if isinstance(each, FourBitLinear)}
