from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from questlib.schema import ID, TARGETS
from questlib.submission import check_submission, spread_constant, write_submission

IDS = [39, 46, 70, 132]
COLUMNS = [ID, *TARGETS]


@pytest.fixture
def predictions() -> npt.NDArray:
    return np.random.default_rng(0).random((len(IDS), 30))


@pytest.fixture
def submission(predictions: npt.NDArray) -> pd.DataFrame:
    frame = pd.DataFrame(predictions, columns=list(TARGETS))
    frame.insert(0, ID, IDS)
    return frame


def sample(columns: list[str], ids: list[int]) -> pd.DataFrame:
    return pd.DataFrame(0.0, index=range(len(ids)), columns=columns).assign(**{ID: ids})[columns]


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[::-1], [*TARGETS[15:], ID, *TARGETS[:15]]])
def test_submission_has_the_samples_columns_and_the_tests_rows(
    tmp_path: Path, predictions: npt.NDArray, columns: list[str]
) -> None:
    path = tmp_path / "new" / "submission.csv"
    table = write_submission(path, predictions, ids=IDS, sample_submission=sample(columns, IDS[::-1]))
    written = pd.read_csv(path, float_precision="round_trip")
    assert written.columns.tolist() == columns
    assert written[ID].tolist() == IDS
    np.testing.assert_array_equal(written[list(TARGETS)].to_numpy(), predictions)
    pd.testing.assert_frame_equal(written, table)
    assert list(path.parent.iterdir()) == [path]


def test_submission_takes_ids_by_position_not_by_index(tmp_path: Path, predictions: npt.NDArray) -> None:
    ids = pd.Series(IDS, index=[3, 2, 1, 0])
    write_submission(tmp_path / "s.csv", predictions, ids=ids, sample_submission=sample(COLUMNS, IDS))
    assert pd.read_csv(tmp_path / "s.csv")[ID].tolist() == IDS


def test_submission_may_lie_in_the_home(
    tmp_path: Path, predictions: npt.NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_submission("~/s.csv", predictions, ids=IDS, sample_submission=sample(COLUMNS, IDS))
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "s.csv"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([39, 46, 70, 99], "4 rows for 4, 1 ids missing, the first out of place is '99' for '132' at 3"),
        ([39, 39, 46, 70], "4 rows for 4, 1 ids missing, the first out of place is '39' for '46' at 1"),
        ([None] * 4, "4 rows for 4, 4 ids missing, the first out of place is 'None' for '39' at 0"),
    ],
)
def test_submission_of_other_ids_than_the_samples_is_not_written(
    tmp_path: Path, predictions: npt.NDArray, ids: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "s.csv", predictions, ids=ids, sample_submission=sample(COLUMNS, IDS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"predictions": np.full((4, 29), 0.5)},
            r"shape \(n_rows, 30\), with as many ids, .*\(4, 29\), names.shape=\(4,\)",
        ),
        ({"ids": IDS[:3]}, r"with as many ids, however: .*\(4, 30\), names.shape=\(3,\)"),
        (
            {"predictions": pd.DataFrame(np.full((4, 30), 0.5))},
            "predictions must hold the columns .* it holds .0, 1, 2",
        ),
        ({"sample_submission": "sample.csv"}, "sample_submission must be a pandas DataFrame, however: .*str"),
        ({"sample_submission": sample(COLUMNS[1:], IDS)}, r"sample_submission must hold the columns \['qa_id'\]"),
        ({"sample_submission": sample([*COLUMNS, "fold"], IDS)}, "unknown column of sample_submission: 'fold'"),
    ],
)
def test_submission_of_another_shape_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, predictions: npt.NDArray, change: dict, message: str
) -> None:
    given = {"predictions": predictions, "ids": IDS, "sample_submission": sample(COLUMNS, IDS)} | change
    with pytest.raises((TypeError, ValueError), match=message):
        write_submission(tmp_path / "s.csv", **given)
    frame = pd.DataFrame(predictions, columns=COLUMNS[1:], index=[5, 6, 7, 8])[COLUMNS[:0:-1]]
    written = write_submission(tmp_path / "s.csv", frame, ids=IDS, sample_submission=sample(COLUMNS, IDS))
    assert np.array_equal(written[COLUMNS[1:]], predictions)


