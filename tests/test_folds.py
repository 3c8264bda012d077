import gc
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy
from conftest import train_tables, write_tables

from questlib.clock import Clock
from questlib.data import question_of
from questlib.inference import predict_table
from questlib.members import load_member
from questlib.members.lexical import LexicalMember
from questlib.members.transformer import TransformerMember
from questlib.metrics import score_predictions
from questlib.model import QuestModel
from questlib.predictions import read_member
from questlib.recipe import LexicalRecipe, ModelOptions, Recipe, TextLayout
from questlib.run_folder import fold_folder, read_json
from questlib.schema import ID, TARGETS
from questlib.stage import LoraStage
from questlib.submission import check_submission

ALL_LORA = LoraStage(name="all", trainable=("head.*",), epochs=1, learning_rate=1e-3, head_learning_rate=1e-2)


def folders_of(run_folder, member, folds=(0, 1)):
    return [fold_folder(run_folder, member, fold) for fold in folds]


def test_folds_are_of_whole_questions_and_the_run_folder_alone_predicts_again(trained, tmp_path):
    tables, run_folder, submission = trained.tables, trained.run_folder, trained.submission
    questions, fold_of_row = question_of(tables.train), trained.fold_of_row
    for fold in range(3):
        assert not set(questions[fold_of_row == fold]) & set(questions[fold_of_row != fold])
    for member in ("toy", "lexical"):
        for fold, folder in enumerate(folders_of(run_folder, member)):
            out_of_fold = pd.read_csv(folder / "out_of_fold.csv", dtype={"qa_id": str})
            assert out_of_fold["qa_id"].tolist() == tables.train["qa_id"][fold_of_row == fold].tolist()
            assert set(out_of_fold["fold"]) == {fold}
    again = predict_table(run_folder, tables.test, cache_folder=tmp_path / "elsewhere")
    assert np.array_equal(again, submission[list(TARGETS)].to_numpy())
    assert predict_table(run_folder, tables.train, cache_folder=tmp_path / "elsewhere").shape == (20, 30)


def test_a_fold_is_predicted_by_what_never_saw_it(trained_lexical):
    frame, fold, [recipe] = trained_lexical.tables.train, trained_lexical.fold_of_row, trained_lexical.recipe.members
    alone = LexicalMember(recipe).fit(frame[fold != 0]).predict(frame[fold == 0])
    written = pd.read_csv(fold_folder(trained_lexical.run_folder, recipe.name, 0) / "out_of_fold.csv")
    np.testing.assert_allclose(written[list(TARGETS)], alone, atol=1e-6)


def test_every_member_sees_the_same_folds(trained):
    for fold in (0, 1):
        folders = [fold_folder(trained.run_folder, member, fold) for member in ("toy", "lexical")]
        first, second = (pd.read_csv(folder / "out_of_fold.csv")["qa_id"].tolist() for folder in folders)
        assert first == second


def test_test_predictions_are_averaged_over_folds(trained, tmp_path):
    folders = folders_of(trained.run_folder, "toy")
    first, second = (load_member(each, cache_folder=tmp_path).predict(trained.tables.test) for each in folders)
    assert not np.allclose(first, second)
    both = read_member(trained.run_folder, "toy", folds=[0, 1], tables=trained.tables).test
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-12)
    kept = [pd.read_csv(each / "test_predictions.csv", float_precision="round_trip") for each in folders]
    assert np.array_equal(kept[0][list(TARGETS)], first)
    assert np.array_equal(kept[1][list(TARGETS)], second)


def test_prediction_has_every_first_fold_whatever_the_limit_and_says_what_was_left_out(trained, tmp_path):
    clock = Clock(tmp_path, limit_minutes=1e-6)
    predicted = predict_table(trained.run_folder, trained.tables.test, cache_folder=tmp_path, clock=clock)
    assert np.isfinite(predicted).all()
    assert not np.array_equal(predicted, trained.submission[list(TARGETS)].to_numpy())
    [note] = read_json(tmp_path / "timeline.json")["notes"]
    assert note["note"] == "left out, for want of time: toy, fold-1, lexical, fold-1"


