from pathlib import Path

import pandas as pd
import pytest

from questlib import schema

SAMPLE = Path(__file__).parents[1] / "notebooks" / "sample"


def test_targets_are_21_of_the_question_then_9_of_the_answer() -> None:
    assert len(schema.QUESTION_TARGETS) == 21
    assert len(schema.ANSWER_TARGETS) == 9
    assert schema.TARGETS == schema.QUESTION_TARGETS + schema.ANSWER_TARGETS
    assert len(set(schema.TARGETS)) == 30
    assert all(name.startswith("question_") for name in schema.QUESTION_TARGETS)
    assert all(name.startswith("answer_") for name in schema.ANSWER_TARGETS)
    assert schema.RARE_TARGET in schema.QUESTION_TARGETS


def test_targets_stand_in_submission_order() -> None:
    header = pd.read_csv(SAMPLE / "sample_submission.csv", nrows=0).columns.tolist()
    assert header == [schema.ID, *schema.TARGETS]


@pytest.mark.parametrize("table", ["train", "test"])
def test_columns_of_a_table_are_each_named_once(table: str) -> None:
    named = (*schema.INPUT_COLUMNS, schema.QUESTION, *schema.UNUSED_COLUMNS)
    targets = schema.TARGETS if table == "train" else ()
    header = pd.read_csv(SAMPLE / f"{table}.csv", nrows=0).columns.tolist()
    assert sorted(header) == sorted((*named, *targets))


def test_inputs_are_neither_who_wrote_nor_where() -> None:
    assert not {*schema.INPUT_COLUMNS} & {*schema.UNUSED_COLUMNS, schema.QUESTION, *schema.TARGETS}
