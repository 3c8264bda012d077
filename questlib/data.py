"""The competition's tables: read, checked, nulls given a stated value, rows split by question."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from questlib.checks import refuse_unknown
from questlib.csv_table import read_csv
from questlib.inputs import describe_mounts, find_folder
from questlib.metrics import Questions, number_questions
from questlib.schema import ID, INPUT_COLUMNS, METADATA_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS

# What a null becomes, in training and in any later table: no words, and a category or host of its own.
NULL_TEXT = ""
NULL_METADATA = "unknown"

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The three tables of a data folder, checked, and how many nulls each input column of train and test held."""

    train: pd.DataFrame
    test: pd.DataFrame
    sample_submission: pd.DataFrame
    nulls: pd.DataFrame


def read_tables(data: str | Path) -> Tables:
    """Read the tables of a folder or, by its slug, of an attached competition or dataset; raises as `read_table`."""
    folder = find_folder(str(data), marker="train.csv")
    if folder is None:
        raise FileNotFoundError(
            f"no train.csv in the data folder {str(data)!r} ({describe_mounts()}); "
            "name a folder with train.csv, test.csv and sample_submission.csv"
        )
    train = read_table(folder / "train.csv", columns=(*INPUT_COLUMNS, QUESTION, *TARGETS))
    test = read_table(folder / "test.csv", columns=INPUT_COLUMNS)
    sample = read_table(folder / "sample_submission.csv", columns=(ID, *TARGETS))
    refuse_unknown(sample.columns, known=(ID, *TARGETS), what=f"column of {folder / 'sample_submission.csv'}")
    _refuse_contradiction(test, sample, folder=folder)
    nulls = pd.DataFrame({name: frame.isna().sum() for name, frame in (("train", train), ("test", test))})
    return Tables(
        train=fill_nulls(train),
        test=fill_nulls(test),
        sample_submission=sample,
        nulls=nulls.reindex(list(INPUT_COLUMNS)).astype(int).rename_axis("column").reset_index(),
    )


def _refuse_contradiction(test: pd.DataFrame, sample: pd.DataFrame, *, folder: Path) -> None:
    # A submission with these rows would be refused at its end.
    missing, extra = (
        [each for each in one[ID] if each not in known]
        for one, known in ((test, set(sample[ID])), (sample, set(test[ID])))
    )
    if missing or extra:
        raise ValueError(
            f"{folder}: sample_submission.csv must hold the ids of test.csv, however {len(missing)} are missing "
            f"({missing[:3]}) and {len(extra)} are not in the test ({extra[:3]}); take both from one download"
        )