def test_run_folder_holds_recipe_members_ensemble_and_scores(trained):
    run_folder = trained.run_folder
    assert {path.name for path in run_folder.iterdir()} == {
        "recipe.json", "inputs.json", "members", "done.json", "ensemble.json", "blended_out_of_fold.csv",
        "tied_out_of_fold.csv", "scores.json", "timeline.json", "submission.csv", "logs",
    }  # fmt: skip
    assert Recipe.from_dict(read_json(run_folder / "recipe.json")) == trained.recipe
    common = {"recipe.json", "out_of_fold.csv", "test_predictions.csv", "history.json", "done.json"}
    own = {
        "toy": {"config.json", "model.safetensors", "transformer.json", "tokenizer"},
        "lexical": {"lexical.json", "lexical.safetensors"},
    }
    for member, names in own.items():
        for folder in folders_of(run_folder, member):
            assert {path.name for path in folder.iterdir()} == common | names
            assert set(read_json(folder / "done.json")["files"]) >= (common | names) - {"done.json", "tokenizer"}
    ensemble = read_json(run_folder / "ensemble.json")
    assert ensemble["members"] == ["toy", "lexical"]
    assert ensemble["folds"] == {"toy": [0, 1], "lexical": [0, 1]}
    assert read_json(folders_of(run_folder, "toy")[0] / "history.json", of=list)
    steps = [step["step"] for step in read_json(run_folder / "timeline.json")["steps"]]
    assert steps == [
        "lexical, fold 0", "submission of lexical 1", "lexical, fold 1", "submission of lexical 2",
        "toy, fold 0", "submission of toy 1, lexical 2", "toy, fold 1", "submission of toy 2, lexical 2",
    ]  # fmt: skip


def test_scores_keep_how_the_ratings_of_their_rows_spread(trained):
    ratings = read_json(trained.run_folder / "scores.json")["ratings"]
    known = trained.tables.train[np.isin(trained.fold_of_row, (0, 1))]
    assert list(ratings) == list(TARGETS)
    for name, shares in ratings.items():
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["0"] == pytest.approx((known[name] == 0).mean())


def test_scores_of_every_member_are_those_of_its_files(trained):
    scores = read_json(trained.run_folder / "scores.json")
    assert not scores["leaks"]
    truth = trained.tables.train.set_index("qa_id")
    for member in ("toy", "lexical"):
        predicted = pd.concat(
            pd.read_csv(each / "out_of_fold.csv", float_precision="round_trip", dtype={"qa_id": str})
            for each in folders_of(trained.run_folder, member)
        ).set_index("qa_id")
        rows = truth.loc[[each for each in truth.index if each in predicted.index]]
        expected = score_predictions(
            predicted.loc[rows.index, list(TARGETS)].to_numpy(), rows[list(TARGETS)].to_numpy(),
            questions=question_of(rows),
        )  # fmt: skip
        assert scores["raw"][member]["one_row_per_question"] == expected
        assert [fold["fold"] for fold in scores["raw"][member]["by_fold"]] == [0, 1]
    assert list(scores["nested"]["scores"]) == ["toy", "lexical", "blended", "tied"]


def test_random_split_says_that_it_leaks(train_toy, lexical_recipe, caplog):
    with caplog.at_level(logging.WARNING):
        trained = train_toy(replace(lexical_recipe, split="random"))
    assert "split=random leaks" in caplog.text
    scores = read_json(trained.run_folder / "scores.json")
    assert scores["leaks"]
    assert "LEAKS" in scores["protocol"]
    assert scores["nested"]["protocol"].startswith("fitted on the other rows, ")


def test_members_may_be_trained_on_different_numbers_of_folds(train_toy, lexical_recipe, tmp_path):
    members = (LexicalRecipe(name="all", folds_to_train=3), LexicalRecipe(name="few", folds_to_train=2, alpha=3.0))
    trained = train_toy(replace(lexical_recipe, members=members))
    scores = read_json(trained.run_folder / "scores.json")
    assert scores["raw"]["all"]["all_rows"]["n_rows"] == 20
    n_common = int((trained.fold_of_row < 2).sum())
    assert scores["raw"]["few"]["all_rows"]["n_rows"] == n_common
    blended = pd.read_csv(trained.run_folder / "blended_out_of_fold.csv")
    assert len(blended) == n_common
    again = predict_table(trained.run_folder, trained.tables.test, cache_folder=tmp_path)
    assert np.array_equal(again, trained.submission[list(TARGETS)].to_numpy())


