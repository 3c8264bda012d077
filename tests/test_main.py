import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from questlib.__main__ import main
from questlib.cache import CACHE
from questlib.metrics import score_predictions
from questlib.schema import ID, QUESTION, RARE_TARGET, TARGETS


@pytest.fixture
def predicted(toy_frame: pd.DataFrame) -> pd.DataFrame:
    values = np.random.default_rng(5).random((len(toy_frame), len(TARGETS))) * 0.5 + 0.5 * toy_frame[list(TARGETS)]
    return values.assign(**{ID: toy_frame[ID]})[[ID, *TARGETS]]


@pytest.fixture
def paths(tmp_path: Path, toy_frame: pd.DataFrame, predicted: pd.DataFrame) -> tuple[str, str]:
    """Predictions and a truth of ids, urls and ratings only."""
    predictions, truth = tmp_path / "predictions.csv", tmp_path / "truth.csv"
    predicted.to_csv(predictions, index=False)
    toy_frame[[ID, QUESTION, *TARGETS]].to_csv(truth, index=False)
    return str(predictions), str(truth)


def score_as_json(capsys: pytest.CaptureFixture, *arguments: str) -> dict:
    assert main(["score", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_score_prints_every_target_and_both_means(
    paths: tuple[str, str], predicted: pd.DataFrame, toy_frame: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    assert main(["score", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = score_predictions(predicted[list(TARGETS)], toy_frame[list(TARGETS)])
    shown = {line[:40].strip(): float(line[40:]) for line in lines[:-1]}
    means = {"mean of 30": expected["mean"], f"mean without {RARE_TARGET}": expected["mean_without_rare"]}
    assert shown == pytest.approx(expected["by_target"] | means, abs=5e-5)
    assert lines[-1] == "20 of 20 rows predicted, 20 scored: all rows at once"


def test_score_of_one_row_per_question_needs_no_text(
    paths: tuple[str, str], predicted: pd.DataFrame, toy_frame: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    found = score_as_json(capsys, *paths, "--one-row-per-question", "--draws", "7", "--seed", "3")
    assert (found.pop("n_predicted"), found.pop("n_truth")) == (20, 20)
    assert found == score_predictions(
        predicted[list(TARGETS)], toy_frame[list(TARGETS)], questions=toy_frame[QUESTION].tolist(), draws=7, seed=3
    )
    assert (found["n_rows"], found["n_draws"]) == (14, 7)
    assert found != score_as_json(capsys, *paths)
    assert main(["score", *paths, "--one-row-per-question"]) == 0
    assert capsys.readouterr().out.endswith("20 of 20 rows predicted, 14 scored: one row per question, 20 draws\n")


def test_score_joins_by_id_not_by_row(
    paths: tuple[str, str], predicted: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    before = score_as_json(capsys, *paths)["by_target"]
    predicted.sample(frac=1, random_state=1)[[*reversed(TARGETS), ID]].to_csv(paths[0], index=False)
    assert score_as_json(capsys, *paths)["by_target"] == pytest.approx(before, abs=1e-12)


def test_score_of_a_part_says_how_much_it_is(
    paths: tuple[str, str], predicted: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    predicted.iloc[:9].assign(fold=1).to_csv(paths[0], index=False)  # as out_of_fold.csv of one fold
    assert main(["score", *paths]) == 0
    assert capsys.readouterr().out.endswith("9 of 20 rows predicted, 9 scored: all rows at once\n")


def test_score_shows_a_constant_target_as_undefined(
    paths: tuple[str, str], toy_frame: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    toy_frame.assign(**{RARE_TARGET: 0.0}).to_csv(paths[1], index=False)
    assert main(["score", *paths]) == 0
    assert f"{RARE_TARGET:40} undefined" in capsys.readouterr().out.splitlines()
    assert score_as_json(capsys, *paths)["by_target"][RARE_TARGET] is None


def test_score_takes_title_and_body_for_a_question_without_url(
    paths: tuple[str, str], toy_frame: pd.DataFrame, capsys: pytest.CaptureFixture
) -> None:
    toy_frame.loc[[0, 1, 2], QUESTION] = None
    toy_frame.to_csv(paths[1], index=False)
    assert score_as_json(capsys, *paths, "--one-row-per-question")["n_rows"] == 14


def test_check_accepts_a_valid_submission(toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    sample = pd.read_csv(toy_folder / "sample_submission.csv")
    sample[list(TARGETS)] = np.random.default_rng(0).random((6, 30))
    path = toy_folder / "submission.csv"
    sample.to_csv(path, index=False)
    assert main(["check", str(path), str(toy_folder / "sample_submission.csv")]) == 0
    assert capsys.readouterr().out == f"{path} is valid: 6 rows, 30 targets in [0, 1], none constant\n"


def test_predict_tells_in_words_that_what_was_changed_on_purpose_is_none(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ensemble.json").write_text("{}")
    given = ["predict", tmp_path / "run", toy_folder / "test.csv", tmp_path / "out.csv", "--changed-on-purpose"]
    assert main([*map(str, given), "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith(
        "run must hold what can be predicted with, however it was changed: KeyError: 'folds'; copy it anew\n"
    )


def test_check_reads_a_table_out_of_a_pipe(toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    sample = pd.read_csv(toy_folder / "sample_submission.csv")
    sample[list(TARGETS)] = np.random.default_rng(0).random((6, 30))
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        sample.to_csv(stream, index=False)
    assert main(["check", f"/dev/fd/{reading}", str(toy_folder / "sample_submission.csv")]) == 0
    assert " is valid: 6 rows" in capsys.readouterr().out
    os.close(reading)


def test_name_that_the_terminal_does_not_write_is_told_in_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("questlib.page.write_page", lambda folder: folder / "report.html")
    assert main(["report", "r\u00fan"]) == 0
    terminal.flush()
    assert terminal.buffer.getvalue() == b"r\\xfan/report.html\n"


def test_a_home_is_meant_by_its_sign_where_no_shell_has_said_so(
    paths: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["score", *(f"~/{Path(each).name}" for each in paths)]) == 0
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "empty"), "~/empty"]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/empty" in said
    assert "~" not in said


def test_run_reads_values_as_a_profile_has_them_or_as_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called = {}
    monkeypatch.setattr(
        "questlib.run.run_notebook", lambda notebook, **options: called.update(options, notebook=notebook)
    )
    values = {
        "encoder": ("bert", "bert"), "folds": ("3", 3), "share": ("1e-5", 1e-5), "use": ("false", False),
        "word": ("False", False), "weights": ('{"a": 2}', {"a": 2}), "stages.full.epochs": ("2", 2),
        "open": ("[1", "[1"),
        "threshold": ("NaN", "NaN"), "limit": ("Infinity", "Infinity"), "empty": ("", ""), "below": ("-1", -1),
    }  # fmt: skip
    given = [part for name, (text, _) in values.items() for part in ("-p", name, text)]
    assert main(["run", "--data", "folder", "--out", str(tmp_path), "--profile", "cpu", *given]) == 0
    assert called == {
        "notebook": Path("notebooks/quest.ipynb"),
        "data": "folder",
        "out": tmp_path,
        "profile": "cpu",
        "overrides": {name: value for name, (_, value) in values.items()},
    }


@pytest.mark.parametrize("options", [[], ["--cache", "there"]])
def test_predict_writes_what_the_run_folder_says_of_any_table_for_a_user_without_a_home_too(
    options: list[str], monkeypatch: pytest.MonkeyPatch, toy_folder: Path, toy_test_frame: pd.DataFrame
) -> None:
    predictions = np.random.default_rng(0).random((6, 30))
    monkeypatch.setattr("os.path.expanduser", lambda path: path)

    def predict(run_folder: Path, frame: pd.DataFrame, *, cache_folder: str, changed_on_purpose: bool) -> np.ndarray:
        assert not changed_on_purpose
        assert (run_folder, cache_folder) == (toy_folder / "run", options[-1] if options else str(CACHE))
        assert frame[ID].tolist() == toy_test_frame[ID].astype(str).tolist()
        return predictions

    monkeypatch.setattr("questlib.inference.predict_table", predict)
    out = toy_folder / "predictions.csv"
    arguments = [str(toy_folder / "run"), str(toy_folder / "test.csv"), str(out)]
    assert main(["predict", *arguments, *options]) == 0
    written = pd.read_csv(out, float_precision="round_trip")
    assert written[ID].tolist() == toy_test_frame[ID].tolist()
    np.testing.assert_array_equal(written[list(TARGETS)].to_numpy(), predictions)


@pytest.mark.parametrize("arguments", [[], ["scoer", "a", "b"], ["score", "a"], ["run", "-p", "folds"]])
def test_command_line_that_is_incomplete_is_refused_with_its_usage(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: python -m questlib" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_told_as_such(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    done = subprocess.run([sys.executable, "-m", "questlib", "check", name, name], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "names must be UTF-8, however: " in done.stderr


@pytest.mark.parametrize("package", ["nbformat", "papermill"])
def test_run_without_the_workbench_says_what_to_install(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from questlib.__main__ import main; sys.exit(main(['run']))"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"questlib run: the packages that execute notebooks must be installed, however {package} is not; "
        "pip install 'questlib[workbench]'\n"
    )
    assert not list(tmp_path.iterdir())
