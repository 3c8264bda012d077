"""The competition's tables: read, checked, nulls given a stated value, rows split by question."""

import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, KFold

from questlib.config import refuse_unknown
from questlib.inputs import describe_mounts, find_folder
from questlib.schema import ID, INPUT_COLUMNS, METADATA_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS

# What a null becomes, in training and in any later table: no words, and a category or host of its own.
NULL_TEXT = ""
NULL_METADATA = "unknown"

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The three tables of a data folder, checked, and how many nulls each column held before they were filled."""

    train: pd.DataFrame
    test: pd.DataFrame
    sample_submission: pd.DataFrame
    nulls: pd.DataFrame


def read_tables(data: str) -> Tables:
    """Read and check train.csv, test.csv and sample_submission.csv.

    Args:
        data: A folder, or the slug of an attached competition or dataset.

    Returns:
        The tables with nulls filled; `nulls` has one row per input column and one column per table.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a table is empty, lacks or doubles a column, repeats an id, or a target is no number in [0, 1].
    """
    folder = find_folder(data, marker="train.csv")
    if folder is None:
        raise FileNotFoundError(
            f"no train.csv in the data folder {data!r} ({describe_mounts()}); "
            "name a folder with train.csv, test.csv and sample_submission.csv"
        )
    train = read_table(folder / "train.csv", columns=(*INPUT_COLUMNS, QUESTION, *TARGETS))
    test = read_table(folder / "test.csv", columns=INPUT_COLUMNS)
    sample = read_table(folder / "sample_submission.csv", columns=(ID, *TARGETS))
    refuse_unknown(sample.columns, known=(ID, *TARGETS), what=f"column of {folder / 'sample_submission.csv'}")
    nulls = pd.DataFrame({name: frame.isna().sum() for name, frame in (("train", train), ("test", test))})
    return Tables(
        train=fill_nulls(train),
        test=fill_nulls(test),
        sample_submission=sample,
        nulls=nulls.reindex(list(INPUT_COLUMNS)).astype(int).rename_axis("column").reset_index(),
    )


def read_table(path: Path, *, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read one table and check the columns that are asked for.

    Args:
        path: A CSV file in UTF-8 with a header. Only an empty field is a null: a title may well be "NA" or "None".
        columns: Columns that must be there; the id and any target among them are checked by value too.

    Returns:
        The table as it was written, nulls included.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it cannot be parsed or does not hold what it must.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}; put it there or name another")
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
        with warnings.catch_warnings():
            # Where rows are longer than the header, pandas drops what stands beyond it and only warns.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                dtype=_text_types(header),
                float_precision="round_trip",  # to the last bit, so that a file scores as what was written to it
            )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path} must be a CSV table in UTF-8 with a header, however: {str(error).strip()}") from error
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise ValueError(f"{path} must name each column once, however doubled: {doubled}; remove the copies")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{path} must hold the columns {missing}, however it holds {list(frame.columns)[:12]} ...; add them"
        )
    if frame.empty:
        raise ValueError(f"{path} must hold at least one row, however: it holds only a header")
    _check_ids(frame[ID], path=path)
    for name in (name for name in TARGETS if name in columns):
        _check_target(frame[name], path=path)
    return frame


def _text_types(header: list[str]) -> dict[str, type]:
    return {name: str for name in header if name not in (ID, *TARGETS)}


def _check_ids(ids: pd.Series, *, path: Path) -> None:
    if ids.isna().any():
        raise ValueError(
            f"{path}: {ID} must not be empty, however: row {int(ids.isna().argmax())} has none; give or remove it"
        )
    if ids.duplicated().any():
        repeated = ids[ids.duplicated()].unique()[:5].tolist()
        raise ValueError(f"{path}: {ID} must be unique, however repeated: {repeated}; keep one row of each")


def _check_target(values: pd.Series, *, path: Path) -> None:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = ~numbers.between(0, 1)  # a null or a word is NaN, which lies nowhere
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise ValueError(
            f"{path}: {values.name} must be a number in [0, 1], however: {values.tolist()[row]!r} in row {row} "
            f"({int(wrong.sum())} such rows); correct or remove them"
        )


def fill_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every null in text, category and host its stated value, on a copy in which these hold strings only.

    Args:
        frame: Any table with the input columns.

    Returns:
        The copy; text nulls are empty strings, category and host nulls are "unknown".
    """
    stated = {name: NULL_TEXT for name in TEXT_COLUMNS} | {name: NULL_METADATA for name in METADATA_COLUMNS}
    filled = {
        name: frame[name].astype(object).where(frame[name].notna(), value).map(str) for name, value in stated.items()
    }
    return frame.assign(**filled)


