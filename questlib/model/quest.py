"""The model: passes through one shared body, then a head that metadata reaches past the body."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from questlib.cpu.attention import attend_by_pass, can_be_packed, read_first_alone
from questlib.cpu.packing import every_token_read, pack, packed, unpack
from questlib.devices import attention_of_any_shape
from questlib.model.body import (
    begin_anew,
    leave_file,
    read_body,
    read_config,
    read_weights,
    refuse_other_weights,
    refuse_silent,
    set_dropout,
    without_bars,
)
from questlib.model.config import QuestConfig, refuse_too_many_layers, refuse_unknown_options
from questlib.model.distinct import split_passes
from questlib.model.halves import AsGiven, BodyHalves, layers_of
from questlib.model.losses import LOSSES
from questlib.model.quest_head import QuestHead
from questlib.pretrained import find_encoder
from questlib.run_folder import read_json
from questlib.schema import TARGETS

# Facts about where the encoder was loaded from, which a run folder that travels must not carry.
_NOT_KEPT = ("_name_or_path", "transformers_version", "dtype")


@dataclass
class QuestOutput(ModelOutput):
    """The loss, where targets were given, and logits of shape (batch_size, n_targets)."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class QuestModel(PreTrainedModel):
    """An encoder's body, shared by all passes of a row, and a head for the 30 targets.

    `save_pretrained` and `from_pretrained` keep both; `from_encoder` begins with a pretrained body and a new head.
    """

    config_class = QuestConfig
    base_model_prefix = "body"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: QuestConfig) -> None:
        super().__init__(config)
        body_config = AutoConfig.for_model(**config.body)
        refuse_too_many_layers(config, n_layers=body_config.num_hidden_layers)
        options = config.model_options
        self.halves: BodyHalves | None = None
        self.body = AutoModel.from_config(body_config)
        self.head = QuestHead(
            options, body_width=body_config.hidden_size, n_kinds=config.n_kinds, metadata_width=config.metadata_width
        )
        self._prepare_body()
        self.weigh_targets({})
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: str | Path, **options: Any) -> Self:  # noqa: ANN401  as QuestConfig's
        """Begin, in 32-bit floats, with an encoder's pretrained body and a new head.

        Args:
            encoder: A folder with its weights as safetensors, or a name that `questlib.pretrained.find_encoder` knows.
            options: The arguments of `QuestConfig` but `body`; any other name is refused.
        """
        refuse_unknown_options(options)
        folder = find_encoder(encoder)
        body_config = read_config(folder)
        for option in ("attention_dropout", "hidden_dropout"):
            set_dropout(body_config, option, options.get(option))
        body = {name: value for name, value in body_config.to_diff_dict().items() if name not in _NOT_KEPT}
        model = cls(QuestConfig(body=body, **options))
        # Some encoders are published in 16 bits; weights are trained in 32 and computed in what the device does best.
        model.body = read_body(folder, body_config)
        if model.config.reset_layers:
            for layer in layers_of(model.body)[-model.config.reset_layers :]:
                begin_anew(layer, model.body)
        model._prepare_body()
        refuse_silent(model.body, reads_first_only=model.head.pooling.reads_first_only)
        if model.halves is not None:
            model.halves.refuse_unlike()
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path, *given: Any, **options: Any) -> Self:  # type: ignore[override]  # noqa: ANN401
        """Read what `save_pretrained` wrote: safetensors, in which every weight must be, and no other."""
        path = Path(folder) / "config.json"
        kind = read_json(path).get("model_type") if path.is_file() else None
        if kind != QuestConfig.model_type:  # transformers would look for it on the hub, or build half of a body
            raise ValueError(
                f"{folder} must hold what save_pretrained wrote, however its {path.name} is of {kind or 'none'}; "
                "name its folder, or begin with an encoder's by from_encoder"
            )
        model, found = read_weights(super().from_pretrained, folder, *given, **options)
        refuse_other_weights(folder, missing=found["missing_keys"], unknown=found["unexpected_keys"])
        leave_file(model)
        return model

    def save_pretrained(self, *given: Any, **options: Any) -> None:  # noqa: ANN401
        """Write weights as safetensors, and what the model was made of as JSON."""
        with without_bars():
            super().save_pretrained(*given, **options)

    def _prepare_body(self) -> None:
        if getattr(self.body, "pooler", None) is not None:
            # Trained on another task, and never read; some families go through it all the same.
            setattr(self.body, "pooler", AsGiven())  # noqa: B010  mypy: a module
        attend_by_pass(self.body)
        n_frozen = self.config.freeze_layers
        is_last_frozen = n_frozen == self.body.config.num_hidden_layers  # its states are kept, of every token
        if self.head.pooling.reads_first_only and self.head.mix.n_layers == 1 and not is_last_frozen:
            read_first_alone(self.body)
        self.halves = BodyHalves(self.body, n_frozen) if n_frozen else None
        # Words become states before passes are packed: their positions begin anew in each.
        self._cut = self.halves or (BodyHalves(self.body, 0) if can_be_packed(self.body) else None)

    def weigh_targets(self, weights: Mapping[str, float]) -> None:
        """Weigh targets in the loss, by name, on top of what the options say."""
        asked = self.config.target_weights
        self.loss = LOSSES[self.config.loss]({name: asked.get(name, 1.0) * weights.get(name, 1.0) for name in TARGETS})

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters that no stage trains."""
        return iter(()) if self.halves is None else self.halves.frozen_parameters()

    def body_of(self, batch: Mapping[str, Tensor]) -> PreTrainedModel:
        """Give what of the body a batch goes through."""
        return self.body if self.halves is None or "states" not in batch else self.halves.upper

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters past the body, which learn at the head's rate, whatever their names are by now."""
        return self.head.parameters()

    def output_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters that are read after `pool_passes`; all others decide what it returns."""
        return self.head.outputs.parameters()

    def pooling_state(self) -> dict[str, Tensor]:
        """Give all weights that decide what `pool_passes` returns, by name."""
        read_after = {id(parameter) for parameter in self.output_parameters()}
        kept = self.state_dict(keep_vars=True)
        return {name: weight.detach() for name, weight in kept.items() if id(weight) not in read_after}

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; what is frozen of the body stays as it predicts, without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.body.parameters()):
            self.body.eval()
        elif self.halves is not None:
            for module in self.halves.frozen_modules():
                module.training = False
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
        states: Tensor | None = None,
        texts: Tensor | None = None,
        vectors: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> QuestOutput:
        """Predict a batch.

        Args:
            rows: The batch's row that each pass belongs to, (n_passes,).
            kinds: The kind of each pass, (n_passes,).
            metadata: (batch_size, metadata_width).
            input_ids: As `pool_passes` reads them, and so the next four.
            attention_mask: See there.
            token_type_ids: See there.
            states: See there.
            texts: See there.
            vectors: What `pool_passes` returned, in place of the five; the body does not run.
            labels: Ratings in [0, 1], (batch_size, n_targets); with them the output holds the loss too.
        """
        if vectors is None:
            assert attention_mask is not None
            vectors = self.pool_passes(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, states=states,
                texts=texts,
            )  # fmt: skip
        # Logits in 16 bits would tie rows that differ, and the score is about ranks.
        with torch.autocast(metadata.device.type, enabled=False):
            logits = self.head(vectors, rows, kinds, metadata.float())
            loss = None if labels is None else self.loss(logits, labels.float())
        return QuestOutput(loss=loss, logits=logits)

    def pool_passes(
        self,
        *,
        attention_mask: Tensor,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        states: Tensor | None = None,
        texts: Tensor | None = None,
    ) -> Tensor:
        """Read passes through the body and make a vector of each.

        Args:
            attention_mask: 1 where a token is not padding, (n_passes, n_tokens).
            input_ids: Token ids of all passes of a batch, same shape.
            token_type_ids: 1 in the last part of a pass, same shape; given to bodies that know two types.
            states: What `read_tokens` gave of each pass, by the frozen layers alone, padded, in place of the two.
            texts: Names of the passes, (n_passes,): those of one name are read once.

        Returns:
            (n_passes, output_width) in 32 bits.
        """
        tokens = {"input_ids": input_ids, "token_type_ids": token_type_ids, "states": states}
        given = {name: each for name, each in tokens.items() if each is not None}
        parts, copies = split_passes(attention_mask, texts)
        with attention_of_any_shape(attention_mask.device):
            vectors = [
                self._read(attention_mask[part, :end], **{name: each[part, :end] for name, each in given.items()})
                for part, end in parts
            ]
        return torch.cat(vectors)[copies]

    def _read(self, attention_mask: Tensor, **given: Tensor) -> Tensor:
        layers = self._read_layers(attention_mask, **given)
        with torch.autocast(attention_mask.device.type, enabled=False):
            return self.head.pool(tuple(layer.float() for layer in layers), attention_mask)  # (n_passes, output_width)

    def _read_layers(
        self, attention_mask: Tensor, *, states: Tensor | None = None, **tokens: Tensor
    ) -> tuple[Tensor, ...]:
        if self._cut is None:
            return self._layers_of(self.body, **self._known(tokens), attention_mask=attention_mask)
        # Never the whole as well: a body and its half would both count the states of the layers they share.
        if states is None:
            states = self._read_cut(attention_mask, **tokens)
        return self._read_upper(self._cut.upper, states.to(self._cut.dtype), attention_mask)

    def _read_cut(self, attention_mask: Tensor, **tokens: Tensor) -> Tensor:
        assert self._cut is not None
        return self._cut.lower(**self._known(tokens), attention_mask=attention_mask).last_hidden_state

    def _read_upper(self, upper: PreTrainedModel, states: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        if attention_mask.device.type != "cpu" or not can_be_packed(self.body):
            return self._layers_of(upper, inputs_embeds=states, attention_mask=attention_mask)
        lengths = attention_mask.sum(dim=1).tolist()
        with packed(lengths):
            layers = self._layers_of(upper, inputs_embeds=pack(states, attention_mask))
        return tuple(unpack(layer, lengths) for layer in layers)

    def _layers_of(self, body: PreTrainedModel, **given: Tensor) -> tuple[Tensor, ...]:
        mixes = self.config.n_mixed_layers > 1
        outputs = body(**given, output_hidden_states=mixes)
        return outputs.hidden_states if mixes else (outputs.last_hidden_state,)

    def read_tokens(
        self, *, attention_mask: Tensor, texts: Tensor | None = None, frozen_alone: bool = False, **tokens: Tensor
    ) -> Tensor:
        """Read passes through the whole body, or the frozen layers alone; arguments as of `pool_passes`.

        Returns:
            The last layer's states of every token that is no padding, pass after pass, (n_all_tokens, body_width).
        """
        parts, copies = split_passes(attention_mask, texts)
        read: list[Tensor] = []
        with attention_of_any_shape(attention_mask.device), every_token_read():
            for part, end in parts:
                mask = attention_mask[part, :end]
                given = {name: each[part, :end] for name, each in tokens.items()}
                states = self._read_cut(mask, **given) if frozen_alone else self._read_layers(mask, **given)[-1]
                read += [each[:length] for each, length in zip(states, mask.sum(dim=1).tolist(), strict=True)]
        return torch.cat([read[place] for place in copies.tolist()])

    def _known(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        # Bodies that know one type of tokens take none.
        has_types = getattr(self.body.config, "type_vocab_size", 0) > 1
        return {name: each for name, each in tokens.items() if has_types or name != "token_type_ids"}
