"""The model: passes through one shared body, then a head that metadata reaches past the body."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from questlib.attention import attend_by_pass, read_first_alone
from questlib.config import refuse_outside, refuse_unknown
from questlib.heads import CELLS, HEADS, POOLINGS, build_head
from questlib.losses import binary_cross_entropy, weight_targets

# Families that count positions from past the padding's id (MPNet from 2, whatever its padding), so some are never used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
# What of the config decides the head.
_HEAD_FIELDS = (
    "n_kinds", "metadata_width", "pooling", "n_mixed_layers", "head", "hidden_width", "head_dropout", "use_split_head",
)  # fmt: skip
# A CPU computes a few passes as fast per token as many, and padding them only among themselves saves a fifth.
_PASSES_AT_A_TIME = 64
# Facts about where the encoder was loaded from, which a run folder that travels must not carry.
_NOT_KEPT = ("_name_or_path", "transformers_version", "dtype")


class QuestConfig(PretrainedConfig):
    """Everything needed to build a `QuestModel` without its encoder's folder.

    Args:
        body: The encoder's own configuration, `model_type` included.
        n_kinds: Kinds of passes per row: 1 for a joint layout, 2 for a pair.
        metadata_width: Columns of the metadata.
        pooling: "cls", "mean" or "cls_mean".
        n_mixed_layers: How many of the body's last layers are mixed.
        head: "linear"; "hidden" adds a ReLU layer; "gru" and "lstm" read the token states in place of the pooling.
        hidden_width: Width of the hidden layer or of the recurrent reading.
        head_dropout: Dropout in the head, in [0, 1).
        use_split_head: Gives question and answer targets a head each instead of sharing one.
        target_weights: Weight in the loss by target name; others weigh 1.
    """

    model_type = "quest"

    def __init__(
        self,
        *,
        body: dict[str, Any] | None = None,
        n_kinds: int = 1,
        metadata_width: int = 0,
        pooling: str = "cls",
        n_mixed_layers: int = 1,
        head: str = "linear",
        hidden_width: int = 256,
        head_dropout: float = 0.1,
        use_split_head: bool = False,
        target_weights: dict[str, float] | None = None,
        **kwargs: Any,  # noqa: ANN401  transformers hands its own fields through
    ) -> None:
        refuse_unknown([pooling], known=POOLINGS, what="pooling")
        refuse_unknown([head], known=HEADS, what="head")
        refuse_outside(head_dropout, low=0, high=0.99, what="head_dropout")
        refuse_outside(hidden_width, low=2, high=8192, what="hidden_width")
        refuse_outside(n_mixed_layers, low=1, high=64, what="n_mixed_layers")
        self.body = body or {}
        self.n_kinds = n_kinds
        self.metadata_width = metadata_width
        self.pooling = pooling
        self.n_mixed_layers = n_mixed_layers
        self.head = head
        self.hidden_width = hidden_width
        self.head_dropout = head_dropout
        self.use_split_head = use_split_head
        self.target_weights = target_weights or {}
        super().__init__(**kwargs)


@dataclass
class QuestOutput(ModelOutput):
    """The loss, where targets were given, and logits of shape (batch_size, n_targets)."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class QuestModel(PreTrainedModel):
    """An encoder's body, shared by all passes of a row, and a head for the 30 targets.

    `save_pretrained` and `from_pretrained` keep both; `from_encoder` begins with a pretrained body and a new head.

    Args:
        config: Says what the model is made of.
    """

    config_class = QuestConfig
    base_model_prefix = "body"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: QuestConfig) -> None:
        super().__init__(config)
        body_config = AutoConfig.for_model(**config.body)
        if config.n_mixed_layers > body_config.num_hidden_layers + 1:
            raise ValueError(
                "n_mixed_layers must not exceed the body's layers and its embedding, however: "
                f"{config.n_mixed_layers=}, {body_config.num_hidden_layers=}"
            )
        self.body = _prepare_body(AutoModel.from_config(body_config), config)
        self.head = build_head(
            body_width=body_config.hidden_size, **{name: getattr(config, name) for name in _HEAD_FIELDS}
        )
        self._target_weights = weight_targets(config.target_weights)
        self.post_init()

    @classmethod
    def from_encoder(cls, folder: Path, *, attention_dropout: float | None = None, **options: Any) -> Self:  # noqa: ANN401
        """Begin with a pretrained body and a new head.

        Args:
            folder: An encoder's folder in transformers' format, weights as safetensors.
            attention_dropout: Replaces the encoder's own; 0 keeps attention on its fused kernels. None keeps it.
            options: The fields of `QuestConfig` but `body`.

        Returns:
            The model in 32-bit floats.

        Raises:
            ValueError: If an option is unknown or out of range, or the folder holds no encoder.
        """
        body_config = AutoConfig.from_pretrained(folder)
        for name in ("attention_probs_dropout_prob", "attention_dropout"):  # families name it differently
            if attention_dropout is not None and hasattr(body_config, name):
                setattr(body_config, name, attention_dropout)
        body = {name: value for name, value in body_config.to_diff_dict().items() if name not in _NOT_KEPT}
        model = cls(QuestConfig(body=body, **options))
        # Some encoders are published in 16 bits; weights are trained in 32 and computed in what the device does best.
        model.body = _prepare_body(
            AutoModel.from_pretrained(folder, config=body_config, dtype=torch.float32, use_safetensors=True),
            model.config,
        )
        return model

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen body stays as it predicts, without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.body.parameters()):
            self.body.eval()
        return self

    def forward(
        self,
        *,
        rows: Tensor,
        kinds: Tensor,
        metadata: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        vectors: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> QuestOutput:
        """Predict a batch.

        Args:
            rows: The batch's row that each pass belongs to, (n_passes,).
            kinds: The kind of each pass, (n_passes,).
            metadata: (batch_size, metadata_width).
            input_ids: As `pool_passes` reads them, and so the next two.
            attention_mask: See there.
            token_type_ids: See there.
            vectors: What `pool_passes` returned, in place of the three; the body does not run.
            labels: Ratings in [0, 1], (batch_size, n_targets).

        Returns:
            Logits and, with labels, the loss.
        """
        if vectors is None:
            assert input_ids is not None
            assert attention_mask is not None
            assert token_type_ids is not None
            vectors = self.pool_passes(input_ids, attention_mask, token_type_ids)
        # Logits in 16 bits would tie rows that differ, and the score is about ranks.
        with torch.autocast(metadata.device.type, enabled=False):
            logits = self.head(vectors, rows, kinds, metadata.float())
            loss = None if labels is None else self._loss(logits, labels)
        return QuestOutput(loss=loss, logits=logits)

    def pool_passes(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Read passes through the body and make a vector of each.

        Args:
            input_ids: Token ids of all passes of a batch, (n_passes, n_tokens).
            attention_mask: 1 where a token is not padding, same shape.
            token_type_ids: 1 in the last part of a pass, same shape; given to bodies that know two types.

        Returns:
            (n_passes, output_width) in 32 bits.
        """
        parts = _split_passes(attention_mask)
        order = torch.cat([part for part, _ in parts])
        vectors = [
            self._read(*(each[part, :end] for each in (input_ids, attention_mask, token_type_ids)))
            for part, end in parts
        ]
        return torch.cat(vectors)[order.argsort()]

    def _read(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        mixes = self.config.n_mixed_layers > 1
        types = {"token_type_ids": token_type_ids} if getattr(self.body.config, "type_vocab_size", 0) > 1 else {}
        outputs = self.body(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=mixes, **types)
        layers = outputs.hidden_states if mixes else (outputs.last_hidden_state,)
        with torch.autocast(input_ids.device.type, enabled=False):
            return self.head.pool(tuple(layer.float() for layer in layers), attention_mask)  # (n_passes, output_width)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy(logits, labels.float(), logits.new_tensor(self._target_weights))


def _split_passes(attention_mask: Tensor) -> list[tuple[Tensor, int]]:
    """Split a batch's passes into parts of like length: their indices and the longest's tokens."""
    if attention_mask.device.type != "cpu":  # a GPU would wait for the lengths, and is better filled by one part
        return [(torch.arange(len(attention_mask), device=attention_mask.device), attention_mask.shape[1])]
    lengths, order = attention_mask.sum(dim=1).sort(descending=True)
    return [(part, int(lengths[i * _PASSES_AT_A_TIME])) for i, part in enumerate(order.split(_PASSES_AT_A_TIME))]


def _prepare_body(body: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    if getattr(body, "pooler", None) is not None:
        setattr(body, "pooler", None)  # noqa: B010  trained on another task and never read; mypy takes it for a module
    attend_by_pass(body)
    if config.pooling == "cls" and config.n_mixed_layers == 1 and config.head not in CELLS:
        read_first_alone(body)
    return body


def longest_pass(body_config: PretrainedConfig) -> int:
    """Tell how many tokens a body's positions reach.

    Args:
        body_config: The encoder's configuration.

    Returns:
        The greatest `max_length`; very large where positions are relative.
    """
    positions = getattr(body_config, "max_position_embeddings", None)
    if positions is None or not getattr(body_config, "position_biased_input", True):
        return 1_000_000
    if body_config.model_type in _OFFSET_POSITIONS:
        return positions - max(body_config.pad_token_id or 0, 1) - 1
    return positions
