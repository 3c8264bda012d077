"""What a body need not compute: padding and its scores, and in its last layer tokens that no one reads.

On a CPU passes are packed, and attention goes pass by pass, so that scores stay in the cache. The fused kernel takes
twice as long there: it goes over a whole batch and reads a mask for every pair of tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from questlib.cpu import mpnet
from questlib.cpu.packing import find_lengths, find_starts, is_every_token_read, take_first
from questlib.cpu.passes import attend_passes

_NAME = "questlib_by_pass"
# Every token reads every other, with nothing added to the scores. Others keep the attention they come with.
_PLAIN_FAMILIES = ("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
# Their layers stand in a list, and see of their neighbours what attention lets them see.
_PACKED_FAMILIES = ("bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
# Their last layer is a `layer` whose `attention.output` is given the states that were read and those they are added to.
_LAYERED_FAMILIES = ("bert", "camembert", "deberta-v2", "electra", "roberta", "xlm-roberta")
_FIRST_ALONE = "questlib_reads_first_alone"
# A CPU computes a few passes as fast per token as many, and those that are not packed are padded among themselves.
_PASSES_AT_A_TIME = 64


def can_be_packed(body: PreTrainedModel) -> bool:
    """Tell whether passes may stand one after the other in what goes through a body's layers."""
    return _is_of(body, _PACKED_FAMILIES)


def _is_of(body: PreTrainedModel, families: tuple[str, ...]) -> bool:
    # As a decoder, one of any family lets its tokens read those before them alone.
    return body.config.model_type in families and not getattr(body.config, "is_decoder", False)


def attend_by_pass(body: PreTrainedModel) -> None:
    """Let a body compute attention this way, if its family allows it."""
    if _is_of(body, _PLAIN_FAMILIES):
        body.set_attn_implementation(_NAME)
    elif body.config.model_type == "mpnet":
        mpnet.attend_by_pass(body)


def read_first_alone(body: PreTrainedModel) -> None:
    """Let a body's last layer compute the first token's state alone, if its family allows it.

    Every token is still read there, but no other one is projected, normalised or sent through the layer's matrices:
    `last_hidden_state` is then (n_passes, 1, body_width), where passes are packed (1, n_passes, body_width).
    """
    if _is_of(body, _LAYERED_FAMILIES):
        last = body.get_submodule(f"encoder.layer.{body.config.num_hidden_layers - 1}.attention")
        setattr(last.get_submodule("self"), _FIRST_ALONE, True)
        last.get_submodule("output").register_forward_pre_hook(_keep_first)
    elif body.config.model_type == "mpnet":
        mpnet.read_first_alone(body)


def split_by_length(attention_mask: Tensor) -> list[tuple[Tensor, int]]:
    """Split a batch's passes, by their mask of (n_passes, n_tokens), into parts of like length: indices, most tokens.

    A GPU gets one part: it would wait for the lengths, and is better filled by all. On a CPU that predicts each pass is
    a part of its own: what a product rounds to hangs on its shape, so nothing that stands beside a pass may change it.
    """
    if attention_mask.device.type != "cpu":
        return [(torch.arange(len(attention_mask), device=attention_mask.device), attention_mask.shape[1])]
    lengths, order = attention_mask.sum(dim=1).sort(descending=True)
    n_passes = 1 if torch.is_inference_mode_enabled() else _PASSES_AT_A_TIME
    return [(part, int(lengths[i * n_passes])) for i, part in enumerate(order.split(n_passes))]


def _keep_first(module: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(take_first(each) for each in states)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    # query, key, value: (n_passes, n_heads, n_tokens, head_width); mask: (n_passes, n_tokens), None where all are read
    lengths = find_lengths(query.transpose(1, 2), attention_mask)
    first_alone = getattr(module, _FIRST_ALONE, False) and not is_every_token_read()
    if lengths is None:
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        fused = sdpa_attention_forward(
            module, query[:, :, :1] if first_alone else query, key, value, mask,
            dropout=dropout, scaling=scaling, is_causal=False,
        )  # fmt: skip
        return functional.pad(fused[0], (0, 0, 0, 0, 0, query.shape[2] - fused[0].shape[1])), None
    if not first_alone:
        return attend_passes(query, key, value, lengths, scaling=scaling, dropout=dropout), None
    starts = find_starts(lengths)
    read = attend_passes(query[:, :, starts], key, value, lengths, scaling=scaling, dropout=dropout)
    return torch.zeros_like(query.transpose(1, 2)).index_copy(1, starts, read), None  # its caller counts on as many


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, flash_attention_mask)
