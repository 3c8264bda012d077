"""A pseudo_label stage learns from rows that the model rated itself, and is stopped and gone on with like others."""

from dataclasses import replace

import numpy as np
import pytest
import toy
from test_training import COLLATOR, FULL, SETTINGS, changed, weights_of

from questlib.batches import JoinedRows, QuestRows
from questlib.members import TransformerMember
from questlib.model.prediction import predict
from questlib.recipe import ModelOptions
from questlib.stage import PseudoLabelStage
from questlib.training import fit_stages
from questlib.training.kinds import pseudo_label
from questlib.training.states import hold_states

RATED = PseudoLabelStage(name="rated", trainable=("*",), epochs=1, learning_rate=1e-3, head_learning_rate=1e-2)


def fit(model, rows, unrated, stages, folder, **options):  # noqa: ANN003
    given = {"stop_rows": None, "settings": SETTINGS} | options
    return fit_stages(
        model, stages, train_rows=rows, unrated_rows=unrated, collator=COLLATOR, folder=folder, cache_folder=folder,
        **given,
    )  # fmt: skip


@pytest.fixture
def unrated(rows):
    return QuestRows(rows.passes, rows.metadata, rows=None)


def test_rows_are_rated_as_the_model_rates_them_when_the_stage_begins(model, rows, unrated, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        pseudo_label, "JoinedRows", lambda *given, targets: told.append(targets) or JoinedRows(*given, targets=targets)
    )
    expected = toy.build_model(toy.write_encoder(tmp_path / "encoder"), rows)
    fit(expected, rows, None, [FULL], tmp_path / "before")
    history = fit(model, rows, unrated, [FULL, RATED], tmp_path / "both")
    np.testing.assert_allclose(told[0], predict(expected, unrated, COLLATOR, batch_size=8, precision="fp32"), atol=1e-6)
    last = {record["stage"]: record["step"] for record in history}
    n_steps = -(-len(rows) // SETTINGS.batch_size)
    assert last == {"full": 2 * n_steps, "rated": 2 * n_steps + -(-2 * len(rows) // SETTINGS.batch_size)}


def test_what_the_model_believes_of_other_rows_is_learned(model, rows, unrated, tmp_path):
    # Rows that are rated at random, and many more that the model itself knows how to rate.
    fit(model, rows, None, [replace(FULL, epochs=20)], tmp_path / "teacher")
    few = np.arange(6)
    targets = np.random.default_rng(0).random((len(few), rows.targets.shape[1]))
    noise = QuestRows(rows.passes, rows.metadata[few], targets=targets, rows=few)
    start = weights_of(model)

    def error_after(given):  # noqa: ANN001, ANN202
        for name, weight in model.named_parameters():
            weight.data.copy_(start[name])
        stages = [replace(FULL, epochs=0.5), replace(RATED, epochs=10)]
        fit(model, noise, given, stages, tmp_path / str(given is None))
        return float(((predict(model, rows, COLLATOR, batch_size=8, precision="fp32") - rows.targets) ** 2).mean())

    assert error_after(unrated) < 0.8 * error_after(None)


@pytest.mark.parametrize("n_steps", [4, 6, 14])
def test_a_training_that_is_interrupted_ends_as_if_it_was_not(rows, unrated, tmp_path, monkeypatch, n_steps):
    encoder = toy.write_encoder(tmp_path / "encoder")

    def train(folder, checkpoints):
        model = toy.build_model(encoder, rows)
        stages = [replace(FULL, epochs=1), RATED]
        fit(model, rows, unrated, stages, folder, stop_rows=rows, checkpoints=checkpoints)
        return model

    toy.assert_goes_on(train, tmp_path, monkeypatch, n_steps=n_steps)


def test_a_stage_of_the_head_alone_reads_both_tables_once(model, rows, unrated, tmp_path):
    before = weights_of(model)
    fit(model, rows, unrated, [FULL, replace(RATED, trainable=("head.*",), learning_rate=0.0)], tmp_path)
    assert changed(before, weights_of(model))
    assert len(list(tmp_path.glob("vectors-*.npy"))) == 1


def test_rows_of_two_tables_are_joined_whether_what_frozen_layers_made_of_them_is_kept_or_not(rows, unrated, tmp_path):
    model = toy.build_model(toy.write_encoder(tmp_path), rows, freeze_layers=1)
    expected = predict(model, rows, COLLATOR, batch_size=8, precision="fp32")
    kept = [hold_states(model, each, COLLATOR, batch_size=8, precision="fp32") for each in (rows, unrated)]
    for pair in (kept, [kept[0], unrated], [rows, kept[1]], [rows, unrated]):
        joined = JoinedRows(*pair, targets=1 - rows.targets)
        np.testing.assert_array_equal(joined.targets, np.concatenate([rows.targets, 1 - rows.targets]))
        found = predict(model, joined, COLLATOR, batch_size=8, precision="fp32")
        np.testing.assert_allclose(found, np.concatenate([expected, expected]), atol=1e-3)


def test_a_member_rates_the_test_in_a_run_and_a_table_that_it_is_given(
    toy_recipe, encoder_folder, toy_frame, toy_test_frame, train_toy, tmp_path, monkeypatch
):
    rated = []
    monkeypatch.setattr(
        pseudo_label, "JoinedRows",
        lambda *given, targets: rated.append(len(targets)) or JoinedRows(*given, targets=targets),
    )  # fmt: skip
    recipe = toy.build_recipe(
        encoder_folder, stages=(toy.STAGE, RATED), stop_share=0.0, folds_to_train=1, model=ModelOptions(freeze_layers=1)
    )
    train_toy(replace(toy_recipe, members=(recipe,)))
    assert rated == [len(toy_test_frame)]
    member = TransformerMember(recipe, cache_folder=tmp_path / "cache")
    speed = member.measure(toy_frame, rows=np.arange(len(toy_frame)), test=toy_test_frame)
    assert speed.epochs[1] > 0
    predicted = member.fit(toy_frame, unrated=toy_frame.iloc[:7]).predict(toy_frame)
    assert rated == [len(toy_test_frame), 7]
    again = TransformerMember(recipe, cache_folder=tmp_path / "cache").fit(toy_frame, unrated=toy_frame.iloc[:7])
    np.testing.assert_allclose(again.predict(toy_frame), predicted, atol=1e-6)


def test_without_rows_to_rate_it_is_refused_before_anything_is_read(encoder_folder, toy_frame, tmp_path):
    recipe = toy.build_recipe(encoder_folder, stages=(toy.STAGE, RATED))
    member = TransformerMember(recipe, cache_folder=tmp_path / "cache")
    with pytest.raises(ValueError, match="must have rows to rate, however unrated is None; give fit a table"):
        member.fit(toy_frame)
    with pytest.raises(ValueError, match=r"frame must hold the columns \['answer'\]"):
        member.fit(toy_frame, unrated=toy_frame.drop(columns="answer"))
    assert not list((tmp_path / "cache").glob("passes-*"))


def test_it_comes_after_a_stage_that_reads_ratings(encoder_folder):
    with pytest.raises(ValueError, match="must come after one that reads ratings, however 'rated' is the first"):
        toy.build_recipe(encoder_folder, stages=(RATED, toy.STAGE))
