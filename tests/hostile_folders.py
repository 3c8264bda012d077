"""Folders of three tables, usable and not: slices of the data, odd ids, tables that do not belong together."""

import contextlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import COLUMNS, make_frame, train_tables

from questlib.__main__ import main
from questlib.csv_table import read_csv
from questlib.recipe import LexicalRecipe, Recipe
from questlib.run_folder import SUBMISSION
from questlib.schema import ID, QUESTION, TARGETS


@dataclass
class Folder:
    """What the three tables hold, as text, and what must come of training on them."""

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    folds: int = 3
    words: tuple[str, ...] = field(default=())  # of the refusal, none where a submission must come of it


def build(seed: int) -> Folder:
    """Build one folder, usable or with one contradiction in it."""
    generator = np.random.default_rng(seed)
    questions = np.sort(generator.integers(0, int(generator.integers(4, 30)), size=int(generator.integers(12, 40))))
    train = make_frame(tuple(map(int, questions)), first_id=0, seed=seed).astype(str)
    test = make_frame(tuple(range(8)), first_id=0, seed=seed + 1)[list(COLUMNS)].astype(str)
    test = test.head(int(generator.integers(1, 9)))
    shape = str(generator.choice(["{:04d}", "+{}", "{}e3", "{}.50", "q {}", "'{}", "0x{:X}"]))
    train[ID] = [shape.format(number) for number in generator.permutation(len(train))]
    test[ID] = [shape.format(1000 + number) for number in generator.permutation(len(test))]
    sample = pd.DataFrame("0.5", index=test.index, columns=list(TARGETS))
    sample.insert(0, ID, test[ID])
    folder = Folder(train, test, sample, folds=int(generator.integers(2, 5)))
    for name in generator.choice(list(TARGETS), int(generator.integers(0, 4)), replace=False):
        folder.train[str(name)] = str(generator.choice(["0.0", "1.0", "0.5"]))
    if folder.train[QUESTION].nunique() < 2 * folder.folds:
        folder.folds = 2
    if generator.random() < 0.1:  # a fold for each question
        folder.folds = folder.train[QUESTION].nunique()
    if generator.random() < 0.5:
        change = FAULTS[int(generator.integers(len(FAULTS)))]
        change(folder, generator)
    return folder


def _shuffle_sample(folder: Folder, generator: np.random.Generator) -> None:
    folder.sample = folder.sample.iloc[generator.permutation(len(folder.sample))]


def _replace_an_id(folder: Folder, _: np.random.Generator) -> None:
    folder.sample = folder.sample.assign(**{ID: ["another", *folder.sample[ID][1:]]})
    folder.words = ("must hold the ids of test.csv",)


def _respell_an_id(folder: Folder, _: np.random.Generator) -> None:
    folder.sample = folder.sample.assign(**{ID: [f"{folder.sample[ID][0]} ", *folder.sample[ID][1:]]})
    folder.words = ("must hold the ids of test.csv",)


def _add_sample_row(folder: Folder, _: np.random.Generator) -> None:
    folder.sample = pd.concat([folder.sample, folder.sample.tail(1).assign(**{ID: "one more"})])
    folder.words = ("must hold the ids of test.csv",)


def _add_sample_column(folder: Folder, _: np.random.Generator) -> None:
    folder.sample = folder.sample.assign(more="1")
    folder.words = ("sample_submission.csv", "more")


def _spoil_a_target(folder: Folder, generator: np.random.Generator) -> None:
    value = str(generator.choice(["1.5", "-0.1", "nan", "", "yes", "1e999", "0,5"]))
    name = str(generator.choice(list(TARGETS)))
    row = int(generator.integers(len(folder.train)))
    folder.train.loc[row, name] = value
    folder.words = ("train.csv", name)


def _lose_a_target(folder: Folder, generator: np.random.Generator) -> None:
    name = str(generator.choice(list(TARGETS)))
    folder.train = folder.train.drop(columns=name)
    folder.words = ("train.csv", name)


def _repeat_a_row(folder: Folder, _: np.random.Generator) -> None:
    folder.train = pd.concat([folder.train, folder.train.tail(1)])
    folder.words = ("train.csv", "unique")


def _lose_url(folder: Folder, _: np.random.Generator) -> None:
    folder.train = folder.train.drop(columns=QUESTION)
    folder.words = ("train.csv", QUESTION)


def _one_question(folder: Folder, _: np.random.Generator) -> None:
    folder.train[QUESTION] = "http://one"
    folder.words = ("question",)


FAULTS: tuple[Callable[[Folder, np.random.Generator], None], ...] = (
    _shuffle_sample, _replace_an_id, _respell_an_id, _add_sample_row, _add_sample_column, _spoil_a_target,
    _lose_a_target,    _repeat_a_row, _lose_url, _one_question,
)  # fmt: skip


def try_folder(folder: Folder, place: Path) -> str | None:
    """Give the fault in words, None where a valid submission came of it or it was refused as it must be."""
    data = place / "data"
    data.mkdir(parents=True)
    for name in ("train", "test", "sample"):
        path = data / f"{'sample_submission' if name == 'sample' else name}.csv"
        getattr(folder, name).to_csv(path, index=False)
    recipe = Recipe(members=(LexicalRecipe(folds_to_train=folder.folds),), folds=folder.folds)
    try:
        submission = train_tables(data, place, recipe).submission
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        told = str(error)
        if not folder.words:
            return f"must be trained on, however refused: {told}"
        missing = [word for word in folder.words if word not in told]
        return f"must be refused with {missing}, however: {told}" if missing or "\n" in told else None
    if folder.words:
        return f"must be refused with {folder.words}, however it was trained on"
    written = read_csv(place / "run" / SUBMISSION)
    if sorted(written[ID]) != sorted(folder.test[ID]) or submission[ID].tolist() != written[ID].tolist():
        return f"ids must come out as they went in, however: {written[ID].tolist()} for {folder.test[ID].tolist()}"
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told_:
        status = main(["check", str(place / "run" / SUBMISSION), str(data / "sample_submission.csv")])
    return f"its own check refuses the submission: {told_.getvalue()}" if status else None
