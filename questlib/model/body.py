"""An encoder's body: its weights read, and refused where they are not its own."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

_N_TOKENS = 8  # of a pass that a body is tried with
# Families name them differently.
_DROPOUTS = {
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"),
    "hidden_dropout": (
        "hidden_dropout_prob", "hidden_dropout", "dropout", "mlp_dropout", "embedding_dropout", "resid_pdrop",
        "embd_pdrop", "resid_dropout", "embed_dropout",
    ),
}  # fmt: skip
# What a body raises of ids and a mask alone that was made to read something else.
BODY_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
# How far padding may move a token, as a share of the largest state. In tiny bodies of 40 families it does by 4e-5 at
# most; in those that compress passes or slide over them (Nystromformer, ConvBERT, YOSO) by 5e-4 to 0.05, which they
# were trained with and are left; by 0.6 and more where the mask is not read (FNet, CANINE).
_MOST_MOVED = 0.1


def short_pass(body: PreTrainedModel) -> dict[str, Tensor]:
    """Give a pass that every body should read, of its last words: ids and mask of shape (1, n_tokens)."""
    ids = torch.arange(body.config.vocab_size - _N_TOKENS, body.config.vocab_size, device=body.device)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def read_config(folder: str | Path) -> PretrainedConfig:
    """Read what an encoder's config.json says, and try whether a body can be built of it, without weights.

    Raises:
        ValueError: If it cannot, or the weights are quantised, which nothing here trains.
    """
    path = Path(folder) / "config.json"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "num_hidden_layers", 1) < 1:
            raise ValueError(f"{config.num_hidden_layers=}")
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError("its weights are quantised")
        if getattr(config, "attention_type", None) == "block_sparse":
            config.attention_type = "original_full"  # which BigBird turns to for good when it reads a short pass
        with torch.device("meta"):
            AutoModel.from_config(config)
    except Exception as error:  # whatever a class of configuration, a layer or an allocation raises
        told = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} must describe an encoder with weights in floats, however: {type(error).__name__}: {told}; "
            "fetch it anew, or choose another encoder"
        ) from error
    return config


def set_dropout(config: PretrainedConfig, option: str, share: float | None) -> None:
    """Put a share in the place of the encoder's own, None leaves it; a body that drops nothing there is refused."""
    names = [name for name in _DROPOUTS[option] if hasattr(config, name)]
    if share and not names:
        raise ValueError(
            f"{option} must be 0 for an encoder that has none, such as {config.model_type}, however: {share}; "
            "set it to 0"
        )
    if share is not None:
        for name in names:
            setattr(config, name, share)


