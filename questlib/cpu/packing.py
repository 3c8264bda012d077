"""Passes one after the other, not one under the other: layers then compute no padding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_packed: ContextVar[Sequence[int] | None] = ContextVar("lengths of the passes that are read as one", default=None)
_reads_all: ContextVar[bool] = ContextVar("whether the last layer is to compute every token", default=False)


@contextmanager
def packed(lengths: Sequence[int]) -> Iterator[None]:
    """Within it, the one pass that a body reads is several of these lengths, and none attends to another."""
    token = _packed.set(lengths)
    try:
        yield
    finally:
        _packed.reset(token)


@contextmanager
def every_token_read() -> Iterator[None]:
    """Within it, a last layer that computes the first token's state alone computes that of every token."""
    token = _reads_all.set(True)
    try:
        yield
    finally:
        _reads_all.reset(token)


def is_every_token_read() -> bool:
    """Tell whether this is within `every_token_read`."""
    return _reads_all.get()


def find_lengths(states: Tensor, attention_mask: Tensor | None) -> Sequence[int] | None:
    """Tell the lengths of the passes that stand in the one pass of (1, n_tokens, ...); None where they are padded.

    Without a mask, one pass on a CPU is packed as it is; elsewhere fused kernels are the faster ones.
    """
    lengths = _packed.get()
    if lengths is None and attention_mask is None and len(states) == 1 and states.device.type == "cpu":
        return [states.shape[1]]
    return lengths


def take_first(states: Tensor) -> Tensor:
    """Take the first token of each pass: (n_passes, 1, ...), where they are packed (1, n_passes, ...).

    All are taken within `every_token_read`.
    """
    if is_every_token_read():
        return states
    lengths = _packed.get()
    return states[:, :1] if lengths is None else states[:, find_starts(lengths)]


def find_starts(lengths: Sequence[int]) -> Tensor:
    """Tell where each packed pass begins, (n_passes,)."""
    ends = torch.tensor(lengths).cumsum(dim=0)
    return torch.cat([ends.new_zeros(1), ends[:-1]])


def pack(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Leave padding out of (n_passes, n_tokens, width): (1, n_all_tokens, width)."""
    return states[attention_mask.bool()][None]


def unpack(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Lay passes under one another again: (n_passes, n_tokens, width), or 1 token where the first was read alone."""
    kept = lengths if states.shape[1] == sum(lengths) else [1] * len(lengths)
    return pad_sequence(states[0].split(list(kept)), batch_first=True)
