import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from questlib import record
from questlib.clock import Clock
from questlib.comparison import PROFILE, read_run
from questlib.data import question_of
from questlib.folds import train_members
from questlib.marks import list_outputs
from questlib.recipe import LexicalRecipe
from questlib.record import record_run
from questlib.run_folder import read_json
from questlib.schema import ID


@pytest.fixture
def ended(trained, tmp_path, monkeypatch):
    """What is read of a run that was recorded at its end."""
    folder = shutil.copytree(trained.run_folder, tmp_path / "run")
    encoder = trained.recipe.encoders[0]
    namespace = {
        "__annotations__": dict.fromkeys(["data", "out", "cache", "encoder", "members", "seed"]),
        "data": str(tmp_path / "tables"), "out": str(folder), "cache": "~/x", "encoder": encoder, "seed": 42,
        "members": [{"name": "toy", "kind": "transformer", "encoder": encoder}], "other": 3,
    }  # fmt: skip
    monkeypatch.setenv(PROFILE, "few")
    record_run(folder, namespace, tables=trained.tables, clock=Clock(folder))
    list_outputs(folder)
    return folder, read_run(folder)


def test_record_says_what_was_run_and_one_score(ended, trained):
    folder, content = ended
    inputs, scores = read_json(folder / "inputs.json"), read_json(folder / "scores.json")
    name = Path(trained.recipe.encoders[0]).name
    assert content["profile"] == "few"
    assert content["parameters"] == {
        "data": "tables", "encoder": name, "seed": 42,
        "members": [{"name": "toy", "kind": "transformer", "encoder": name}],
    }  # fmt: skip
    assert content["encoders"] == [{"name": name, "sha256": next(iter(inputs["encoder"].values()))}]
    assert content["data"]["sha256"]["train.csv"] == inputs["train.csv"]
    assert content["data"]["n_rows"] == {"train.csv": 20, "test.csv": 6}
    assert content["machine"]["cores"] > 0
    assert content["machine"]["versions"]["torch"]
    assert content["start"].startswith("20")
    assert content["minutes"] > 0
    assert content["folds"] == {"toy": [0, 1], "lexical": [0, 1]}
    score = content["score"]
    assert score["mean"] == scores["nested"]["scores"]["tied"]["mean"]
    assert score["protocol"].startswith("blended and tied, fitted on the other questions, one random row per question")
    assert not score["leaks"]
    assert score["n_questions"] < score["n_rows"] < 20
    assert len(score["rows_sha256"]) == 64


def test_record_counts_a_question_once_where_a_split_cuts_it(train_toy, lexical_recipe):
    trained = train_toy(replace(lexical_recipe, split="random", members=(LexicalRecipe(folds_to_train=3),)))
    ids, tables = trained.tables.train[ID], trained.tables
    assert record._read_score(trained.run_folder, tables)["n_questions"] == len(np.unique(question_of(tables.train)))
    assert record._read_score(trained.run_folder, tables)["n_rows"] == len(ids)


def test_record_holds_no_path_of_this_machine(ended):
    text = (ended[0] / "run.json").read_text()
    assert not [path for path in (str(ended[0].parent), str(Path.home()), sys.prefix) if path in text]


def test_record_of_an_end_is_gone_when_the_run_goes_on(ended, trained, tmp_path, monkeypatch):
    folder, _ = ended

    def look(*_: object, **__: object) -> None:
        assert not (folder / "run.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("questlib.folds.list_tasks", look)
    with pytest.raises(KeyboardInterrupt):
        train_members(
            trained.tables, trained.recipe, run_folder=folder, cache_folder=tmp_path / "cache", clock=Clock(folder)
        )


def test_machine_without_a_list_of_its_processors_has_a_name_all_the_same(monkeypatch):
    monkeypatch.setattr(record, "Path", lambda *_: Path("/nowhere"))
    assert record.describe_machine()["cpu"]
