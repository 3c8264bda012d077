import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from questlib.data import (
    NULL_METADATA,
    NULL_TEXT,
    assign_folds,
    fill_nulls,
    hold_out_questions,
    question_of,
    read_table,
    read_tables,
)
from questlib.schema import ID, INPUT_COLUMNS, METADATA_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS

SOME = (ID, "question_title")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# Reading


def test_tables_are_read_with_nulls_filled_and_counted(toy_folder: Path) -> None:
    for table, column, row in (
        ("train", "answer", 3),
        ("train", "host", 4),
        ("train", "host", 5),
        ("test", "category", 0),
    ):
        frame = pd.read_csv(toy_folder / f"{table}.csv")
        frame.loc[row, column] = None
        frame.to_csv(toy_folder / f"{table}.csv", index=False)
    tables = read_tables(str(toy_folder))
    assert tables.nulls.columns.tolist() == ["column", "train", "test"]
    counted = tables.nulls.set_index("column")
    assert counted.index.tolist() == list(INPUT_COLUMNS)
    assert counted.stack()[lambda count: count > 0].to_dict() == {
        ("answer", "train"): 1,
        ("host", "train"): 2,
        ("category", "test"): 1,
    }
    assert tables.train.loc[3, "answer"] == ""
    assert tables.train.loc[[4, 5], "host"].tolist() == ["unknown", "unknown"]
    assert tables.test.loc[0, "category"] == "unknown"
    assert (len(tables.train), len(tables.test), len(tables.sample_submission)) == (20, 6, 6)


def test_tables_are_found_by_slug_in_a_kernel(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = toy_folder.parent / "input"
    (mount / "competitions").mkdir(parents=True)
    toy_folder.rename(mount / "competitions" / "google-quest-challenge")
    monkeypatch.setattr("questlib.inputs.MOUNT", mount)
    assert len(read_tables("google-quest-challenge").train) == 20


def test_tables_of_a_folder_that_is_not_there_are_refused_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no train.csv in the data folder '.*absent' \(.*\); name a folder with"
    ):
        read_tables(str(tmp_path / "absent"))


@pytest.mark.parametrize("name", ["test.csv", "sample_submission.csv"])
def test_tables_must_all_be_there(toy_folder: Path, name: str) -> None:
    (toy_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no table .*toy/{name}; put it there or name another"):
        read_tables(str(toy_folder))


def test_sample_submission_may_order_its_columns_otherwise_but_not_have_others(toy_folder: Path) -> None:
    path = toy_folder / "sample_submission.csv"
    sample = pd.read_csv(path)
    sample[list(sample.columns[::-1])].to_csv(path, index=False)
    assert read_tables(str(toy_folder)).sample_submission.columns.tolist() == [*reversed(TARGETS), ID]
    sample.assign(answer_helpfull=0).to_csv(path, index=False)
    with pytest.raises(
        ValueError, match="unknown column of .*sample_submission.csv: 'answer_helpfull' .*'answer_helpful'"
    ):
        read_tables(str(toy_folder))


def test_table_may_hold_columns_that_nobody_asked_for(toy_folder: Path, toy_frame: pd.DataFrame) -> None:
    toy_frame.assign(extra="x", another=range(20)).to_csv(toy_folder / "train.csv", index=False)
    assert read_tables(str(toy_folder)).train["extra"].tolist() == ["x"] * 20


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


@given(
    titles=st.lists(
        FIELDS | st.sampled_from(["NA", "None", "nan", "null", "1.50", "007", "a,b", '"', "\n", "'"]), min_size=1
    )
)
def test_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "titles.csv"
    pd.DataFrame({ID: range(len(titles)), "question_title": titles}).to_csv(path, index=False, lineterminator="\n")
    read = read_table(path, columns=SOME)["question_title"]
    assert read.isna().tolist() == [title == "" for title in titles]
    assert read.fillna("").tolist() == titles


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ('qa_id,question_title\n1,"two\nlines, ""quoted"""\n2,NA\n', ['two\nlines, "quoted"', "NA"]),
        ("qa_id,question_title\r\n1,a\r\n2,None\r\n", ["a", "None"]),
        ("\ufeffqa_id,question_title\n1,a\n", ["a"]),
        ('\ufeff"qa_id","question_title"\n1,a\n', ["a"]),
        ("question_title,qa_id\n007,1\n1e5,2\n", ["007", "1e5"]),
        ("qa_id,question_title,\n1,a,\n", ["a"]),
        ("\nqa_id,question_title\n\n1,a\n\n", ["a"]),
        ("qa_id,question_title\n1,Ünïcödé ☃ 漢字\n", ["Ünïcödé ☃ 漢字"]),
    ],
)
def test_table_may_be_written_in_many_ways(path: Path, text: str, titles: list[str]) -> None:
    assert read_table(write(path, text), columns=SOME)["question_title"].tolist() == titles