def question_of(frame: pd.DataFrame) -> npt.NDArray:
    """Name the question of each row: its url or, where that is null, title and body.

    Args:
        frame: A table with nulls filled.

    Returns:
        Strings, shape (n_rows,); equal strings are one question.

    Raises:
        ValueError: If a url is null and there is no title or body to tell the question by.
    """
    questions = frame[QUESTION]
    if questions.isna().any():
        if not {"question_title", "question_body"} <= set(frame.columns):
            raise ValueError(
                f"{QUESTION} must name each row's question, however: {int(questions.isna().sum())} rows have none, "
                "and there are no columns question_title and question_body to tell it by; add them"
            )
        text = frame["question_title"].fillna(NULL_TEXT) + "\n" + frame["question_body"].fillna(NULL_TEXT)
        # Hashed, because an array of strings makes every row as wide as the longest body.
        fallback = pd.Series(pd.util.hash_array(text.to_numpy(dtype=object)), index=frame.index).map("text {:x}".format)
        questions = questions.where(questions.notna(), fallback)
    return questions.to_numpy(dtype=str)


def assign_folds(questions: npt.NDArray, *, split: str, folds: int, seed: int) -> IndexArray:
    """Assign each row to the fold that scores it.

    Args:
        questions: The question of each row, shape (n_rows,).
        split: "question" keeps all rows of a question together; "random" deals out rows one by one.
        folds: Number of folds.
        seed: Seeds the shuffle.

    Returns:
        Fold numbers from 0, shape (n_rows,).

    Raises:
        ValueError: If the split is unknown or there are fewer questions than folds.

    NOTE[SEED]: The write-up split rows at random, which leaks: one question stands on both sides and the score reads
    too high. It is kept for comparison only.
    """
    splitters = {"question": GroupKFold, "random": KFold}
    refuse_unknown([split], known=splitters, what="split")
    n_questions = len(np.unique(questions))
    if not 2 <= folds <= n_questions:
        raise ValueError(f"folds must lie between 2 and the number of questions, however: {folds=}, {n_questions=}")
    splitter = splitters[split](n_splits=folds, shuffle=True, random_state=seed)
    fold_of_row = np.empty(len(questions), dtype=np.intp)
    groups = questions if split == "question" else None  # KFold would warn that it takes none
    for fold, (_, scored) in enumerate(splitter.split(questions, groups=groups)):
        fold_of_row[scored] = fold
    return fold_of_row


def hold_out_questions(
    rows: IndexArray, *, questions: npt.NDArray, share: float, seed: int
) -> tuple[IndexArray, IndexArray]:
    """Hold whole questions out of a fold's training rows, to stop training by.

    Args:
        rows: Row indices of the training fold.
        questions: The question of each row of the whole table.
        share: Share of the fold's questions to hold out, in (0, 1); two questions at least.
        seed: Seeds the draw.

    Returns:
        The rows that stay and the rows held out, both ascending; no question is in both.
    """
    # One row has no rank correlation, so two questions are the least that can tell when to stop.
    n_held_out = max(2, math.ceil(share * len(np.unique(questions[rows]))))
    splitter = GroupShuffleSplit(n_splits=1, test_size=n_held_out, random_state=seed)
    kept, held_out = next(splitter.split(rows, groups=questions[rows]))
    return rows[kept], rows[held_out]
