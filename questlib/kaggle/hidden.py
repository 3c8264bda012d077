"""The competition's tables as a rehearsal needs them: short, and with what the hidden test may hold."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from questlib.schema import ID, METADATA_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS

_LONG = 40_000  # words


def cut_tables(source: Path, target: Path, *, n_questions: int) -> Path:
    """Copy the tables with a few short questions only, because a rehearsal proves the way, not the score.

    Args:
        source: Folder of the tables.
        target: Folder to make.
        n_questions: How many training questions, those with the shortest texts, and how many test rows are kept; some
            more questions stand for rare ratings.

    Returns:
        The folder.
    """
    target.mkdir(parents=True)
    train = pd.read_csv(source / "train.csv", dtype=str, keep_default_na=False)
    text = train[list(TEXT_COLUMNS)].map(len).sum(axis=1)
    lengths = text.groupby(train[QUESTION]).sum().sort_values()
    by_length = train.set_index(QUESTION).loc[lengths.index]
    # Where a target varies it must vary in what is kept, or its predictions are constant and no submission.
    odd = {by_length.index[by_length[name] != by_length[name].mode()[0]][0] for name in _varying(train)}
    kept = train[QUESTION].isin({*lengths.index[:n_questions], *odd})
    train[kept].to_csv(target / "train.csv", index=False)
    for name in ("test.csv", "sample_submission.csv"):
        table = pd.read_csv(source / name, dtype=str, keep_default_na=False)
        table.head(n_questions).to_csv(target / name, index=False)
    return target


def _varying(train: pd.DataFrame) -> list[str]:
    return [name for name in TARGETS if train[name].nunique() > 1]


def swap_test(source: Path, target: Path, *, swap: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Copy the tables with another test, as the run on the hidden test sees them.

    Args:
        source: Folder of the tables.
        target: Folder to make.
        swap: Makes the other test of the public one.

    Returns:
        The folder.
    """
    target.mkdir(parents=True)
    shutil.copyfile(source / "train.csv", target / "train.csv")
    test = swap(pd.read_csv(source / "test.csv", keep_default_na=False))
    test.to_csv(target / "test.csv", index=False)
    columns = pd.read_csv(source / "sample_submission.csv", nrows=0).columns
    sample = pd.DataFrame(0.5, index=range(len(test)), columns=columns)
    sample.assign(**{ID: test[ID].to_numpy()}).to_csv(target / "sample_submission.csv", index=False)
    return target


def repeat_rows(test: pd.DataFrame) -> pd.DataFrame:
    """Ten times the rows, each with an id of its own."""
    return _number(pd.concat([test] * 10, ignore_index=True))


def keep_one_row(test: pd.DataFrame) -> pd.DataFrame:
    """One row."""
    return test.head(1)


def reorder_rows(test: pd.DataFrame) -> pd.DataFrame:
    """The same rows and ids, shuffled."""
    return test.sample(frac=1, random_state=0)


def dirty_rows(test: pd.DataFrame) -> pd.DataFrame:
    """Nulls, blank, very long and non-Latin texts, characters that break parsers, hosts and categories never seen."""
    texts = (
        None,
        " \n\t ",
        "word " * _LONG,
        "как 测试 परीक्षण اختبار テスト 🙂🙃",
        'a "quoted", field;\r\nwith\ttabs and <b>markup</b> $\\frac{1}{2}$',
        "NA",
        "\u200b\ufeff\u202e\x07",
    )
    rows = pd.concat([test] * (-(-2 * len(texts) // len(test))), ignore_index=True).head(2 * len(texts)).astype(object)
    for place, name in enumerate(TEXT_COLUMNS):
        rows[name] = [texts[(row + place * (row // len(texts))) % len(texts)] for row in range(len(rows))]
    for name in METADATA_COLUMNS:
        rows[name] = [None if row % 3 == 0 else f"never-seen-{row}" for row in range(len(rows))]
    return _number(rows)


SWAPS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "10 x rows": repeat_rows,
    "1 row": keep_one_row,
    "reordered": reorder_rows,
    "dirty": dirty_rows,
}


def _number(test: pd.DataFrame) -> pd.DataFrame:
    return test.assign(**{ID: np.arange(len(test)) * 7 + 3})
