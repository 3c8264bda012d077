from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from questlib.predictions import read_member, write_predictions
from questlib.run_folder import fold_folder
from questlib.schema import ID, TARGETS


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


def test_predictions_of_a_member_are_read_back_as_its_folds_wrote_them(trained_lexical) -> None:
    tables, run_folder = trained_lexical.tables, trained_lexical.run_folder
    member = read_member(run_folder, "lexical", folds=[0, 1], tables=tables)
    assert np.array_equal(member.known, trained_lexical.fold_of_row < 2)
    assert np.array_equal(member.fold_of_row[member.known], trained_lexical.fold_of_row[member.known])
    assert np.isnan(member.out_of_fold[~member.known]).all()
    kept = [
        pd.read_csv(fold_folder(run_folder, "lexical", fold) / "test_predictions.csv", float_precision="round_trip")
        for fold in (0, 1)
    ]
    assert np.array_equal(member.test, np.mean([each[list(TARGETS)] for each in kept], axis=0))


@pytest.mark.parametrize("table", ["train", "test"])
def test_predictions_of_other_tables_are_refused(trained_lexical, table: str) -> None:
    frame = getattr(trained_lexical.tables, table)
    frame[ID] = "another " + frame[ID]
    with pytest.raises(ValueError, match="fold-0 must hold predictions of these tables, however its ids are others"):
        read_member(trained_lexical.run_folder, "lexical", folds=[0], tables=trained_lexical.tables)


def test_predictions_that_were_changed_are_refused(trained_lexical) -> None:
    folder = fold_folder(trained_lexical.run_folder, "lexical", 0)
    path = folder / "out_of_fold.csv"
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(ValueError, match=r"missing or changed: \['out_of_fold.csv'\]"):
        read_member(trained_lexical.run_folder, "lexical", folds=[0], tables=trained_lexical.tables)