def test_table_of_one_row_is_a_table(path: Path) -> None:
    frame = read_table(write(path, "qa_id,question_title\nx,a\n"), columns=SOME)
    assert frame.to_dict("list") == {ID: ["x"], "question_title": ["a"]}


def test_ratings_and_predictions_come_back_to_the_last_bit(path: Path, toy_frame: pd.DataFrame) -> None:
    toy_frame[list(TARGETS)] = np.random.default_rng(0).random((20, 30))
    toy_frame.to_csv(path, index=False)
    read = read_table(path, columns=(ID, *TARGETS))
    np.testing.assert_array_equal(read[list(TARGETS)].to_numpy(), toy_frame[list(TARGETS)].to_numpy())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a CSV table in UTF-8 with a header, however: it is empty"),
        ("\n\n", "must be a CSV table in UTF-8 with a header, however: it is empty"),
        ('qa_id,question_title\n1,"a\n2,b\n', "must be a CSV table .*however: unexpected end of data"),
        ("qa_id,question_title\n1,a\n2,b,c\n", r"row 1 \(line 3\) must have 2 fields, as the header has, however: 3"),
        ("qa_id,question_title\n1,a,b\n2,c,d\n", r"row 0 \(line 2\) must have 2 fields, as the header has, however: 3"),
        (
            "qa_id\tquestion_title\n1\ta\n",
            r"must hold the columns \['qa_id', 'question_title'\], however it holds .*; add",
        ),
        (
            "qa_id,body\n1,a\n",
            r"must hold the columns \['question_title'\], however it holds \['qa_id', 'body'\] ...; add",
        ),
        (
            "qa_id,question_title,question_title\n1,a,b\n",
            r"each column once, however doubled: \['question_title'\]; remove",
        ),
        ("qa_id,question_title\n", "must hold at least one row, however: it holds only a header"),
        ("qa_id,question_title\n1,a\n,b\n", "qa_id must not be empty, however: row 1 has none; give or remove it"),
        (
            "qa_id,question_title\n1,a\n2,b\n1,c\n",
            r"qa_id must be unique, however repeated: \['1'\]; keep one row of each",
        ),
        ("qa_id,question_title\nx,a\nx,b\n", r"qa_id must be unique, however repeated: \['x'\]; keep one row of each"),
    ],
)
def test_table_that_is_none_is_refused_by_path_and_place(path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_table(write(path, text), columns=SOME)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_table_in_another_encoding_is_refused(path: Path, encoding: str) -> None:
    with pytest.raises(ValueError, match="table.csv must be a CSV table in UTF-8 with a header, however: .*decode"):
        read_table(write(path, "qa_id,question_title\n1,é\n", encoding=encoding), columns=SOME)


def test_ids_are_names_and_stay_as_they_were_written(path: Path) -> None:
    names = ["007", "7", "7.0", "1e3", "+4", "4", "4.5", " 4", "NA", "123456789012345678901234567890"]
    write(path, "qa_id,question_title\n" + "".join(f"{name},a\n" for name in names))
    assert read_table(path, columns=SOME)[ID].tolist() == names


def test_table_may_not_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=f"{tmp_path} must be a table, however it is a folder; name a file in"):
        read_table(tmp_path, columns=SOME)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1.01", "1.01"),
        ("-0.1", "-0.1"),
        ("good", "good"),
        ("", "nothing"),
        ("inf", "inf"),
        ("0,5", "0,5"),
        ("0_1", "0_1"),
    ],
)
@pytest.mark.parametrize("name", [TARGETS[0], TARGETS[-1]])
def test_target_must_be_a_number_in_range(
    path: Path, toy_frame: pd.DataFrame, name: str, value: str, shown: str
) -> None:
    toy_frame[name] = toy_frame[name].astype(object)
    toy_frame.loc[[4, 7], name] = value
    toy_frame.to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=rf"however: {shown} in row 4 \(2 such rows\); correct or remove them"
    ) as caught:
        read_table(path, columns=(ID, *TARGETS))
    assert str(caught.value).startswith(f"{path}: {name} must be a number in [0, 1]")
    read_table(path, columns=(ID,))  # and is not looked at where nobody asks for it


# Nulls


