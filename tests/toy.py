"""Toy encoders of every family: two narrow layers, random weights, one small vocabulary."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from questlib.batches import QuestRows
from questlib.data import fill_nulls
from questlib.metadata import MetadataEncoder
from questlib.model import QuestModel
from questlib.recipe import MetadataOptions, ModelOptions, TextLayout, TrainingSettings, TransformerRecipe
from questlib.schema import TARGETS
from questlib.stage import Stage
from questlib.text import encode_passes, load_tokenizer
from questlib.training.checkpoint import Checkpoints
from questlib.training.trainer import QuestTrainer

FAMILIES = ("bert", "distilbert", "roberta", "deberta-v2", "modernbert", "electra", "albert", "mpnet")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?.,"
WORDS = ("how", "why", "what", "the", "title", "body", "answer", "good", "bad", "is", "to", "step")
WORDS += ("question", "this", "do", "you", "find", "out", "people", "here", "would", "like", "know")

_WIDTH, _HEADS, _LAYERS, _POSITIONS = 16, 2, 2, 80
# Names that differ between families: width, heads, layers, inner width.
_NAMES = {
    "distilbert": {"dim": _WIDTH, "n_heads": _HEADS, "n_layers": _LAYERS, "hidden_dim": 32},
    "albert": {"embedding_size": 8},
    "electra": {"embedding_size": 8},
    "modernbert": {
        "pad_token_id": 0,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "local_attention": 8,
    },
    # DeBERTa-v3 is DeBERTa-v2 with these settings: relative positions only, and no token types.
    "deberta-v2": {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "max_relative_positions": -1,
    },
}


def build_config(family: str) -> PretrainedConfig:
    """Describe a toy body of a family."""
    common = {
        "vocab_size": len(SPECIAL) + 2 * len(LETTERS) + len(WORDS),
        "hidden_size": _WIDTH,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "intermediate_size": 32,
        "max_position_embeddings": _POSITIONS,
        "pad_token_id": 0,
    }
    if family == "distilbert":
        common = {name: common[name] for name in ("vocab_size", "max_position_embeddings", "pad_token_id")}
    return AutoConfig.for_model(family, **common | _NAMES.get(family, {}))


def write_tokenizer(folder: Path) -> None:
    """Write a word-piece tokenizer that knows every letter and two dozen words."""
    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    core = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[UNK]",
    ).save_pretrained(folder)


def write_encoder(folder: Path, *, family: str = "bert") -> Path:
    """Write a toy encoder as its authors would publish one: config, safetensors, tokenizer."""
    torch.manual_seed(0)
    AutoModel.from_config(build_config(family)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def give_easy_texts(frame: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray]:
    """Replace bodies and answers by words, and ratings by the share of good ones: a few steps are seen to learn."""
    n_good = np.arange(len(frame)) % 10
    texts = [" ".join(["good"] * good + ["bad"] * (9 - good)) for good in n_good]
    return frame.assign(question_body=texts, answer=texts), np.repeat(n_good[:, None] / 9, len(TARGETS), axis=1)


def build_easy_rows(frame: pd.DataFrame, encoder_folder: Path, *, cache_folder: Path) -> QuestRows:
    """Tokenise a toy table with easy texts as a pair of short passes, with metadata."""
    frame, targets = give_easy_texts(fill_nulls(frame))
    layout = TextLayout(layout="pair", max_length=32, title_tokens=8)
    passes = encode_passes(frame, load_tokenizer(encoder_folder), layout, cache_folder=cache_folder)
    return QuestRows(passes, MetadataEncoder(n_hosts=2).fit_transform(frame), targets=targets)


def build_model(encoder_folder: Path, rows: QuestRows, **options: Any) -> QuestModel:  # noqa: ANN401
    """Begin with a toy body and a new head, the same each time."""
    torch.manual_seed(0)
    width = rows.metadata.shape[1]
    return QuestModel.from_encoder(encoder_folder, n_kinds=2, pooling="mean", metadata_width=width, **options)


STAGE = Stage(name="full", trainable=("*",), epochs=1, learning_rate=1e-3, head_learning_rate=1e-2)


def build_recipe(encoder_folder: Path, **changes: Any) -> TransformerRecipe:  # noqa: ANN401
    """Give a member that a toy body fits into, trained in a second."""
    recipe = TransformerRecipe(
        name="toy",
        encoder=str(encoder_folder),
        layout=TextLayout(layout="pair", max_length=32, title_tokens=8),
        metadata=MetadataOptions(n_hosts=2),
        model=ModelOptions(pooling="mean"),
        stages=(STAGE,),
        settings=TrainingSettings(batch_size=4, precision="fp32"),
        folds_to_train=2,
        stop_share=0.3,
    )
    return replace(recipe, **changes)


def assert_goes_on(
    train: Callable[[Path, Checkpoints | None], QuestModel],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    n_steps: int,
) -> None:
    """Train, interrupt the same training after some steps and go on with it: both end with the same weights."""
    expected, checkpoints = train(folder / "whole", None), Checkpoints(folder / "kept")
    with monkeypatch.context() as patch:
        interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            train(folder / "interrupted", checkpoints)
    found = train(folder / "again", checkpoints)
    for (name, one), other in zip(expected.named_parameters(), found.parameters(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-6, err_msg=name)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, n_steps: int, *, number: int = signal.SIGINT) -> None:
    """Send a signal in the middle of a step, counted over all stages."""
    original, seen = QuestTrainer._differentiate, [0]

    def differentiate(self, model, inputs):
        seen[0] += 1
        if seen[0] == n_steps:
            os.kill(os.getpid(), number)
        return original(self, model, inputs)

    monkeypatch.setattr(QuestTrainer, "_differentiate", differentiate)
