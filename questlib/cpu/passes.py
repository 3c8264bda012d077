"""Attention within each packed pass by itself, so that scores stay in a core's cache."""

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
    """Let the tokens of packed passes attend, each to those of its own pass.

    Args:
        query: (1, n_heads, n_read, head_width); `n_read` is `n_all_tokens`, or the number of passes where the first
            token of each is read alone.
        key: (1, n_heads, n_all_tokens, head_width).
        value: Same shape.
        lengths: Tokens of each pass.
        scaling: Of the products.
        dropout: Probability that a weight is left out.
        bias: Added to the scores of every pass, (n_heads, n_tokens of the longest, the same).

    Returns:
        (1, n_read, n_heads, head_width).
    """
    read = lengths if query.shape[2] == key.shape[2] else [1] * len(lengths)
    parts = [each[0].split(list(n), dim=1) for each, n in ((query, read), (key, lengths), (value, lengths))]
    with torch.autocast("cpu", enabled=False):  # it would widen the scores
        return torch.cat(
            [
                _attend_pass(
                    q, k, v, None if bias is None else bias[:, : q.shape[1], : k.shape[1]],
                    scaling=scaling, dropout=dropout,
                )
                for q, k, v in zip(*parts, strict=True)
            ]
        )[None]  # fmt: skip


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
