"""How many tokens a body reads in one pass: it is asked itself, because families count their positions differently."""

import copy

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from questlib.model.body import BODY_ERRORS

# Words that are not the padding; more of them tell nothing about positions.
_FEW_WORDS = 100
_SHORTEST = 8


def longest_pass(body_config: PretrainedConfig, *, at_most: int) -> int:
    """Tell how many tokens a body reads, `at_most` where it reads as many. No weights are needed.

    Raises:
        ValueError: If it cannot read a short pass of token ids and a mask, as what is no plain encoder of text.
    """
    if not isinstance(getattr(body_config, "vocab_size", None), int):
        raise ValueError(f"an encoder must read text, however {_name(body_config)} does not; choose another")
    padding = getattr(body_config, "pad_token_id", None) or 0
    word = padding + 1 if padding + 1 < body_config.vocab_size else padding - 1
    body = _build_small(body_config, n_words=padding + _FEW_WORDS).eval()

    def refusal(n_tokens: int) -> str | None:
        ids = torch.full((1, n_tokens), word)
        try:
            with torch.inference_mode():
                body(input_ids=ids, attention_mask=torch.ones_like(ids))
        except BODY_ERRORS as error:
            return str(error).split("\n")[0] or type(error).__name__
        return None

    if refusal(at_most) is None:
        return at_most
    told = refusal(min(_SHORTEST, at_most))
    if told is not None:
        raise ValueError(
            f"an encoder must read token ids and a mask, however {_name(body_config)} does not: {told}; "
            "choose a plain encoder of text"
        )
    low, high = min(_SHORTEST, at_most), at_most  # the first is read, the second is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if refusal(middle) is None else (low, middle)
    return low


def _name(body_config: PretrainedConfig) -> str:
    where = body_config.name_or_path
    return f"{body_config.model_type} in {where}" if where else body_config.model_type


def _build_small(body_config: PretrainedConfig, *, n_words: int) -> PreTrainedModel:
    # Positions are those of the whole body; some families spell out what each of their layers is, and are built whole.
    small = copy.deepcopy(body_config)
    try:
        small.num_hidden_layers, small.vocab_size = 1, min(small.vocab_size, n_words)
        return AutoModel.from_config(small)
    except (AssertionError, *BODY_ERRORS):
        return AutoModel.from_config(body_config)
