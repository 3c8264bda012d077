"""An encoder that is not what it seems is refused in words, or read right, before anything is trained."""

import importlib.util
import json
import logging
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, PretrainedConfig

from questlib.batches import PassCollator
from questlib.members import TransformerMember
from questlib.model import QuestModel
from questlib.model.longest import longest_pass
from questlib.model.prediction import predict
from questlib.recipe import ModelOptions, TextLayout, TrainingSettings
from questlib.schema import TEXT_COLUMNS
from questlib.stage import LoraStage
from questlib.text import encode_passes, load_tokenizer

WEIGHTS = "model.safetensors"
LORA = LoraStage(name="lora", trainable=("head.*",), epochs=1, learning_rate=1e-2, head_learning_rate=1e-2)


@pytest.fixture
def folder(encoder_folder, tmp_path) -> Path:
    """An encoder of one's own, to spoil."""
    return shutil.copytree(encoder_folder, tmp_path / "spoilt")


def check(folder: Path) -> None:
    TransformerMember(toy.build_recipe(folder), cache_folder=folder.parent / "cache").check()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ModelOptions(freeze_layers=1)},
        {"model": ModelOptions(reset_layers=1)},
        {"stages": (replace(toy.STAGE, layer_decay=0.9),)},
    ],
    ids=str,
)
def test_what_needs_layers_is_refused_of_a_body_that_has_one_used_again_and_again(changes, tmp_path):
    recipe = toy.build_recipe(toy.write_encoder(tmp_path / "encoder", family="albert"), **changes)
    with pytest.raises(ValueError, match="need a body with 2 layers in a list, however albert has none"):
        TransformerMember(recipe, cache_folder=tmp_path / "cache").check()


@pytest.mark.parametrize(
    ("package", "changes", "install"),
    [
        ("bitsandbytes", {"settings": TrainingSettings(optimizer="adamw_8bit")}, "questlib[eight-bit]"),
        ("tensorboard", {"settings": TrainingSettings(use_tensorboard=True)}, "tensorboard"),
        ("peft", {"stages": (LORA,)}, "questlib[lora]"),
        ("bitsandbytes", {"stages": (replace(LORA, quantize=True),)}, "questlib[eight-bit]"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_an_option_whose_package_is_missing_is_refused_with_what_to_install(
    package, changes, install, encoder_folder, tmp_path, monkeypatch
):
    member = TransformerMember(toy.build_recipe(encoder_folder, **changes), cache_folder=tmp_path / "cache")
    member.check()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(
        ImportError, match=re.escape(f"needs {package}, however it is not here; pip install '{install}'")
    ):
        member.check()


def rename_weights(folder: Path, rename) -> None:  # noqa: ANN001
    weights = {rename(name): each for name, each in load_file(folder / WEIGHTS).items()}
    save_file({name: each for name, each in weights.items() if name}, folder / WEIGHTS, metadata={"format": "pt"})


def spoil_config(folder: Path, name: str = "config.json", **changes: object) -> None:
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | changes))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "base_model.model."])
def test_weights_of_other_names_are_refused_with_those_that_are_missing_and_those_found(prefix, folder):
    rename_weights(folder, lambda name: prefix + name)
    with pytest.raises(ValueError, match=rf"are missing, such as .* are of other names, such as \['{prefix}"):
        check(folder)


def test_weights_of_a_task_models_own_prefix_are_read(folder, encoder_folder):
    rename_weights(folder, lambda name: f"bert.{name}")
    check(folder)
    one, other = (QuestModel.from_encoder(each, n_kinds=2) for each in (folder, encoder_folder))
    for name, weight in other.body.named_parameters():
        assert torch.equal(weight, one.body.get_parameter(name))


@pytest.mark.parametrize("gone", ["encoder.layer.1.", "embeddings.LayerNorm", "encoder.layer.0.output.dense.bias"])
def test_weights_of_which_some_are_missing_are_refused(gone, folder):
    rename_weights(folder, lambda name: "" if gone in name else name)
    with pytest.raises(ValueError, match=rf"are missing, such as \['{gone}"):
        check(folder)


