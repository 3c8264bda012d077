import os

import numpy as np
import pytest

from questlib.data import assign_folds, hold_out_questions, question_of, read_tables
from questlib.pretrained import find_encoder
from questlib.text import joint_lengths, load_tokenizer, token_coverage

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("QUEST_DATA" not in os.environ, reason="QUEST_DATA names no folder"),
]


@pytest.fixture(scope="module")
def tables():
    return read_tables(os.environ["QUEST_DATA"])


def test_real_tables_pass_the_checks(tables):
    assert len(tables.train) > 4_000
    assert len(tables.test) == len(tables.sample_submission)
    assert not tables.nulls[["train", "test"]].to_numpy().any()


def test_token_coverage_is_the_write_ups(tables):
    tokenizer = load_tokenizer(find_encoder("all-MiniLM-L6-v2"))  # BERT's vocabulary
    coverage = token_coverage(joint_lengths(tables.train, tokenizer))
    for limit, expected in ((128, 0.0738), (256, 0.3510), (512, 0.7306)):
        assert coverage[limit] == pytest.approx(expected, abs=0.015)


def test_no_question_stands_on_two_sides(tables):
    questions = question_of(tables.train)
    fold_of_row = assign_folds(questions, split="question", folds=5, seed=42)
    assert np.bincount(fold_of_row).min() > 0.15 * len(questions)
    trained, held_out = hold_out_questions(np.flatnonzero(fold_of_row), questions=questions, share=0.1, seed=42)
    sides = [set(questions[rows]) for rows in (np.flatnonzero(fold_of_row == 0), trained, held_out)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
