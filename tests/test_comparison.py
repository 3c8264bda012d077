import json
from pathlib import Path

import pandas as pd
import pytest

from questlib.__main__ import main
from questlib.comparison import compare_runs, read_run
from questlib.marks import list_outputs
from questlib.run_folder import write_json

STAGE = {"name": "full", "epochs": 2, "learning_rate": 1e-5}


@pytest.fixture
def write_run(tmp_path: Path):  # noqa: ANN201
    """Write what a run leaves at its end, with a score and some parameters."""

    def write(name: str, score: float, *, leaks: bool = False, train: str = "a" * 64, **parameters: object) -> Path:
        content = {
            "profile": "plain",
            "parameters": {"data": name, "folds": 5, "stages": [STAGE]} | parameters,
            "encoders": [{"name": "bert", "sha256": "b" * 64}],
            "data": {"name": "tables", "sha256": {"train.csv": train}},
            "questlib": {"version": "0.1.0", "commit": None},
            "machine": {"cpu": "a processor", "cores": 2, "gpus": []},
            "minutes": 12.34,
            "score": {
                "mean": score + 0.01, "mean_without_rare": score, "protocol": "nested", "leaks": leaks, "n_rows": 9,
                "n_questions": 7,
            },
        }  # fmt: skip
        write_json(tmp_path / name / "run.json", content)
        list_outputs(tmp_path / name)
        return tmp_path / name

    return write


def test_runs_are_a_table_of_what_differs_with_the_best_first(write_run) -> None:
    faster = STAGE | {"learning_rate": 2e-5}
    folders = [
        write_run("one", 0.3),
        write_run("two", 0.4, stages=[faster]),
        write_run("three", 0.2, target_weights={}),
    ]
    table, lines = compare_runs(folders)
    assert table["run"].tolist() == ["two", "one", "three"]
    assert table.columns.tolist() == [
        "run", "mean of 29", "mean of 30", "minutes", "profile", "stages.full.learning_rate", "target_weights",
    ]  # fmt: skip
    assert table["stages.full.learning_rate"].tolist() == [2e-5, 1e-5, 1e-5]
    assert not [name for name in table if name.endswith("name")]
    assert table["target_weights"].tolist() == ["-", "-", "{}"]
    assert lines[0] == "9 rows of 7 questions of tables (train.csv aaaaaaaa), nested"


def test_every_run_has_a_row_of_its_own_whatever_folders_are_called(write_run, monkeypatch) -> None:
    monkeypatch.chdir(write_run("one", 0.3).parent)
    write_run("sub/one", 0.2)
    table, _ = compare_runs([Path("sub/one"), Path("one"), Path("one/")])
    assert table["run"].tolist() == ["one", "sub/one"]
    monkeypatch.chdir("one")
    assert compare_runs([Path()])[0]["run"].tolist() == ["one"]


def test_runs_that_were_scored_otherwise_are_told_apart(write_run) -> None:
    folders = [write_run("one", 0.3), write_run("leaking", 0.6, leaks=True), write_run("two", 0.4, train="c" * 64)]
    table, lines = compare_runs(folders)
    assert dict(zip(table["run"], table["scored on"], strict=True)) == {"one": "A", "leaking": "B", "two": "C"}
    assert lines[1].startswith("B: LEAKS: 9 rows")
    assert "train.csv cccccccc" in lines[2]


def test_runs_differ_by_each_of_two_encoders_in_folders_of_one_name(write_run) -> None:
    folders = [write_run(name, 0.3) for name in ("one", "two")]
    for folder, first in zip(folders, "cd", strict=True):
        encoders = [{"name": "model", "sha256": digit * 64} for digit in (first, "e")]
        write_json(folder / "run.json", read_run(folder) | {"encoders": encoders})
        list_outputs(folder)
    table, _ = compare_runs(folders)
    assert table["weights of model"].tolist() == ["cccccccc eeeeeeee", "dddddddd eeeeeeee"]


def test_runs_that_were_scored_on_as_many_other_rows_are_told_apart(write_run) -> None:
    folders = [write_run(name, 0.3) for name in ("one", "two")]
    for folder, digest in zip(folders, ("d" * 64, "e" * 64), strict=True):
        content = read_run(folder)
        content["score"]["rows_sha256"] = digest
        write_json(folder / "run.json", content)
        list_outputs(folder)
    table, lines = compare_runs(folders)
    assert table["scored on"].tolist() == ["A", "B"]
    assert lines[0].startswith("A: 9 rows of 7 questions (dddddddd) of tables")


def test_folders_without_a_finished_run_are_named_in_a_line_each(write_run, tmp_path: Path) -> None:
    changed = write_run("changed", 0.3)
    (changed / "run.json").write_text((changed / "run.json").read_text().replace("0.3", "0.9"))
    (tmp_path / "begun").mkdir()
    broken_off = write_run("broken", 0.1)
    (broken_off / "outputs.json").unlink()
    _, lines = compare_runs([write_run("one", 0.3), changed, tmp_path / "begun", broken_off, tmp_path / "nowhere"])
    assert lines[2:] == [
        f"left out: {changed} must hold what its run wrote, however missing or changed: ['run.json']; copy it anew",
        f"left out: {tmp_path / 'begun'}: no run.json, it is unfinished, or of an older questlib",
        f"left out: {broken_off}: no outputs.json, the run did not come to its end",
        f"left out: {tmp_path / 'nowhere'}: no run.json, it is no folder",
    ]
    with pytest.raises(ValueError, match="there must be finished runs, however there are none; left out: .*begun: no"):
        compare_runs([tmp_path / "begun"])


def test_command_prints_the_table_and_writes_it_as_csv(write_run, tmp_path: Path, capsys) -> None:
    folders = [write_run("one", 0.3), write_run("two", 0.4, folds=3, learning_rate=1e-5)]
    assert main(["compare", *map(str, folders), "--csv", str(tmp_path / "runs.csv")]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == "run mean of 29 mean of 30 minutes profile folds learning_rate".split()
    assert first.split() == ["two", "0.4000", "0.4100", "12.3", "plain", "3", "1e-05"]
    assert pd.read_csv(tmp_path / "runs.csv")["folds"].tolist() == [3, 5]


def test_run_is_read_as_it_was_written(write_run) -> None:
    folder = write_run("one", 0.3)
    assert read_run(folder) == json.loads((folder / "run.json").read_text())


def test_command_writes_no_table_over_what_a_run_left(write_run, capsys) -> None:
    folder = write_run("one", 0.3)
    (folder / "submission.csv").write_text("precious")
    assert main(["compare", str(folder), "--csv", str(folder / "submission.csv")]) == 1
    assert "submission.csv must not be what is read, however " in capsys.readouterr().err
    assert (folder / "submission.csv").read_text() == "precious"
