"""MPNet's attention, packed pass by packed pass, else fused: transformers gives it none but the eager one.

Its scores have a bias by the distance of two tokens, the same in all layers and, here, laid out once for all passes.
"""

import math

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetAttention, MPNetEncoder, MPNetSelfAttention

from questlib.cpu.packing import find_lengths, take_first
from questlib.cpu.passes import attend_passes


class _Encoder(MPNetEncoder):
    def compute_position_bias(self, x: Tensor, position_ids: Tensor | None = None, num_buckets: int = 32) -> Tensor:
        lengths = find_lengths(x, None)
        longest = x[:1] if lengths is None else x[:1, : max(lengths)]
        return super().compute_position_bias(longest, position_ids, num_buckets)  # (1, n_heads, n_tokens, n_tokens)


class _SelfAttention(MPNetSelfAttention):
    reads_first_alone = False

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,  # 0 where a token is read, very low where it is padding
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **_: object,
    ) -> tuple[Tensor]:
        assert position_bias is not None
        read = take_first(hidden_states) if self.reads_first_alone else hidden_states
        query, key, value = (
            layer(states).unflatten(2, (self.num_attention_heads, self.attention_head_size)).transpose(1, 2)
            for layer, states in ((self.q, read), (self.k, hidden_states), (self.v, hidden_states))
        )
        scaling, dropout = 1 / math.sqrt(self.attention_head_size), self.dropout.p if self.training else 0.0
        lengths = find_lengths(hidden_states, attention_mask)
        if lengths is not None:
            together = attend_passes(
                query, key, value, lengths, scaling=scaling, dropout=dropout, bias=position_bias[0]
            )
        else:
            bias = position_bias[:, :, : read.shape[1]]
            mask = bias if attention_mask is None else bias + attention_mask[:, :, :1]
            together = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask.to(query.dtype), dropout_p=dropout, scale=scaling
            ).transpose(1, 2)
        return (self.o(together.flatten(2)),)


class _FirstAlone(MPNetAttention):
    def forward(self, hidden_states: Tensor, *arguments: Tensor, **options: object) -> tuple[Tensor, ...]:
        read, *others = self.attn(hidden_states, *arguments, **options)
        return self.LayerNorm(self.dropout(read) + take_first(hidden_states)), *others


def attend_by_pass(body: PreTrainedModel) -> None:
    """Let a body of this family compute attention this way."""
    encoder = body.get_submodule("encoder")
    encoder.__class__ = _Encoder
    for module in encoder.modules():
        if type(module) is MPNetSelfAttention:
            module.__class__ = _SelfAttention


def read_first_alone(body: PreTrainedModel) -> None:
    """Let the last layer of a body of this family compute the first token's state alone."""
    attend_by_pass(body)
    layers = body.get_submodule("encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    last = layers[-1].get_submodule("attention")
    last.__class__ = _FirstAlone
    setattr(last.get_submodule("attn"), "reads_first_alone", True)  # noqa: B010  mypy: a module
