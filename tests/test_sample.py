import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from questlib.metrics import spearman_by_target
from questlib.schema import (
    ID,
    METADATA_COLUMNS,
    QUESTION,
    RARE_TARGET,
    TARGETS,
    TEXT_COLUMNS,
    UNUSED_COLUMNS,
)

SAMPLE = Path(__file__).parents[1] / "notebooks" / "sample"
TABLES = ("train", "test", "sample_submission")
THREE_LEVELS = {k / 9 for k in range(3, 10)} | {k / 6 for k in range(2, 7)}
YES_OR_NO = {k / 3 for k in range(4)} | {1 / 2}
FIVE_LEVELS = {k / 15 for k in range(3, 16)} | {k / 10 for k in range(2, 11)}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(SAMPLE / f"{name}.csv") for name in TABLES}


def test_sample_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLE / "make_sample.py", tmp_path], check=True, capture_output=True)
    for name in TABLES:
        assert (tmp_path / f"{name}.csv").read_bytes() == (SAMPLE / f"{name}.csv").read_bytes()


def test_sample_has_the_schema_of_the_competition(tables: dict[str, pd.DataFrame]) -> None:
    inputs = {ID, QUESTION, *TEXT_COLUMNS, *METADATA_COLUMNS, *UNUSED_COLUMNS}
    assert tables["train"].columns[:11].tolist() == tables["test"].columns.tolist()
    assert set(tables["test"].columns) == inputs
    assert tables["train"].columns[11:].tolist() == list(TARGETS)
    assert tables["sample_submission"].columns.tolist() == [ID, *TARGETS]
    assert tables["sample_submission"][ID].tolist() == tables["test"][ID].tolist()
    assert pd.concat([tables["train"][ID], tables["test"][ID]]).is_unique


def test_sample_is_small(tables: dict[str, pd.DataFrame]) -> None:
    assert (len(tables["train"]), len(tables["test"])) == (240, 60)
    assert sum(path.stat().st_size for path in SAMPLE.iterdir() if path.is_file()) < 700_000


def test_sample_shares_no_question_between_train_and_test(tables: dict[str, pd.DataFrame]) -> None:
    for column in (QUESTION, "question_title", "question_body"):
        assert set(tables["train"][column]).isdisjoint(tables["test"][column])
        assert tables["train"][column].nunique() == 165
        assert tables["test"][column].is_unique


def test_sample_has_several_answers_to_some_questions(tables: dict[str, pd.DataFrame]) -> None:
    answers = tables["train"][QUESTION].value_counts()
    assert (answers > 1).sum() == 55
    assert answers.max() == 4


def test_sample_spreads_over_categories_and_hosts_and_tests_new_hosts(tables: dict[str, pd.DataFrame]) -> None:
    train, test = tables["train"], tables["test"]
    assert set(train["category"]) == {"TECHNOLOGY", "STACKOVERFLOW", "CULTURE", "SCIENCE", "LIFE_ARTS"}
    assert train["host"].nunique() == 15
    assert len(set(test["host"]) - set(train["host"])) == 2


def test_sample_text_is_as_messy_as_real_text(tables: dict[str, pd.DataFrame]) -> None:
    text = tables["train"]["question_title"] + tables["train"]["question_body"] + tables["train"]["answer"]
    assert text.str.contains(r"&lt;|&quot;|&amp;").any()
    assert text.str.contains(r"[^\x00-\x7f]").any()
    n_words = text.str.split().str.len()
    assert n_words.min() < 60 < 400 < n_words.max()


@pytest.mark.parametrize("target", TARGETS)
def test_sample_ratings_vary_and_lie_on_the_competitions_levels(tables: dict[str, pd.DataFrame], target: str) -> None:
    ratings = tables["train"][target]
    assert ratings.nunique() > 2
    lowest = ratings.min()
    levels = FIVE_LEVELS if target == "answer_satisfaction" else THREE_LEVELS if lowest > 0 else YES_OR_NO
    assert set(ratings.round(9)) <= {round(level, 9) for level in levels}


def test_sample_has_a_handful_of_spelling_questions_on_language_hosts(tables: dict[str, pd.DataFrame]) -> None:
    positive = tables["train"][tables["train"][RARE_TARGET] > 0]
    assert set(positive["host"]) == {"english.stackexchange.com", "ell.stackexchange.com"}
    assert 5 <= positive[QUESTION].nunique() <= len(positive) <= 12


def test_sample_can_be_learned_from_words_alone(tables: dict[str, pd.DataFrame]) -> None:
    train = tables["train"]
    targets = train[list(TARGETS)].to_numpy()
    predictions = np.zeros_like(targets)
    columns = [train["question_title"] + " " + train["question_body"], train["answer"], train["host"]]
    for fold, scored in GroupKFold(n_splits=4).split(train, groups=train[QUESTION]):
        encoders = [TfidfVectorizer(sublinear_tf=True, min_df=2).fit(column.iloc[fold]) for column in columns]
        words = hstack([e.transform(column) for e, column in zip(encoders, columns, strict=True)]).tocsr()
        predictions[scored] = Ridge(alpha=1.0).fit(words[fold], targets[fold]).predict(words[scored])
    by_target = spearman_by_target(predictions, targets)
    assert by_target.mean() > 0.3
    assert (by_target > 0.1).mean() > 0.9