def test_nulls_are_filled_on_a_copy(toy_frame: pd.DataFrame) -> None:
    holes = {"question_title": 0, "question_body": 1, "answer": 2, "category": 3, "host": 4, "question_user_name": 5}
    for name, row in holes.items():
        toy_frame.loc[row, name] = None
    before = toy_frame.copy(deep=True)
    filled = fill_nulls(toy_frame)
    pd.testing.assert_frame_equal(toy_frame, before)
    assert [filled.loc[row, name] for name, row in holes.items()][:5] == [NULL_TEXT] * 3 + [NULL_METADATA] * 2
    assert filled["question_user_name"].isna().sum() == 1
    for name in INPUT_COLUMNS:
        kept = filled.index != holes.get(name)
        assert filled.loc[kept, name].tolist() == before.loc[kept, name].tolist()


@pytest.mark.parametrize("kind", ["object", "string", "category"])
@pytest.mark.parametrize("null", [None, np.nan, pd.NA])
def test_nulls_are_filled_in_whatever_kind_of_column(toy_frame: pd.DataFrame, kind: str, null: object) -> None:
    toy_frame["host"] = pd.Series([null, *toy_frame["host"][1:]]).astype(kind)
    filled = fill_nulls(toy_frame)["host"]
    assert filled[0] == "unknown"
    assert {type(value) for value in filled} == {str}
    assert filled[1:].tolist() == toy_frame["host"][1:].tolist()


@pytest.mark.parametrize("kind", ["string", "string[pyarrow]", "category"])
def test_question_is_the_same_in_whatever_kind_of_column(toy_frame: pd.DataFrame, kind: str) -> None:
    columns = [QUESTION, "question_title", "question_body"]
    toy_frame.loc[[3, 4, 11], QUESTION], toy_frame.loc[4, "question_title"] = None, None
    converted = toy_frame.astype(dict.fromkeys(columns, kind))
    assert question_of(converted).tolist() == question_of(toy_frame).tolist()


def test_nulls_may_be_a_whole_column(toy_folder: Path, toy_test_frame: pd.DataFrame) -> None:
    nothing = dict.fromkeys((*TEXT_COLUMNS, *METADATA_COLUMNS))
    toy_test_frame.assign(**nothing).to_csv(toy_folder / "test.csv", index=False)
    tables = read_tables(str(toy_folder))
    assert tables.test[list(TEXT_COLUMNS)].eq("").all(axis=None)
    assert tables.test[list(METADATA_COLUMNS)].eq("unknown").all(axis=None)
    assert tables.nulls["test"].tolist() == [0, 6, 6, 6, 6, 6]


def test_text_and_metadata_that_are_numbers_become_strings(toy_frame: pd.DataFrame) -> None:
    filled = fill_nulls(toy_frame.assign(host=5, answer=range(20), question_title=[None, *[0.5] * 19]))
    assert filled["host"].tolist() == ["5"] * 20
    assert filled["answer"].tolist() == [str(row) for row in range(20)]
    assert filled["question_title"].tolist() == ["", *["0.5"] * 19]


# Questions


def test_question_is_the_url_or_else_title_and_body(toy_frame: pd.DataFrame) -> None:
    assert question_of(toy_frame).tolist() == toy_frame[QUESTION].tolist()
    assert len(set(question_of(toy_frame))) == 14
    toy_frame[QUESTION] = None
    assert len(set(question_of(toy_frame))) == 14
    toy_frame["question_title"] = "the same"
    assert len(set(question_of(toy_frame))) == 14
    toy_frame["question_body"] = None
    assert len(set(question_of(toy_frame))) == 1
    assert question_of(toy_frame.assign(question_body="long " * 10_000)).dtype.itemsize < 1_000


@pytest.mark.parametrize("nothing", [None, math.nan, "", " \n"])
def test_question_of_some_rows_may_have_no_url(toy_frame: pd.DataFrame, nothing: object) -> None:
    toy_frame.loc[[3, 4, 11], QUESTION] = nothing  # two answers to one question, and one to another
    questions = question_of(toy_frame)
    assert questions[3] == questions[4] != questions[11]
    others = toy_frame[QUESTION].drop([3, 4, 11])
    assert not {*questions[[3, 4, 11]]} & {*others}
    assert questions[others.index].tolist() == others.tolist()


def test_answers_to_one_question_of_which_some_lack_the_url_stay_together(toy_frame: pd.DataFrame) -> None:
    whole = question_of(toy_frame)
    toy_frame.index = [7] * len(toy_frame)  # as after a concat
    first = ~pd.Series(whole).duplicated().to_numpy()
    toy_frame[QUESTION] = toy_frame[QUESTION].where(first)
    assert question_of(toy_frame).tolist() == whole.tolist()


