import json
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from questlib.artifacts import read_json, write_json, write_predictions, written_whole
from questlib.schema import ID, TARGETS


def test_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across disks would not be atomic
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def write_half(path: Path, error: type[BaseException]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_file_stays_as_it_was_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "scores.json"
    path.write_text("before")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_and_holds_numpy_numbers(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    content = {"rate": np.float32(0.5), "folds": np.int64(5), "use": np.bool_(True), "word": "naïve ☃", "none": None}
    write_json(path, content)
    assert read_json(path) == {"rate": 0.5, "folds": 5, "use": True, "word": "naïve ☃", "none": None}
    assert [type(value) for value in read_json(path).values()] == [float, int, bool, str, type(None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_json_without_a_standard_form_is_refused_and_nothing_is_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"mean": value})
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_other_types_by_value(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"must hold JSON types only, however: \{1, 2\}"):
        write_json(tmp_path / "scores.json", {"rows": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_a_table_in_submission_order(tmp_path: Path) -> None:
    predictions = np.random.default_rng(0).random((3, 30))
    write_predictions(tmp_path / "p.csv", predictions, ids=[7, 5, 9])
    frame = pd.read_csv(tmp_path / "p.csv", float_precision="round_trip")
    assert frame.columns.tolist() == [ID, *TARGETS]
    assert frame[ID].tolist() == [7, 5, 9]
    np.testing.assert_array_equal(frame[list(TARGETS)].to_numpy(), predictions)


def test_predictions_keep_the_fold_beside_the_id(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", np.zeros((2, 30)), ids=["a", "b"], folds=[1, 0])
    frame = pd.read_csv(tmp_path / "p.csv")
    assert frame.columns.tolist() == [ID, "fold", *TARGETS]
    assert frame["fold"].tolist() == [1, 0]


def test_predictions_take_ids_by_position_not_by_index(tmp_path: Path) -> None:
    chosen = pd.Series([11, 12, 13, 14], index=[3, 2, 1, 0])[[0, 2, 3]]
    write_predictions(tmp_path / "p.csv", np.zeros((3, 30)), ids=chosen, folds=chosen)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert frame[ID].tolist() == frame["fold"].tolist() == [14, 12, 11]


def test_predictions_of_another_width_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="30"):
        write_predictions(tmp_path / "p.csv", np.zeros((2, 29)), ids=[1, 2])
    assert list(tmp_path.iterdir()) == []


def test_json_is_readable_outside_python(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mean": 0.25})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"mean": 0.25}