@contextmanager
def without_bars() -> Iterator[None]:
    """Within it, transformers draws no bars: weights take a second, and a terminal tells what takes minutes."""
    were_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _without_report() -> Iterator[None]:
    # What is missing, unknown or of another shape is judged here, in one line; the head of a task is nobody's loss.
    def is_wanted(record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return "LOAD REPORT" not in said or "CONVERSION" in said  # of which transformers' own error tells no more

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def read_weights(read: Callable[..., Any], folder: str | Path, *given: Any, **options: Any) -> tuple[Any, dict]:  # noqa: ANN401
    """Read weights by a class's `from_pretrained`, from safetensors; those of another shape than asked are refused.

    Returns:
        The model, and what transformers found: `missing_keys` and `unexpected_keys`, which are the caller's to judge.
    """
    options |= {"use_safetensors": True, "trust_remote_code": False}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # judged here
    with without_bars(), _without_report():
        model, found = read(folder, *given, **options)
    wrong = sorted(f"{name} of {tuple(has)} for {tuple(asked)}" for name, has, asked in found["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"the weights in {folder} must have the shapes that its config.json says, however {len(wrong)} have not, "
            f"such as {wrong[:3]}; fetch it anew"
        )
    return model, found


def read_body(folder: Path, body_config: PretrainedConfig) -> PreTrainedModel:
    """Read a body's weights, in 32-bit floats, from safetensors; all of them must be there under their own names."""
    body, found = read_weights(AutoModel.from_pretrained, folder, config=body_config, dtype=torch.float32)
    missing = [name for name in found["missing_keys"] if not name.startswith("pooler.")]  # of which none is read
    # A task model's head may be there too, but no layers, and nothing within one, that the configuration has not.
    unknown = found["unexpected_keys"]
    refuse_other_weights(folder, missing=missing, unknown=unknown if missing else _list_within_layers(body, unknown))
    empty = [name for name, weight in body.named_parameters() if _is_matrix_of_layer(name, weight) and not weight.any()]
    if empty:
        raise ValueError(
            f"the weights in {folder} must be whole, however these hold nothing but zeros: {empty[:3]}; fetch them anew"
        )
    wrong = find_not_finite(body)
    if wrong:
        raise ValueError(
            f"the weights in {folder} must be finite, however not in {len(wrong)}, such as {wrong[:3]}; fetch them anew"
        )
    leave_file(body)
    return body


def find_not_finite(model: nn.Module) -> list[str]:
    """Name the parameters of a model that hold a weight which is no number: it could predict nothing."""
    return [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]


def leave_file(model: nn.Module) -> None:
    """Copy weights that were read from where they lie in their file to memory that torch aligns.

    What a product in 32 bits rounds to hangs on how its matrices are aligned, and in two files that hold the same
    weights they are not alike: a trained model would not predict what it predicts once it is saved and read.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()


def _list_within_layers(body: PreTrainedModel, names: Iterable[str]) -> list[str]:
    lists = tuple(f"{path}." for path, each in body.named_modules() if isinstance(each, nn.ModuleList))
    return [name for name in names if name.removeprefix(f"{body.base_model_prefix}.").startswith(lists)]


def _is_matrix_of_layer(name: str, weight: Tensor) -> bool:
    # A bias may begin as zeros, and tables of types or positions stay so where they are not used.
    return name.endswith("weight") and weight.ndim > 1 and "embed" not in name and not name.startswith("pooler.")


def refuse_other_weights(folder: str | Path, *, missing: Iterable[str], unknown: Iterable[str]) -> None:
    """Refuse weights of which some are missing, or have names that their model does not know."""
    missing, unknown = sorted(missing), sorted(unknown)
    if missing or unknown:
        raise ValueError(
            f"the weights in {folder} must be those of its model by name, however {len(missing)} are missing, such as "
            f"{missing[:3]}, and {len(unknown)} are of other names, such as {unknown[:3]}; save the plain model anew, "
            "without what was wrapped round it"
        )


@torch.no_grad()
def refuse_silent(body: PreTrainedModel, *, reads_first_only: bool) -> None:
    """Refuse a body that does not make a vector of each token out of ids and a mask alone, asked before training.

    Args:
        body: The body.
        reads_first_only: Whether no token but the first will be read, which must then know of the others.
    """
    was_training, name = body.training, body.config.model_type
    body.eval()
    ids, mask = short_pass(body).values()
    half = _N_TOKENS // 2
    try:
        states, others, alone, padded = (
            body(input_ids=given[:, : read.shape[1]], attention_mask=read).last_hidden_state
            for given, read in (
                (ids, mask),
                (ids[:, :1].expand_as(ids), mask),
                (ids, mask[:, :half]),
                (ids, torch.cat([mask[:, :half], 0 * mask[:, half:]], dim=1)),
            )
        )
        width = states.shape[-1]
    except BODY_ERRORS as error:
        raise ValueError(
            f"an encoder must make a vector of each token, however {name} does not: {error}; "
            "choose a plain encoder of text"
        ) from error
    finally:
        body.train(was_training)
    # Where the last layer reads the first token alone, it makes one vector.
    if states.shape[:2] not in (ids.shape, (1, 1)) or width != body.config.hidden_size:
        raise ValueError(
            f"an encoder must make a vector of each token, however {name} makes "
            f"{tuple(states.shape)} of {tuple(ids.shape)} tokens; choose a plain encoder of text"
        )
    if not torch.isfinite(states).all():
        raise ValueError(
            f"an encoder must make finite vectors, however {name} makes NaN or infinity of a short pass; fetch it anew"
        )
    moved = float((padded[:, : alone.shape[1]] - alone).abs().max() / alone.abs().max())
    if moved > _MOST_MOVED:
        raise ValueError(
            f"an encoder must not read padding, however {name} does, which moves a state by {moved:.1g} of the largest"
            "; choose an encoder that reads its attention_mask"
        )
    if torch.equal(states, others):
        raise ValueError(
            f"an encoder must make other vectors of other words, however {name} makes the same of any; its weights are "
            "not what it was trained to, fetch them anew"
        )
    if reads_first_only and torch.equal(states[:, 0], others[:, 0]):
        raise ValueError(
            f"a pooling that reads the first token alone needs an encoder whose tokens read those after them, however "
            f"those of {name} do not; set pooling to 'mean'"
        )


def begin_anew(layer: nn.Module, body: PreTrainedModel) -> None:
    """Draw the weights of a layer as those of a new body."""
    for weight in layer.parameters():
        setattr(weight, "_is_hf_initialized", False)  # noqa: B010  read from a file, it would be left as it is
    layer.apply(body._init_weights)
