"""A lora stage trains little, leaves a plain model, and is stopped, kept and gone on with like any other."""

import importlib.util
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from peft import import_utils
from test_training import COLLATOR, FULL, HEAD, SETTINGS, changed, fit, weights_of

from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.stage import LoraStage
from questlib.training import fit_stages
from questlib.training.four_bits import FourBitLinear

LORA = LoraStage(
    name="lora", trainable=("head.*",), epochs=2, learning_rate=1e-2, head_learning_rate=1e-2, rank=2, alpha=4
)
QLORA = replace(LORA, name="qlora", quantize=True)


def begin(encoder_folder, rows, **options):  # noqa: ANN003
    torch.manual_seed(0)
    return QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=rows.metadata.shape[1], **options)


def test_matrices_of_the_layers_that_learn_change_by_the_rank_asked_for_and_nothing_else_of_the_body(
    encoder_folder, rows, tmp_path
):
    model = begin(encoder_folder, rows, freeze_layers=1)
    before = weights_of(model)
    fit(model, rows, [LORA], tmp_path)
    moved = changed(before, weights_of(model))
    matrices = {name for name in before if "layer.1." in name and before[name].ndim == 2}
    assert {name for name in moved if name.startswith("body.")} == matrices
    for name in matrices:
        assert torch.linalg.matrix_rank(weights_of(model)[name] - before[name], rtol=1e-3) <= 2
    assert any(name.startswith("head.") for name in moved)


def round_to_four_bits(weight):
    layer = torch.nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight.data = weight
    return FourBitLinear(layer).unpack()


def test_quantized_matrices_are_what_they_were_rounded_to_and_what_was_learned(encoder_folder, rows, tmp_path):
    model = begin(encoder_folder, rows, freeze_layers=1)
    before = weights_of(model)
    fit(model, rows, [QLORA], tmp_path)
    after = weights_of(model)
    matrices = {name for name in before if "layer.1." in name and before[name].ndim == 2}
    assert {name for name in changed(before, after) if name.startswith("body.")} == matrices
    for name in matrices:
        learned = after[name] - round_to_four_bits(before[name])
        assert 0 < torch.linalg.matrix_rank(learned, rtol=1e-3) <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_four_bits_is_small_and_gives_the_gradients_of_its_rounded_matrix_also_after_it_predicted(dtype):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    small = FourBitLinear(layer)
    whole = small.to_linear()
    assert torch.equal(FourBitLinear(whole).unpack(), whole.weight)
    assert not list(small.buffers())
    assert [each.shape for each in small.parameters()] == [layer.bias.shape]
    assert small._packed.nbytes + small._about.absmax.nbytes < layer.weight.nbytes / 6
    given = torch.randn(3, 5, 64, dtype=dtype)
    with torch.inference_mode():
        small.eval()(given)
    small.train()
    made = []
    for each in (small, whole.to(dtype)):
        states = given.clone().requires_grad_()
        out = each(states)
        out.square().sum().backward()
        made.append((out.detach().float(), states.grad.float()))
    for one, other in zip(*made, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-5 if dtype == torch.float32 else 5e-2)


def test_a_quantized_stage_without_time_leaves_the_matrices_as_they_were(model, rows, tmp_path):
    before, notes = weights_of(model), []
    fit_stages(
        model, [QLORA], train_rows=rows, stop_rows=None, collator=COLLATOR, settings=SETTINGS, folder=tmp_path,
        cache_folder=tmp_path, deadline=time.monotonic() - 1, notes=notes,
    )  # fmt: skip
    assert notes == ["stage qlora: left out, for want of time"]
    assert not changed(before, weights_of(model))


