"""Frozen layers learn nothing and run once: what is trained above them is what it would be otherwise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from test_training import COLLATOR, fit

from questlib.data import read_tables
from questlib.members import transformer
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.stage import Stage
from questlib.training.states import cache_states, hold_states

FULL = Stage(name="full", trainable=("*",), epochs=2, learning_rate=1e-3, head_learning_rate=1e-2)
CUT = {"albert": "in a list", "modernbert": "differs by"}  # one layer used again and again; a norm after the last


def begin(folder, **options):  # noqa: ANN003
    options = {"n_kinds": 2, "metadata_width": 2, "freeze_layers": 1} | options
    return QuestModel.from_encoder(folder, **options)


def read(model, rows):
    return hold_states(model, rows, COLLATOR, batch_size=4, precision="fp32")


@pytest.mark.parametrize("family", [family for family in toy.FAMILIES if family not in CUT])
@pytest.mark.parametrize("options", [{"pooling": "cls"}, {"pooling": "cls_mean", "n_mixed_layers": 2}])
def test_predictions_from_states_are_those_of_the_whole_model(family, options, rows, tmp_path):
    model = begin(toy.write_encoder(tmp_path, family=family), metadata_width=rows.metadata.shape[1], **options)
    whole = predict(model, rows, COLLATOR, batch_size=4, precision="fp32")
    assert np.abs(predict(model, read(model, rows), COLLATOR, batch_size=4, precision="fp32") - whole).max() < 1e-4
    # Both again: a body and its half share layers, which tell their states to whoever asks.
    assert np.array_equal(predict(model, rows, COLLATOR, batch_size=4, precision="fp32"), whole)


@pytest.mark.parametrize(("family", "words"), CUT.items())
def test_body_that_cannot_be_cut_is_refused_by_name(family, words, tmp_path):
    with pytest.raises(ValueError, match=f"freeze_layers.* needs? a body .*{words}"):
        begin(toy.write_encoder(tmp_path, family=family))
    with pytest.raises(ValueError, match="freeze_layers must be 2 at most"):
        begin(toy.write_encoder(tmp_path / "bert"), freeze_layers=3)


def test_body_that_is_nothing_without_a_layer_is_refused_where_all_are_frozen(tmp_path):
    with pytest.raises(ValueError, match="that can go on from the states of a layer, however deberta-v2 cannot: "):
        begin(toy.write_encoder(tmp_path, family="deberta-v2"), freeze_layers=2)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_training_from_states_ends_where_training_from_tokens_ends(family, rows, tmp_path):
    folder = toy.write_encoder(tmp_path / "encoder", family=family)
    predictions, weights = [], []
    for reads_once in (True, False):
        torch.manual_seed(0)
        model = begin(folder, metadata_width=rows.metadata.shape[1], attention_dropout=0.0)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        fit(model, read(model, rows) if reads_once else rows, [FULL], tmp_path / str(reads_once))
        predictions.append(predict(model, rows, COLLATOR, batch_size=4, precision="fp32"))
        weights.append(
            {name: float((weight.detach() - before[name]).abs().max()) for name, weight in model.named_parameters()}
        )
    assert np.abs(predictions[0] - predictions[1]).max() < 5e-3
    for moved in weights:
        still = {name for name, distance in moved.items() if distance == 0}
        assert {name for name in moved if "embeddings" in name or "layer.0." in name or "relative" in name} <= still
        assert all(
            moved[name] > 0 for name in moved if "layer.1." in name and "key.bias" not in name and "k.bias" not in name
        )


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "soft_spearman"])
@pytest.mark.parametrize("reads_once", [True, False])
def test_every_core_has_rows_of_its_own_whether_they_are_tokens_or_states(
    reads_once, loss, rows, tmp_path, monkeypatch
):
    model = begin(toy.write_encoder(tmp_path), metadata_width=rows.metadata.shape[1], loss=loss)
    given = read(model, rows) if reads_once else rows
    forward, sizes = model.forward, []
    monkeypatch.setattr(model, "forward", lambda **batch: sizes.append(len(batch["metadata"])) or forward(**batch))
    fit(model, given, [FULL], tmp_path, batch_size=16)
    assert max(sizes) == 8  # rows of a part, of the 16 of a step


def test_frozen_layers_read_without_dropout_while_those_above_learn(rows, tmp_path):
    model = begin(toy.write_encoder(tmp_path), metadata_width=rows.metadata.shape[1]).train()
    states = {
        name: module.training for name, module in model.body.named_modules() if isinstance(module, torch.nn.Dropout)
    }
    assert any(states.values())
    assert not any(training for name, training in states.items() if "layer.1." not in name)


def test_folds_of_a_run_read_each_table_once(train_toy, toy_recipe, monkeypatch):
    read_tables = []

    def count(model, rows, collator, *, folder, batch_size, precision):
        n_before = len(list(folder.glob("states-*.npy")))
        states = cache_states(model, rows, collator, folder=folder, batch_size=batch_size, precision=precision)
        read_tables.append(len(list(folder.glob("states-*.npy"))) - n_before)
        return states

    monkeypatch.setattr(transformer, "cache_states", count)
    member = toy_recipe.members[0]
    frozen = replace(member, model=replace(member.model, freeze_layers=1))
    run = train_toy(replace(toy_recipe, members=(frozen, *toy_recipe.members[1:])))
    assert sum(read_tables) == 2  # of the training and of the test table
    assert len(read_tables) > 4
    assert np.isfinite(run.submission.iloc[:, 1:].to_numpy()).all()


def test_reading_is_planned_for_each_table_that_was_not_read_before(toy_recipe, toy_folder, tmp_path):
    tables, recipe = read_tables(str(toy_folder)), toy_recipe.members[0]
    recipe = replace(recipe, model=replace(recipe.model, freeze_layers=1))
    member = transformer.TransformerMember(recipe, cache_folder=tmp_path)
    rows = np.arange(len(tables.train))
    speed = member.measure(tables.train, rows=rows, test=tables.test)
    assert speed.read_train > speed.read_test > 0
    member.fit(tables.train, rows=rows)
    speed = member.measure(tables.train, rows=rows, test=tables.test)
    assert speed.read_train == 0
    assert speed.read_test > 0
    member.predict(tables.test)
    assert member.measure(tables.train, rows=rows, test=tables.test).once == 0


def test_models_that_differ_in_dropout_share_what_frozen_layers_read(rows, tmp_path):
    encoder = toy.write_encoder(tmp_path)
    for dropout in (0.0, 0.3):
        options = {"hidden_dropout": dropout, "attention_dropout": dropout, "metadata_width": rows.metadata.shape[1]}
        cache_states(begin(encoder, **options), rows, COLLATOR, folder=tmp_path, batch_size=4, precision="fp32")
    assert len(list(tmp_path.glob("states-*.npy"))) == 1


def test_states_are_left_out_where_they_would_fill_the_disk(rows, tmp_path, monkeypatch, caplog):
    model = begin(toy.write_encoder(tmp_path), metadata_width=rows.metadata.shape[1])
    monkeypatch.setattr("questlib.cache._BUDGET", 100)
    assert cache_states(model, rows, COLLATOR, folder=tmp_path, batch_size=4, precision="fp32") is None
    assert "would take" in caplog.text
