import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from questlib.artifacts import read_json
from questlib.clock import Clock
from questlib.data import question_of, read_tables
from questlib.folds import Recipe, train_folds
from questlib.inference import predict_table, predict_transformer
from questlib.metrics import score_predictions
from questlib.schema import TARGETS
from questlib.text import TextLayout
from questlib.training import Stage, TrainingSettings

RECIPE = Recipe(
    layout=TextLayout(layout="pair", max_length=32, title_tokens=8),
    metadata={"n_hosts": 2},
    model={"pooling": "mean"},
    stages=[Stage(name="full", trainable=("*",), epochs=1, learning_rate=1e-3, head_learning_rate=1e-2)],
    settings=TrainingSettings(batch_size=4, precision="fp32"),
    folds=3,
    folds_to_train=2,
    stop_share=0.3,
)


@pytest.fixture
def train(toy_folder, encoder_folder, tmp_path):
    def run(recipe: Recipe, devices=None):
        run_folder = tmp_path / "run"
        tables = read_tables(str(toy_folder))
        predictions = train_folds(
            tables, recipe, encoder_folder=encoder_folder, run_folder=run_folder, cache_folder=tmp_path / "cache",
            clock=Clock(run_folder), devices=devices,
        )  # fmt: skip
        return tables, predictions, run_folder

    return run


def test_folds_predict_the_rows_they_never_saw_and_the_run_folder_alone_predicts_again(train, tmp_path):
    tables, predictions, run_folder = train(RECIPE)
    questions = question_of(tables.train)
    for fold in range(3):
        assert not set(questions[predictions.fold_of_row == fold]) & set(questions[predictions.fold_of_row != fold])
    known = ~np.isnan(predictions.out_of_fold).any(axis=1)
    assert np.array_equal(known, predictions.fold_of_row < RECIPE.folds_to_train)
    again = predict_transformer(run_folder, tables.test, cache_folder=tmp_path / "elsewhere")
    np.testing.assert_allclose(again, predictions.test, atol=1e-6)
    first = predict_transformer(run_folder, tables.train, cache_folder=tmp_path / "elsewhere")
    assert first.shape == (len(tables.train), 30)


def test_test_predictions_are_averaged_over_folds(train, tmp_path):
    tables, predictions, run_folder = train(RECIPE)
    alone = []
    for fold in range(2):
        other = run_folder / f"fold-{1 - fold}"
        hidden = other.rename(tmp_path / "hidden")
        alone.append(predict_transformer(run_folder, tables.test, cache_folder=tmp_path / "cache"))
        hidden.rename(other)
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(predictions.test, np.mean(alone, axis=0), atol=1e-6)


def test_encoders_are_fitted_on_the_training_fold_only(train):
    tables, predictions, run_folder = train(replace(RECIPE, metadata={"n_hosts": 100}))
    for fold in range(2):
        state = json.loads((run_folder / f"fold-{fold}" / "metadata.json").read_text())["state"]
        outside = set(tables.train["host"][predictions.fold_of_row != fold])
        assert set(state["hosts_"]) <= outside


def test_run_folder_holds_config_history_predictions_and_scores(train):
    tables, predictions, run_folder = train(RECIPE)
    assert read_json(run_folder / "config.json")["layout"]["max_length"] == 32
    history = read_json(run_folder / "history.json")
    assert {record["fold"] for record in history} == {0, 1}
    out_of_fold = pd.read_csv(run_folder / "out_of_fold.csv")
    known = predictions.fold_of_row < 2
    assert out_of_fold["qa_id"].tolist() == tables.train["qa_id"][known].tolist()
    np.testing.assert_allclose(out_of_fold[list(TARGETS)], predictions.out_of_fold[known])
    scores = read_json(run_folder / "scores.json")
    expected = score_predictions(
        predictions.out_of_fold[known],
        tables.train.loc[known, list(TARGETS)].to_numpy(),
        questions=question_of(tables.train)[known],
    )
    assert scores["raw"]["one_row_per_question"] == expected
    assert [fold["fold"] for fold in scores["raw"]["by_fold"]] == [0, 1]
    assert not scores["leaks"]
    steps = [step["step"] for step in read_json(run_folder / "timeline.json")["steps"]]
    assert steps == ["tokenise", "fold 0", "fold 1"]


def test_random_split_says_that_it_leaks(train, caplog):
    with caplog.at_level(logging.WARNING):
        _, _, run_folder = train(replace(RECIPE, split="random", folds_to_train=1))
    assert "split=random leaks" in caplog.text
    scores = read_json(run_folder / "scores.json")
    assert scores["leaks"]
    assert "LEAKS" in scores["protocol"]


def test_without_a_stop_share_every_row_of_the_fold_is_learned_from(train):
    _, _, run_folder = train(replace(RECIPE, stop_share=0, folds_to_train=1))
    assert not [record for record in read_json(run_folder / "history.json") if "eval_spearman" in record]


def test_passes_longer_than_the_encoder_reads_are_refused(train):
    layout = replace(RECIPE.layout, max_length=81)
    with pytest.raises(ValueError, match=r"max_length must not exceed what the encoder reads.*81.*limit=80"):
        train(replace(RECIPE, layout=layout))


def test_recipe_refuses_more_folds_to_train_than_there_are():
    with pytest.raises(ValueError, match="folds_to_train must lie in"):
        replace(RECIPE, folds_to_train=4)


def test_prediction_needs_a_trained_fold(tmp_path, toy_frame):
    with pytest.raises(FileNotFoundError, match="must hold a trained fold"):
        predict_transformer(tmp_path, toy_frame, cache_folder=tmp_path)
    (tmp_path / "fold-0").mkdir()
    (tmp_path / "fold-0" / "metadata.json").touch()
    with pytest.raises(FileNotFoundError, match=r"must hold ensemble\.json"):
        predict_table(tmp_path, toy_frame, cache_folder=tmp_path)