def read_table(path: str | Path, *, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV table and check that it holds the columns; the id and any target are checked by value too.

    All fields are text, ids too, but the targets among the columns. Only an empty field is a null, and stays one: a
    title may well be "NA" or "None".

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is no whole table, is empty, lacks or doubles a column, repeats an id, or a target is no
            number in [0, 1].
    """
    path = Path(path)
    if not path.exists():  # a pipe may be one
        raise FileNotFoundError(f"there is no table {path}; put it there or name another")
    if path.is_dir():
        raise IsADirectoryError(f"{path} must be a table, however it is a folder; name a file in it")
    frame = read_csv(path)
    refuse_missing(frame, columns=columns, what=str(path))
    if frame.empty:
        raise ValueError(f"{path} must hold at least one row, however: it holds only a header")
    _check_ids(frame[ID], path=path)
    return frame.assign(**{name: read_ratings(frame[name], what=str(path)) for name in TARGETS if name in columns})


def refuse_missing(frame: pd.DataFrame, *, columns: Iterable[str], what: str = "frame") -> None:
    """Refuse a table, called `what`, that lacks some columns or doubles any."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"{what} must be a pandas DataFrame, however: {type(frame)}; build one")
    doubled = frame.columns[frame.columns.duplicated()].unique().tolist()
    if doubled:
        raise ValueError(f"{what} must name each column once, however doubled: {doubled}; remove the copies")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        held = list(frame.columns)[:12]
        raise ValueError(f"{what} must hold the columns {missing}, however it holds {held} ...; add them")


def _check_ids(ids: pd.Series, *, path: Path) -> None:
    if ids.isna().any():
        row = int(ids.isna().argmax())
        raise ValueError(f"{path}: {ID} must not be empty, however: row {row} has none; give or remove it")
    if ids.duplicated().any():
        repeated = ids[ids.duplicated()].unique()[:5].tolist()
        raise ValueError(f"{path}: {ID} must be unique, however repeated: {repeated}; keep one row of each")


def read_ratings(values: pd.Series, *, what: str = "frame") -> npt.NDArray[np.float64]:
    """Read a target of a table, called `what`; one that is no number in [0, 1] is refused by its row, from 0."""
    numbers = np.array([_read_number(value) for value in values])
    wrong = ~((numbers >= 0) & (numbers <= 1))  # what is no number is NaN, which lies nowhere
    if wrong.any():
        row = int(wrong.argmax())
        found = "nothing" if pd.isna(values.iloc[row]) else values.iloc[row]
        raise ValueError(
            f"{what}: {values.name} must be a number in [0, 1], however: {found} in row {row} "
            f"({int(wrong.sum())} such rows); correct or remove them"
        )
    return numbers


def _read_number(value: Any) -> float:  # noqa: ANN401  whatever a frame holds
    if isinstance(value, str) and "_" in value:  # Python's own code may have 1_000
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def fill_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every null in text, category and host its stated value, on a copy in which these hold strings only."""
    stated = {name: NULL_TEXT for name in TEXT_COLUMNS} | {name: NULL_METADATA for name in METADATA_COLUMNS}
    return frame.assign(**{name: _fill(frame[name], value) for name, value in stated.items()})


def _fill(values: pd.Series, stated: str) -> pd.Series:
    return values.astype(object).where(values.notna(), stated).map(str)  # a category takes no value but its own


def question_of(frame: pd.DataFrame) -> npt.NDArray:
    """Name the question of each row by a string: its url or, where that is null or blank, what its title and body tell.

    That is the url of another row that has both, or a hash of them.

    Raises:
        TypeError: If the frame is none.
        ValueError: If there is no url, or a row has none and there is no title or body to tell the question by.
    """
    refuse_missing(frame, columns=(QUESTION,))
    questions = frame[QUESTION].astype(object)
    questions = questions.mask(questions.astype(str).str.strip() == "")  # which would make one question of many
    if questions.isna().any():
        if not {"question_title", "question_body"} <= set(frame.columns):
            raise ValueError(
                f"{QUESTION} must name each row's question, however: {int(questions.isna().sum())} rows have none, "
                "and there are no columns question_title and question_body to tell it by; add them"
            )
        text = _fill(frame["question_title"], NULL_TEXT) + "\n" + _fill(frame["question_body"], NULL_TEXT)
        # Hashed, because an array of strings makes every row as wide as the longest body.
        hashes = pd.Series(pd.util.hash_array(text.to_numpy(dtype=object)), index=frame.index).map("text {:x}".format)
        told = questions.groupby(hashes.to_numpy()).transform("first")  # the first that is no null
        questions = questions.where(questions.notna(), told.where(told.notna(), hashes))
    return questions.to_numpy(dtype=str)


def assign_folds(questions: Questions, *, split: str, folds: int, seed: int) -> IndexArray:
    """Give each row the number, from 0, of the fold that scores it; split "question" keeps a question's rows together.

    Raises:
        ValueError: If the split is unknown, a row has no question, or there are fewer questions than folds.

    NOTE[SEED]: The write-up split rows at random, which leaks: one question stands on both sides and the score reads
    too high. It is kept for comparison only.
    """
    from sklearn.model_selection import GroupKFold, KFold  # takes long, and a mistake is told before

    splitters = {"question": GroupKFold, "random": KFold}
    refuse_unknown([split], known=splitters, what="split")
    question = number_questions(questions, n_rows=len(questions))
    n_questions = len(np.unique(question))
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= n_questions:
        raise ValueError(f"folds must lie between 2 and the number of questions, however: {folds=}, {n_questions=}")
    splitter = splitters[split](n_splits=folds, shuffle=True, random_state=seed)
    fold_of_row = np.empty(len(question), dtype=np.intp)
    groups = question if split == "question" else None  # KFold would warn that it takes none
    for fold, (_, scored) in enumerate(splitter.split(question, groups=groups)):
        fold_of_row[scored] = fold
    return fold_of_row


def hold_out_questions(
    rows: IndexArray, *, questions: npt.NDArray, share: float, seed: int
) -> tuple[IndexArray, IndexArray]:
    """Split a fold's training rows into those that stay and those held out, to stop training by, both ascending.

    Held out are whole questions: a share in (0, 1), two at least. `questions` has a row for each of the whole table.
    """
    from sklearn.model_selection import GroupShuffleSplit

    # One row has no rank correlation, so two questions are the least that can tell when to stop.
    n_questions = len(np.unique(questions[rows]))
    n_held_out = max(2, math.ceil(share * n_questions))
    if n_held_out >= n_questions:
        raise ValueError(
            f"there must be three questions at least, of which two are held out to stop by, however: {n_questions=}; "
            "give more, or set stop_share to 0"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=n_held_out, random_state=seed)
    kept, held_out = next(splitter.split(rows, groups=questions[rows]))
    return rows[kept], rows[held_out]
