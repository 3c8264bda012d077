"""Passes that say the same are read once: a question has several answers, and a pass of its own."""

import torch
from torch import Tensor

from questlib.cpu.attention import split_by_length


def split_passes(attention_mask: Tensor, texts: Tensor | None) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Split passes into parts of like length, in which each text stands once.

    Args:
        attention_mask: (n_passes, n_tokens), 1 where a token is no padding.
        texts: Names of the passes, (n_passes,), equal where they say the same; None where all differ.

    Returns:
        Indices and most tokens of each part; and where, among what the parts give one after another, each pass is.
    """
    first = torch.arange(len(attention_mask), device=attention_mask.device)
    same = first
    if texts is not None:
        _, same = torch.unique(texts, return_inverse=True)
        first = first.new_full((int(same.max()) + 1,), len(same)).scatter_reduce(0, same, first, "amin")
    parts = [(first[part], end) for part, end in split_by_length(attention_mask[first])]
    order = torch.cat([part for part, _ in parts])
    place = torch.empty_like(same).index_copy(0, order, torch.arange(len(order), device=order.device))
    return parts, place[first[same]] if texts is not None else place