@pytest.mark.parametrize("stage", [LORA, QLORA], ids=lambda stage: stage.name)
def test_it_learns_and_leaves_a_model_that_is_written_and_read_like_any_other(model, rows, tmp_path, stage):
    names = list(weights_of(model))
    history = fit(model, rows, [replace(stage, epochs=20)], tmp_path)
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < 0.9 * losses[0]
    assert list(weights_of(model)) == names
    model.save_pretrained(tmp_path / "saved")
    pair = [
        predict(each, rows, COLLATOR, batch_size=4, precision="fp32")
        for each in (model, QuestModel.from_pretrained(tmp_path / "saved"))
    ]
    np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize(("good", "harmful"), [(FULL, LORA), (LORA, LORA), (LORA, FULL)])
def test_a_stage_that_only_harms_leaves_the_best_before_it(encoder_folder, rows, tmp_path, good, harmful):
    good = replace(good, epochs=10)
    harm = replace(harmful, learning_rate=1.0, head_learning_rate=1.0, schedule="constant", epochs=1)
    expected, model = begin(encoder_folder, rows), begin(encoder_folder, rows)
    fit(expected, rows, [good], tmp_path / "expected", stop_rows=rows)
    fit(model, rows, [good, harm], tmp_path / "harmed", stop_rows=rows)
    assert changed(weights_of(begin(encoder_folder, rows)), weights_of(model))
    assert not changed(weights_of(expected), weights_of(model))
    fit(model, rows, [harm], tmp_path / "again", stop_rows=rows)
    for (name, one), other in zip(expected.named_parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("earlier", [FULL, HEAD, LORA, QLORA], ids=lambda stage: stage.name)
def test_a_quantized_stage_that_only_harms_leaves_the_best_before_it(encoder_folder, rows, tmp_path, earlier):
    good = replace(earlier, epochs=10)
    harm = replace(QLORA, learning_rate=1.0, head_learning_rate=1.0, schedule="constant", epochs=1)
    expected, model = begin(encoder_folder, rows), begin(encoder_folder, rows)
    fit(expected, rows, [good], tmp_path / "expected", stop_rows=rows)
    fit(model, rows, [good, harm, replace(harm, name="again")], tmp_path / "harmed", stop_rows=rows)
    assert not changed(weights_of(expected), weights_of(model))


@pytest.mark.parametrize("stage", [LORA, QLORA], ids=lambda stage: stage.name)
@pytest.mark.parametrize("n_steps", [2, 9, 12])
def test_a_training_that_is_interrupted_ends_as_if_it_was_not(
    encoder_folder, rows, tmp_path, monkeypatch, n_steps, stage
):
    def train(folder, checkpoints):
        model = begin(encoder_folder, rows)
        fit_stages(
            model, [stage, replace(FULL, epochs=1)], train_rows=rows, stop_rows=rows, collator=COLLATOR,
            settings=SETTINGS, folder=folder, cache_folder=tmp_path / "cache", checkpoints=checkpoints,
        )  # fmt: skip
        return model

    toy.assert_goes_on(train, tmp_path, monkeypatch, n_steps=n_steps)


@pytest.mark.parametrize("pattern", ["*", "body.*", "body.encoder.layer.1.*"])
def test_patterns_that_name_the_body_are_refused(pattern):
    with pytest.raises(ValueError, match="must train nothing of the body but additions to it, however: "):
        replace(LORA, trainable=(pattern,))


def test_without_peft_it_is_refused_before_the_stages_in_front_of_it_are_trained(model, rows, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    before = weights_of(model)
    with pytest.raises(ImportError, match=r"needs peft, however it is not here; pip install 'questlib\[lora\]'"):
        fit(model, rows, [FULL, LORA], tmp_path)
    assert not changed(before, weights_of(model))


def test_an_old_torchao_that_lies_about_is_not_in_the_way(model, rows, tmp_path, monkeypatch):
    (tmp_path / "packages" / "torchao").mkdir(parents=True)
    (tmp_path / "packages" / "torchao" / "__init__.py").write_text("")
    about = tmp_path / "packages" / "torchao-0.10.0.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    import_utils.is_torchao_available.cache_clear()
    with pytest.raises(ImportError, match="torchao"):
        import_utils.is_torchao_available()
    before = weights_of(model)
    fit(model, rows, [LORA], tmp_path)
    assert changed(before, weights_of(model))