def test_a_fold_that_fails_leaves_nothing_of_itself_and_all_that_was_finished(train_toy, lexical_recipe, monkeypatch):
    save, calls = LexicalMember._save, []

    def fail(self, folder):
        save(self, folder)
        calls.append(folder)
        if len(calls) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(LexicalMember, "_save", fail)
    with pytest.raises(OSError, match="no space left"):
        train_toy(lexical_recipe)
    assert [path.name for path in calls[0].parent.iterdir()] == ["fold-0"]
    assert (calls[0].parent / "fold-0" / "done.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": TextLayout(max_length=81)}, r"max_length of member 'late' must not exceed .*81.*limit=80"),
        (
            {"stages": (replace(toy.STAGE, trainable=("head.no*",)),)},
            r"must match a parameter, however: 'head\.no\*'",
        ),
        ({"stages": (toy.STAGE, replace(toy.STAGE, name="no", trainable=()))}, "stage 'no' would train nothing"),
        (
            {"stages": (replace(toy.STAGE, trainable=("body.embed*",)),), "model": ModelOptions(freeze_layers=1)},
            r"would train nothing: stage.trainable=\('body.embed\*',\), freeze_layers=1; name more, or freeze fewer",
        ),
        ({"stages": (ALL_LORA,), "model": ModelOptions(freeze_layers=2)}, "stage 'all' would train nothing"),
        ({"model": ModelOptions(n_mixed_layers=9)}, "n_mixed_layers must be 3 at most"),
        ({"encoder": "./absent"}, "the encoder folder './absent' does not exist"),
    ],
)
def test_what_a_late_member_cannot_do_is_refused_before_the_first_is_trained(
    changes, message, train_toy, toy_recipe, tmp_path
):
    late = replace(toy_recipe.members[0], name="late", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_toy(replace(toy_recipe, members=(*toy_recipe.members, late)))
    assert not (tmp_path / "run" / "members").exists()


# What was finished is what is read


def test_prediction_needs_a_finished_run(tmp_path, toy_frame):
    with pytest.raises(FileNotFoundError, match=r"must hold ensemble\.json"):
        predict_table(tmp_path, toy_frame, cache_folder=tmp_path)


def files_read(run_folder: Path) -> list[Path]:
    folds = [path for path in (run_folder / "members").rglob("*") if path.is_file()]
    return [run_folder / "ensemble.json", run_folder / "done.json", *folds]


def test_any_changed_byte_of_what_is_read_is_refused_by_file_name(trained_lexical, tmp_path):
    generator = np.random.default_rng(0)
    paths = files_read(trained_lexical.run_folder)
    assert len(paths) >= 12
    for path in paths:
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1, *generator.integers(len(whole), size=20).tolist()}:
            content = bytearray(whole)
            content[place] ^= 1
            path.write_bytes(bytes(content))
            with pytest.raises(ValueError, match=f"{path.name}|must hold what its run wrote") as refused:
                predict_table(trained_lexical.run_folder, trained_lexical.tables.test, cache_folder=tmp_path)
            told = str(refused.value)
            assert path.name in told or path.name == "done.json"
        path.write_bytes(whole)
    predict_table(trained_lexical.run_folder, trained_lexical.tables.test, cache_folder=tmp_path)


def test_a_missing_or_an_added_file_is_refused(trained_lexical, tmp_path):
    for path in files_read(trained_lexical.run_folder):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=path.name.replace(".", r"\.")):
            predict_table(trained_lexical.run_folder, trained_lexical.tables.test, cache_folder=tmp_path)
        path.write_bytes(whole)
    (fold_folder(trained_lexical.run_folder, "lexical", 0) / "added_tokens.json").write_text("{}")
    with pytest.raises(ValueError, match=r"however it holds more: \['added_tokens.json'\]"):
        predict_table(trained_lexical.run_folder, trained_lexical.tables.test, cache_folder=tmp_path)


def test_what_was_changed_on_purpose_is_read_on_request(trained_lexical, tmp_path):
    path = trained_lexical.run_folder / "ensemble.json"
    state = read_json(path)
    state["ties"]["intervals"] = [[] for _ in TARGETS]
    path.write_text(json.dumps(state))
    table = trained_lexical.tables.test
    changed = predict_table(trained_lexical.run_folder, table, cache_folder=tmp_path, changed_on_purpose=True)
    assert all(len(np.unique(column)) == len(table) for column in changed.T)


@pytest.mark.parametrize(("n_rows", "folds"), [(20, 5), (12, 2), (12, 3)])
def test_slice_of_the_data_with_constant_targets_is_trained_to_a_submission(tmp_path, toy_frame, n_rows, folds):
    folder = write_tables(tmp_path / "toy")
    frame = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False).head(n_rows)
    frame[TARGETS[0]], frame[TARGETS[29]] = "0.0", "1.0"
    frame.to_csv(folder / "train.csv", index=False)
    recipe = Recipe(members=(LexicalRecipe(folds_to_train=folds),), folds=folds)
    run = train_tables(folder, tmp_path, recipe)
    assert run.submission[list(TARGETS)].nunique().min() > 1
    assert np.ptp(run.submission[TARGETS[0]]) < 1e-5
    check_submission(run.submission, columns=list(run.submission.columns), ids=run.tables.test[ID])


def test_a_task_begins_with_no_model_of_the_last_in_memory(train_toy, toy_recipe, monkeypatch):
    alive, begin = [], TransformerMember._prepare

    def count(self, *arguments, **options):  # noqa: ANN002, ANN003
        alive.append(sum(isinstance(each, QuestModel) for each in gc.get_objects()))
        return begin(self, *arguments, **options)

    monkeypatch.setattr(TransformerMember, "_prepare", count)
    gc.collect()
    gc.disable()  # Python's own time for it hangs on what else was made
    try:
        train_toy(replace(toy_recipe, members=toy_recipe.members[:1]))
    finally:
        gc.enable()
    assert len(alive) > 1
    assert not any(alive)