def test_question_needs_title_and_body_only_where_there_is_no_url(toy_frame: pd.DataFrame) -> None:
    narrow = toy_frame[[ID, QUESTION]].copy()
    assert question_of(narrow).tolist() == toy_frame[QUESTION].tolist()
    narrow.loc[[3, 5], QUESTION] = None
    with pytest.raises(ValueError, match="url must name each row's question, however: 2 rows have none, .*; add them"):
        question_of(narrow)


def test_question_of_what_is_no_table_or_names_none_is_refused(toy_frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"frame must hold the columns \['url'\], however it holds"):
        question_of(toy_frame.drop(columns=QUESTION))
    with pytest.raises(ValueError, match=r"frame must name each column once, however doubled: \['url'\]"):
        question_of(pd.concat([toy_frame, toy_frame[[QUESTION]]], axis=1))
    with pytest.raises(TypeError, match="frame must be a pandas DataFrame, however: .*Series"):
        question_of(toy_frame[QUESTION])


# Folds

QUESTIONS = st.lists(st.integers(0, 12).map(str), min_size=6, max_size=60).map(np.array)


@given(questions=QUESTIONS, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_folds_keep_the_rows_of_a_question_together(questions: np.ndarray, folds: int, seed: int) -> None:
    if len(set(questions)) < folds:
        with pytest.raises(
            ValueError, match=f"folds must lie between 2 and the number of questions, however: folds={folds}"
        ):
            assign_folds(questions, split="question", folds=folds, seed=seed)
        return
    fold_of_row = assign_folds(questions, split="question", folds=folds, seed=seed)
    assert set(fold_of_row) == set(range(folds))
    for question in set(questions):
        assert len(set(fold_of_row[questions == question])) == 1
    np.testing.assert_array_equal(fold_of_row, assign_folds(questions, split="question", folds=folds, seed=seed))


@pytest.mark.filterwarnings("error")
def test_folds_of_a_random_split_tear_questions_apart_and_are_even() -> None:
    questions = np.repeat([f"q{number}" for number in range(20)], 5)
    fold_of_row = assign_folds(questions, split="random", folds=5, seed=42)
    assert np.bincount(fold_of_row).tolist() == [20] * 5
    assert all(len(set(fold_of_row[questions == question])) > 1 for question in set(questions))


@pytest.mark.parametrize("split", ["question", "random"])
def test_folds_depend_on_the_seed(split: str) -> None:
    questions = np.repeat([f"q{number}" for number in range(30)], 2)
    one, other = (assign_folds(questions, split=split, folds=3, seed=seed) for seed in (0, 1))
    assert (one != other).any()


@pytest.mark.parametrize("folds", [-1, 0, 1, 4, 2.0, "2"])
def test_folds_are_refused_where_they_cannot_be(folds: object) -> None:
    with pytest.raises(ValueError, match=f"folds must lie between 2 and .*however: folds={folds!r}, n_questions=3"):
        assign_folds(np.array(["a", "b", "c", "c"]), split="question", folds=folds, seed=0)


def test_folds_of_an_unknown_split_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown split: 'questions' \(did you mean 'question'\?\); known: question, random"
    ):
        assign_folds(np.array(["a", "b"]), split="questions", folds=2, seed=0)


@given(questions=QUESTIONS, share=st.floats(0.05, 0.5), seed=st.integers(0, 5))
def test_held_out_questions_are_whole_and_of_the_training_fold(questions: np.ndarray, share: float, seed: int) -> None:
    rows = np.flatnonzero(np.arange(len(questions)) % 4 > 0)
    n_questions = len(set(questions[rows]))
    if n_questions < 3:
        return
    kept, held_out = hold_out_questions(rows, questions=questions, share=share, seed=seed)
    assert sorted([*kept, *held_out]) == rows.tolist()
    assert not set(questions[kept]) & set(questions[held_out])
    assert len(set(questions[held_out])) == max(2, math.ceil(share * n_questions))
    assert len(kept)
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_held_out_questions_depend_on_the_seed() -> None:
    questions = np.array([f"q{row // 2}" for row in range(80)])
    rows = np.arange(20, 80)
    one, other, again = (hold_out_questions(rows, questions=questions, share=0.3, seed=seed)[1] for seed in (0, 1, 0))
    assert set(one) != set(other)
    assert one.tolist() == again.tolist()
