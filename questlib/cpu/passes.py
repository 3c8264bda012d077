"""Attention within each pass of a batch by itself, so that padding costs nothing and scores stay in a core's cache."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Scores of the heads that are computed together; a core's cache is 1 MB or more, and smaller slices cost more calls.
_BYTES_OF_SCORES = 4_000_000


def attend_passes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    *,
    scaling: float,
    dropout: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Read each pass.

    Args:
        query: (n_passes, n_heads, n_read, head_width); `n_read` is `n_tokens`, or the first tokens alone.
        key: (n_passes, n_heads, n_tokens, head_width).
        value: Same shape.
        lengths: Tokens of each pass that are no padding, which is on the right.
        scaling: Of the products.
        dropout: Probability that a weight is left out.
        bias: Added to the scores of every pass, (n_heads, n_read, n_tokens).

    Returns:
        (n_passes, n_read, n_heads, head_width), 0 where padding would be read.
    """
    passes = zip(query.unbind(), key.unbind(), value.unbind(), lengths, strict=True)
    with torch.autocast("cpu", enabled=False):  # it would widen the scores
        return torch.stack(
            [
                pad_tokens(
                    _attend_pass(
                        q[:, :n], k[:, :n], v[:, :n], None if bias is None else bias[:, :n, :n],
                        scaling=scaling, dropout=dropout,
                    ),
                    query.shape[2],
                )
                for q, k, v, n in passes
            ]
        )  # fmt: skip


def _attend_pass(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, scaling: float, dropout: float
) -> Tensor:
    n_heads = max(1, _BYTES_OF_SCORES // (query.shape[1] * key.shape[1] * query.element_size()))
    added = [query.new_empty(())] * len(query) if bias is None else bias.to(query.dtype).split(n_heads)
    slices = zip(query.split(n_heads), key.split(n_heads), value.split(n_heads), added, strict=False)
    beta = 0 if bias is None else 1
    read = []
    for q, k, v, more in slices:
        scores = torch.baddbmm(more, q, k.transpose(1, 2), beta=beta, alpha=scaling)  # (n_heads, n_read, n_tokens)
        read.append(functional.dropout(scores.softmax(dim=-1), dropout) @ v if dropout else scores.softmax(dim=-1) @ v)
    together = read[0] if len(read) == 1 else torch.cat(read)
    return together.transpose(0, 1)  # (n_read, n_heads, head_width)


def pad_tokens(read: Tensor, n_tokens: int) -> Tensor:
    """Fill (..., n_read, n_heads, head_width) up to some number of tokens."""
    n_missing = n_tokens - read.shape[-3]
    return functional.pad(read, (0, 0, 0, 0, 0, n_missing)) if n_missing else read
