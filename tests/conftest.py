import gc
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import settings

from questlib.clock import Clock
from questlib.data import Tables, assign_folds, question_of, read_tables
from questlib.recipe import LexicalRecipe, Recipe
from questlib.schema import ID, INPUT_COLUMNS, QUESTION, TARGETS, UNUSED_COLUMNS

if TYPE_CHECKING:
    from questlib.batches import QuestRows
    from questlib.model import QuestModel

# The same examples each time, so that a failure is the change's; no deadline, because machines differ.
settings.register_profile("questlib", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("questlib")

# What a script starts in the background ignores interrupts, and so would all that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# 20 rows, 14 questions: one with three answers, four with two, nine with one.
QUESTION_OF_ROW = (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
CATEGORIES = ("TECHNOLOGY", "SCIENCE", "CULTURE", "TECHNOLOGY")
HOSTS = ("stackoverflow.com", "physics.example", "english.example", "stackoverflow.com", "rare.example")
SUBJECTS = ("a loop", "the moon", "this word", "my list", "a sauce", "the exam", "a cable")
COLUMNS = (
    ID, "question_title", "question_body", "question_user_name", "question_user_page",
    "answer", "answer_user_name", "answer_user_page", QUESTION, "category", "host",
)  # fmt: skip


def make_frame(question_of_row: tuple[int, ...], *, first_id: int, seed: int) -> pd.DataFrame:
    """A table in the QUEST schema whose rows of one question share title, body, asker, url, category and host."""
    rows = []
    for row, question in enumerate(question_of_row):
        subject = SUBJECTS[question % len(SUBJECTS)]
        rows.append(
            {
                ID: first_id + 3 * row,
                "question_title": f"What about {subject}, number {question}?",
                "question_body": f"I looked at {subject}.\n"
                + f"It did not work in way {question}. " * (1 + question % 5),
                "question_user_name": f"asker {question}",
                "question_user_page": f"https://site.example/users/{question}",
                "answer": f"Take {subject} and try {row} times. " * (1 + row % 4),
                "answer_user_name": f"helper {row}",
                "answer_user_page": f"https://site.example/users/{100 + row}",
                QUESTION: f"https://site.example/questions/{first_id}-{question}",
                "category": CATEGORIES[question % len(CATEGORIES)],
                "host": HOSTS[question % len(HOSTS)],
            }
        )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    levels = np.random.default_rng(seed).integers(0, 4, size=(len(frame), len(TARGETS))) / 3
    levels[0], levels[1] = 0, 1  # no column is constant, whatever was drawn
    return frame.join(pd.DataFrame(levels, columns=list(TARGETS)))


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Libraries that draw from a global generator draw the same in every test."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  scikit-learn and transformers draw from it
    if "torch" in sys.modules:  # most tests need no torch, and importing it takes longer than they do
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub, and a test that switches it puts the switch back."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def toy_frame() -> pd.DataFrame:
    """Twenty training rows, 14 questions, 11 columns and 30 targets, no nulls."""
    return make_frame(QUESTION_OF_ROW, first_id=10, seed=1)


@pytest.fixture
def toy_test_frame() -> pd.DataFrame:
    """Six rows of as many other questions, without targets."""
    return make_frame(tuple(range(6)), first_id=1000, seed=2)[list(COLUMNS)]


def write_tables(folder: Path) -> Path:
    """Write train.csv, test.csv and sample_submission.csv."""
    train, test = make_frame(QUESTION_OF_ROW, first_id=10, seed=1), make_frame(tuple(range(6)), first_id=1000, seed=2)
    folder.mkdir()
    train.to_csv(folder / "train.csv", index=False)
    test[list(COLUMNS)].to_csv(folder / "test.csv", index=False)
    sample = pd.DataFrame(0.25, index=range(len(test)), columns=list(TARGETS))
    sample.insert(0, ID, test[ID])
    sample.to_csv(folder / "sample_submission.csv", index=False)
    assert {*COLUMNS} == {*INPUT_COLUMNS, QUESTION, *UNUSED_COLUMNS}
    return folder


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """A data folder that holds the toy frames."""
    return write_tables(tmp_path / "toy")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy BERT with its tokenizer; torch is imported only by the tests that ask for it."""
    import toy

    gc.freeze()  # a training collects garbage, which takes 0.3 s where all that torch has imported is looked at
    return toy.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def rows(toy_frame: pd.DataFrame, encoder_folder: Path, tmp_path: Path) -> "QuestRows":
    """The toy table's rows as a model reads them, with texts and ratings that a few steps learn."""
    import toy

    return toy.build_easy_rows(toy_frame, encoder_folder, cache_folder=tmp_path / "cache")


@pytest.fixture
def model(encoder_folder: Path, rows: "QuestRows") -> "QuestModel":
    """A model with the toy body, for the easy rows."""
    import toy

    return toy.build_model(encoder_folder, rows)


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only moves by a tenth of a second in each step, so that no machine's own speed matters."""
    from questlib.training.trainer import QuestTrainer

    shown = [1000.0]
    original = QuestTrainer._differentiate

    def differentiate(self: QuestTrainer, model: "QuestModel", inputs: dict) -> Any:  # noqa: ANN401
        shown[0] += 0.1
        return original(self, model, inputs)

    monkeypatch.setattr(QuestTrainer, "_differentiate", differentiate)
    monkeypatch.setattr(time, "monotonic", lambda: shown[0])
    return shown


@dataclass(frozen=True)
class Trained:
    """A run on the toy tables: what it was given and what it left."""

    tables: Tables
    recipe: Recipe
    run_folder: Path
    submission: pd.DataFrame

    @property
    def fold_of_row(self) -> npt.NDArray[np.intp]:
        questions = question_of(self.tables.train)
        return assign_folds(questions, split=self.recipe.split, folds=self.recipe.folds, seed=self.recipe.seed)


def train_tables(data: Path, folder: Path, recipe: Recipe, **options: Any) -> Trained:  # noqa: ANN401
    """Train a recipe on some tables, into folder/run."""
    from questlib.folds import train_members

    tables, run_folder = read_tables(str(data)), folder / "run"
    submission = train_members(
        tables, recipe, run_folder=run_folder, cache_folder=folder / "cache", clock=Clock(run_folder), **options
    )
    return Trained(tables, recipe, run_folder, submission)


@pytest.fixture
def train_toy(toy_folder: Path, tmp_path: Path) -> Callable[..., Trained]:
    """Train a recipe on the toy tables."""
    return partial(train_tables, toy_folder, tmp_path)


@pytest.fixture(scope="session")
def toy_recipe(encoder_folder: Path) -> Recipe:
    """A transformer and the lexical model, two folds of three each."""
    import toy

    return Recipe(members=(toy.build_recipe(encoder_folder), LexicalRecipe(folds_to_train=2)), folds=3)


@pytest.fixture
def lexical_recipe() -> Recipe:
    """The lexical model alone, two folds of three."""
    return Recipe(members=(LexicalRecipe(folds_to_train=2),), folds=3)


@pytest.fixture(scope="session")
def trained(toy_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One run for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("trained")
    return train_tables(write_tables(folder / "toy"), folder, toy_recipe)


@pytest.fixture
def trained_lexical(train_toy: Callable[..., Trained], lexical_recipe: Recipe) -> Trained:
    return train_toy(lexical_recipe)