@pytest.mark.parametrize("value", [np.nan, -0.001, 1.001, np.inf])
def test_submission_that_is_refused_leaves_the_former_one(
    tmp_path: Path, predictions: npt.NDArray, value: float
) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, predictions, ids=IDS, sample_submission=sample(COLUMNS, IDS))
    before = path.read_bytes()
    predictions[2, 7] = value
    message = rf"every value must be a number in \[0, 1\], however not in: \['{TARGETS[7]}'\]"
    with pytest.raises(ValueError, match=message):
        write_submission(path, predictions, ids=IDS, sample_submission=sample(COLUMNS, IDS))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_submission_may_touch_both_ends(submission: pd.DataFrame) -> None:
    submission.loc[0, TARGETS], submission.loc[1, TARGETS] = 0, 1
    check_submission(submission, columns=COLUMNS, ids=IDS)


def test_submission_is_not_changed_by_its_check(submission: pd.DataFrame) -> None:
    before = submission.copy(deep=True)
    check_submission(submission, columns=COLUMNS, ids=IDS)
    pd.testing.assert_frame_equal(submission, before)


def test_constant_column_is_refused_by_name(submission: pd.DataFrame) -> None:
    submission[TARGETS[19]] = 0.0
    with pytest.raises(ValueError, match=rf"no column may be constant, .*however: \['{TARGETS[19]}'\]"):
        check_submission(submission, columns=COLUMNS, ids=IDS)


def test_single_row_is_no_constant_column(submission: pd.DataFrame) -> None:
    check_submission(submission.iloc[:1], columns=COLUMNS, ids=IDS[:1])


def test_values_that_are_words_are_refused(submission: pd.DataFrame) -> None:
    submission[TARGETS[0]] = submission[TARGETS[0]].astype(object)
    submission.loc[1, TARGETS[0]] = "good"
    with pytest.raises(ValueError, match=rf"every value must be a number in .*: \['{TARGETS[0]}'\]"):
        check_submission(submission, columns=COLUMNS, ids=IDS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (COLUMNS[:-1], r"however: missing=\['answer_well_written'\], extra=\[\]; write"),
        ([*COLUMNS, "fold"], r"however: missing=\[\], extra=\['fold'\]; write"),
        (
            COLUMNS[::-1],
            r"missing=\[\], extra=\[\], the first out of place is 'answer_well_written' for 'qa_id' at 0; write",
        ),
    ],
)
def test_columns_must_be_the_samples(submission: pd.DataFrame, columns: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_submission(submission.reindex(columns=columns, fill_value=0), columns=COLUMNS, ids=IDS)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([39, 70, 46, 132], "4 rows for 4, 0 ids missing, the first out of place is '46' for '70' at 1; write one row"),
        ([39, 46, 70, 99], "4 rows for 4, 1 ids missing, the first out of place is '132' for '99' at 3; write one row"),
        (
            [39, 46, 70],
            "4 rows for 3, 0 ids missing, the first out of place is '132' for 'nothing' at 3; write one row",
        ),
        ([*IDS, 200], "4 rows for 5, 1 ids missing, the first out of place is 'nothing' for '200' at 4; write one row"),
    ],
)
def test_ids_must_be_the_tests_in_order(submission: pd.DataFrame, ids: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_submission(submission, columns=COLUMNS, ids=ids)


def test_constant_column_gets_a_tiny_spread_in_the_order_it_is_told(predictions: npt.NDArray) -> None:
    tied = predictions.copy()
    tied[:, 3], tied[:, 7], tied[:, 9] = 0.5, 0.0, 1.0
    spread = spread_constant(tied, by=predictions)
    for column in (3, 7, 9):
        assert (np.argsort(spread[:, column]) == np.argsort(predictions[:, column])).all()
        assert 0 < np.ptp(spread[:, column]) < 1e-5
    assert spread.min() >= 0
    assert spread.max() <= 1
    others = np.delete(np.arange(30), [3, 7, 9])
    np.testing.assert_array_equal(spread[:, others], tied[:, others])


def test_column_that_nothing_orders_goes_by_the_mean_of_the_others(predictions: npt.NDArray) -> None:
    predictions[:, 3] = 0.2
    spread = spread_constant(predictions, by=predictions)
    assert (np.argsort(spread[:, 3]) == np.argsort(predictions.mean(axis=1))).all()


def test_rows_that_are_alike_go_by_their_place() -> None:
    alike = np.full((4, 30), 0.2)
    assert (np.diff(spread_constant(alike, by=alike), axis=0) > 0).all()


def test_single_row_is_left_as_it_is(predictions: npt.NDArray) -> None:
    np.testing.assert_array_equal(spread_constant(predictions[:1], by=predictions[:1]), predictions[:1])