@pytest.fixture
def told(caplog):
    """What transformers logs, which it hands on to nobody."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("gone", ["", "encoder.layer.1."])
def test_weights_are_judged_in_one_line_without_the_table_of_transformers(gone, folder, told):
    def rename(name: str) -> str:
        return "" if gone and gone in name else name.replace("pooler.", "cls.")  # a task's head

    rename_weights(folder, rename)
    with pytest.raises(ValueError, match="are missing") if gone else nullcontext():
        check(folder)
    assert "LOAD REPORT" not in told.text
    AutoModel.from_pretrained(folder)  # told to who asks for it
    assert "LOAD REPORT" in told.text


def test_a_pooler_may_be_missing_because_it_is_not_read(folder):
    rename_weights(folder, lambda name: "" if name.startswith("pooler.") else name)
    check(folder)


def test_weights_of_another_width_are_refused(folder):
    spoil_config(folder, intermediate_size=64)
    with pytest.raises(ValueError, match=r"must have the shapes .* however 6 have not, such as"):
        check(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 3}, {"hidden_size": "16"}, {"num_hidden_layers": 0}, {"vocab_size": 0},
        {"hidden_act": "nonsense"}, {"pad_token_id": 500}, {"model_type": "berty"}, {"hidden_dropout_prob": 2.0},
        {"dtype": "float3"}, {"quantization_config": {"quant_method": "fp8"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    ],
)  # fmt: skip
def test_a_configuration_of_which_no_body_can_be_built_is_refused_by_file_name(changes, folder):
    spoil_config(folder, **changes)
    with pytest.raises(ValueError, match=r"config.json must describe an encoder with weights in floats, however: .+"):
        check(folder)


@pytest.mark.parametrize("content", ["[1]", "null", "{}"])
def test_a_configuration_that_is_none_is_refused_by_file_name(content, folder):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config.json must describe an encoder"):
        check(folder)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_of_more_layers_than_the_configuration_has_are_refused(prefix, folder):
    rename_weights(folder, lambda name: prefix + name)
    spoil_config(folder, num_hidden_layers=1)
    with pytest.raises(ValueError, match=rf"16 are of other names, such as \['{prefix}encoder.layer.1"):
        check(folder)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.0.attention.self.distance_embedding.weight",  # relative positions, that BERT had once
        "bert.encoder.layer.1.attention.self.query.lora_A.default.weight",
        "encoder.layer.0.output.adapters.task.adapter_up.weight",
    ],
)
def test_weights_within_a_layer_that_the_model_does_not_know_are_refused(name, folder):
    save_file(load_file(folder / WEIGHTS) | {name: torch.ones(3, 3)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"1 are of other names, such as \['{re.escape(name)}"):
        check(folder)


@pytest.mark.parametrize("name", ["cls.predictions.bias", "classifier.weight", "embeddings.position_ids"])
def test_weights_outside_the_layers_that_are_not_read_may_be_there(name, folder):
    save_file(load_file(folder / WEIGHTS) | {name: torch.ones(3)}, folder / WEIGHTS, metadata={"format": "pt"})
    check(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_weights_that_are_no_floats_are_refused(kind, folder):
    weights = load_file(folder / WEIGHTS)
    name = "encoder.layer.0.output.dense.weight"
    save_file(weights | {name: (weights[name] * 100).to(kind)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"must be floats of 16 to 64 bits, however not \['{name} of "):
        check(folder)


def test_weights_of_which_the_end_was_never_written_are_refused(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    with pytest.raises(ValueError, match=r"these hold nothing but zeros: \['encoder.layer"):
        check(folder)


def test_weights_whose_file_was_given_room_but_no_end_are_refused_by_file_name(folder):
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"pooler.weight": torch.zeros(200, 200)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{WEIGHTS} must be whole, however .* its end holds nothing but zeros"):
        check(folder)


@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.LayerNorm.weight"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_weights_by_which_every_word_is_the_same_are_refused(pooling, name, folder):
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {name: torch.zeros_like(weights[name])}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="must make other vectors of other words, however bert makes the same of any"):
        QuestModel.from_encoder(folder, pooling=pooling)


def test_a_body_that_overflows_is_refused(folder):
    save_file({name: 1e30 * each for name, each in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="must make finite vectors, however bert makes NaN"):
        check(folder)


def test_an_adapter_is_refused_because_another_encoder_would_be_read(folder):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(folder.parent / "other"), "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ValueError, match=r"must hold a whole encoder, however adapter_config.json"):
        check(folder)


def test_trained_weights_are_read_as_strictly(model, rows, tmp_path):
    model.save_pretrained(tmp_path)
    rename_weights(tmp_path, lambda name: "" if "layer.1.output" in name else name)
    with pytest.raises(ValueError, match="are missing, such as"):
        QuestModel.from_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(OSError, match="safetensors"):
        QuestModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("fault", ["other shapes", "missing"])
def test_trained_weights_are_judged_in_one_line_too(fault, model, tmp_path, told):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    for name in [each for each in weights if "layer.1.output" in each]:
        kept = weights.pop(name)
        if fault == "other shapes":
            weights[name] = kept[:-1].clone()
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="are missing" if fault == "missing" else r"must have the shapes .* of \("):
        QuestModel.from_pretrained(tmp_path)
    assert "LOAD REPORT" not in told.text


def test_a_folder_without_tokenizer_files_is_refused(folder):
    for path in (*folder.glob("tokenizer*"), *folder.glob("special*"), *folder.glob("vocab*")):
        path.unlink()
    with pytest.raises(ValueError, match=r"the tokenizer in .* must "):
        check(folder)


def spoil_vocabulary(folder: Path, change) -> None:  # noqa: ANN001
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))


def cut_words(content: dict) -> None:
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: number for word, number in words.items() if number < 8}


def forget_digits(content: dict) -> None:
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {
        word: number for word, number in words.items() if not word.removeprefix("##").isdigit()
    }


def replace_words(content: dict) -> None:
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word if number < 4 else f"\u4e00{number}": number for word, number in words.items()}


def add_words(content: dict) -> None:
    content["model"]["vocab"] |= {f"word{number}": 200 + number for number in range(20)}


def forget_small_letters(content: dict) -> None:
    content["normalizer"]["lowercase"] = False


def forget_special(content: dict) -> None:
    content["post_processor"] = None


def keep_letters_alone(content: dict) -> None:
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {
        f"[unused{number}]" if word.isalpha() and len(word) > 1 else word: number for word, number in words.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_words, "must belong to the weights"),
        (forget_digits, "must belong to the weights, however its 85 tokens"),
        (replace_words, "must read English"),
        (forget_small_letters, "must read English"),
        (keep_letters_alone, "must read English"),
        (add_words, "reach id 219"),
        (forget_special, r"must put \['\[CLS\]', '\[SEP\]'\] round texts, however it makes \['a', 'b'\]"),
    ],
)
def test_a_tokenizer_of_another_encoder_is_refused(change, message, folder):
    spoil_vocabulary(folder, change)
    with pytest.raises(ValueError, match=message):
        check(folder)


def test_a_tokenizer_that_makes_one_token_of_all_words_is_refused_where_none_is_said_to_be_unknown(folder):
    spoil_vocabulary(folder, replace_words)
    spoil_config(folder, "tokenizer_config.json", unk_token=None)
    assert load_tokenizer(folder).unk_token_id is None
    with pytest.raises(ValueError, match="must read English, .* it makes 23 tokens, 1 of them unlike and 0 unknown"):
        check(folder)


def test_a_tokenizer_without_padding_is_refused(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text())
            content.pop("pad_token", None)
            (folder / name).write_text(json.dumps(content))
    assert load_tokenizer(folder).pad_token_id is None
    with pytest.raises(ValueError, match="must have a padding token"):
        check(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS])
@pytest.mark.parametrize("content", ["half", "pointer", "empty"])
def test_a_damaged_file_is_named(name, content, folder):
    whole = (folder / name).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90888945\n"
    (folder / name).write_bytes({"half": whole[: len(whole) // 2], "pointer": pointer, "empty": b""}[content])
    with pytest.raises(ValueError, match=rf"{name} must be whole, however"):
        check(folder)


def shard(folder: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(folder / "parts", max_shard_size="8KB")
    (folder / WEIGHTS).unlink()
    for path in (folder / "parts").glob("*.safetensors*"):
        path.rename(folder / path.name)
    shutil.rmtree(folder / "parts")


def test_an_encoder_in_parts_is_read_whole(folder):
    shard(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    check(folder)


def test_parts_without_their_index_or_an_index_without_its_parts_are_refused(folder):
    shard(folder)
    index = folder / f"{WEIGHTS}.index.json"
    kept = index.read_text()
    index.unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold model.safetensors, or model.safetensors.index.json beside"):
        check(folder)
    for content in ("[]", "{}"):
        index.write_text(content)
        with pytest.raises(ValueError, match=r"index.json must name the file of each weight"):
            check(folder)
    index.write_text(kept)
    part = sorted(folder.glob("*.safetensors"))[1]
    part.unlink()
    with pytest.raises(FileNotFoundError, match=rf"however \['{part.name}'\] is missing"):
        check(folder)


# Families that take ids and a mask alone, with what their tiny configuration needs beside the common names.
TINY = {
    "vocab_size": toy.build_config("bert").vocab_size,
    "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32,
    "max_position_embeddings": 80, "pad_token_id": 1,
}  # fmt: skip
POSITIONS = {  # family: (configuration, tokens that it reads)
    "bert": ({}, 80),
    "roberta": ({}, 78),
    "roberta-prelayernorm": ({}, 78),
    "xlm-roberta": ({}, 78),
    "xlm-roberta-xl": ({}, 78),
    "camembert": ({}, 78),
    "data2vec-text": ({}, 78),
    "mpnet": ({}, 78),
    "longformer": ({"attention_window": [4, 4]}, 78),
    "electra": ({"embedding_size": 8}, 80),
    "albert": ({"embedding_size": 8}, 80),
    "ernie": ({}, 80),
    "rembert": ({"input_embedding_size": 16}, 80),
    "layoutlm": ({}, 80),
    "squeezebert": ({f"{name}_groups": 1 for name in "qkv"} | {"intermediate_groups": 1, "embedding_size": 16}, 80),
    "xlnet": ({"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}, 500),
    "deberta-v2": (toy._NAMES["deberta-v2"], 500),
    "nystromformer": ({"num_landmarks": 4, "segment_means_seq_len": 4}, 80),
    "mobilebert": ({"intra_bottleneck_size": 8, "embedding_size": 8, "num_feedforward_networks": 1}, 80),
    "convbert": ({"embedding_size": 16, "head_ratio": 1}, 80),
}  # fmt: skip


def build(family: str) -> PretrainedConfig:
    common = {name: value for name, value in TINY.items() if family != "xlnet" or "position" not in name}
    return AutoConfig.for_model(family, **common | POSITIONS[family][0])


@pytest.mark.parametrize("family", POSITIONS)
def test_a_body_is_asked_how_long_a_pass_it_reads(family):
    assert longest_pass(build(family), at_most=500) == POSITIONS[family][1]
    assert longest_pass(build(family), at_most=33) == 33


@pytest.mark.parametrize("family", POSITIONS)
def test_every_family_reads_passes_of_its_greatest_length(family, tmp_path, rows):
    torch.manual_seed(0)
    AutoModel.from_config(build(family)).save_pretrained(tmp_path)
    model = QuestModel.from_encoder(tmp_path, n_kinds=2, metadata_width=rows.metadata.shape[1])
    predicted = predict(model, rows, PassCollator(pad_token_id=1), batch_size=4, precision="fp32")
    assert np.isfinite(predicted).all()
    ids = torch.full((1, min(POSITIONS[family][1], 100)), 5)
    assert torch.isfinite(model.pool_passes(input_ids=ids, attention_mask=torch.ones_like(ids))).all()


# Bodies that a fault of their own kind is asked of, beside the common names; widths of some are called otherwise.
DECODERS = {"opt": {"ffn_dim": 32, "word_embed_proj_dim": 16}, "qwen2": {"num_key_value_heads": 2}, "gpt_neox": {}}
DECODERS |= {"llama": {"num_key_value_heads": 2}}
XLM = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 80}
BART = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 80}
BART |= {f"{half}_{what}": 2 for half in ("encoder", "decoder") for what in ("layers", "attention_heads")}


def write_body(folder: Path, config: PretrainedConfig) -> None:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize("family", DECODERS)
def test_a_body_whose_first_token_sees_itself_alone_is_refused_where_no_other_is_read(family, folder):
    write_body(folder, AutoConfig.for_model(family, **TINY | DECODERS[family]))
    QuestModel.from_encoder(folder, pooling="mean")
    QuestModel.from_encoder(folder, pooling="cls_mean")
    for n_mixed_layers in (1, 2):
        with pytest.raises(ValueError, match=f"the first token alone needs .* those of {family} do not; set pooling"):
            QuestModel.from_encoder(folder, pooling="cls", n_mixed_layers=n_mixed_layers)


def test_a_body_that_reads_padding_is_refused(folder):
    write_body(folder, AutoConfig.for_model("fnet", **TINY))
    with pytest.raises(ValueError, match="must not read padding, however fnet does, which moves a state by"):
        QuestModel.from_encoder(folder, pooling="mean")


@pytest.mark.parametrize(("family", "changes"), [("xlm", XLM), ("bart", BART)])
@pytest.mark.parametrize(
    "options",
    [
        {"model": ModelOptions(reset_layers=1)},
        {"stages": (replace(toy.STAGE, layer_decay=0.5),)},
    ],
    ids=str,
)
def test_what_needs_layers_is_refused_of_a_body_that_keeps_parts_of_them_in_several_lists(
    family, changes, options, folder
):
    write_body(folder, AutoConfig.for_model(family, vocab_size=TINY["vocab_size"], pad_token_id=0, **changes))
    TransformerMember(toy.build_recipe(folder), cache_folder=folder.parent / "cache").check()
    with pytest.raises(
        ValueError, match=rf"need a body with 2 layers in a list, however {family} has parts of them in"
    ):
        TransformerMember(toy.build_recipe(folder, **options), cache_folder=folder.parent / "cache").check()


GPT2 = AutoConfig.for_model("gpt2", vocab_size=TINY["vocab_size"], n_embd=16, n_layer=2, n_head=2)


@pytest.mark.parametrize(
    "config", [*map(toy.build_config, ("bert", "modernbert", "distilbert")), GPT2], ids=lambda each: each.model_type
)
def test_dropout_that_is_asked_for_is_that_of_the_body(config, folder):
    write_body(folder, config)
    for share in (0.3, 0.0):
        dropout = {"attention_dropout": share, "hidden_dropout": share}
        body = QuestModel.from_encoder(folder, pooling="mean", **dropout).body
        assert {each.p for each in body.modules() if isinstance(each, torch.nn.Dropout)} == {share}


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (build("xlnet"), "attention_dropout"),
        (AutoConfig.for_model("qwen2", **TINY | DECODERS["qwen2"]), "hidden_dropout"),
    ],
    ids=["xlnet", "qwen2"],
)
def test_dropout_that_a_body_has_not_is_refused(config, option, folder):
    write_body(folder, config)
    QuestModel.from_encoder(folder, **{option: 0.0}, pooling="mean")
    with pytest.raises(
        ValueError, match=rf"{option} must be 0 for an encoder that has none, such as {config.model_type}"
    ):
        QuestModel.from_encoder(folder, **{option: 0.1}, pooling="mean")


def test_a_body_that_attends_otherwise_after_its_first_short_pass_is_saved_as_it_attends(tmp_path, rows):
    config = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "max_position_embeddings": 200}
    write_body(tmp_path / "encoder", AutoConfig.for_model("big_bird", **TINY | config))
    model = QuestModel.from_encoder(tmp_path / "encoder", n_kinds=2, metadata_width=rows.metadata.shape[1])
    model.save_pretrained(tmp_path / "saved")
    loaded = QuestModel.from_pretrained(tmp_path / "saved")
    ids = torch.randint(5, 60, (1, 128), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.eval().pool_passes(**given), loaded.eval().pool_passes(**given))


@pytest.mark.parametrize(("family", "reads"), [("t5", "token ids and a mask"), ("clip", "text"), ("vit", "text")])
def test_what_is_no_plain_encoder_of_text_is_refused_in_words(family, reads, folder):
    AutoConfig.for_model(family).save_pretrained(folder)
    with pytest.raises(ValueError, match=f"an encoder must read {reads}, however {family} in .* does not"):
        check(folder)


@pytest.mark.parametrize(
    ("family", "raises"), [("prophetnet", "decoder_input_ids"), ("qwen2_vl_text", "mrope_section")]
)
def test_a_body_that_raises_what_others_do_not_is_refused_in_words(family, raises, folder):
    depth = {"num_hidden_layers": 2} if family != "prophetnet" else {"num_encoder_layers": 2, "num_decoder_layers": 2}
    config = {name: value for name, value in TINY.items() if name != "num_hidden_layers"} | depth
    AutoConfig.for_model(family, **config | {"num_key_value_heads": 2}).save_pretrained(folder)
    with pytest.raises(ValueError, match=f"an encoder must read token ids and a mask, however {family} .*{raises}"):
        check(folder)


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
def test_a_body_of_a_packed_family_attends_as_a_decoder_where_it_is_one(family, folder):
    config = toy.build_config(family)
    config.is_decoder = True
    write_body(folder, config)
    ids = torch.randint(5, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    read = QuestModel.from_encoder(folder, pooling="mean").eval().pool_passes(**given)
    own = AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(read, own)


def test_special_words_in_a_text_are_words(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    frame = pd.DataFrame(dict.fromkeys(TEXT_COLUMNS, ["why [SEP] is [PAD] the [CLS] title"]))
    [row] = encode_passes(frame, tokenizer, TextLayout(max_length=64), cache_folder=tmp_path)
    for ids in row["input_ids"]:
        assert [ids.count(tokenizer.convert_tokens_to_ids(word)) for word in ("[CLS]", "[SEP]", "[PAD]")] == [1, 2, 0]
