import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from questlib.lexical import LexicalModel
from questlib.metrics import mean_spearman
from questlib.schema import METADATA_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS

HOSTS = ("cooking.example", "words.example", "maths.example")


def make_table(n_rows: int, seed: int) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """Ratings that follow a word, an answer's length and the host."""
    generator = np.random.default_rng(seed)
    asks, length = generator.random(n_rows) < 0.5, generator.integers(1, 40, n_rows)
    host = generator.integers(0, 3, n_rows)
    frame = pd.DataFrame(
        {
            "question_title": np.where(asks, "how should one do this?", "what is this thing?"),
            "question_body": "some body text here",
            "answer": ["word " * n for n in length],
            "category": "ANY",
            "host": np.array(HOSTS)[host],
        }
    )
    return frame, np.column_stack([asks, length / 40, host == 1]).astype(float)


def test_model_learns_words_lengths_and_hosts() -> None:
    known, ratings = make_table(200, 0)
    unseen, rated = make_table(200, 1)
    predicted = LexicalModel().fit(known, ratings).predict(unseen)
    for column in range(3):
        assert mean_spearman(predicted[:, [column]], rated[:, [column]]) > 0.8
    forgetful = LexicalModel(metadata_weight=0).fit(known, ratings).predict(unseen)
    assert mean_spearman(forgetful[:, [2]], rated[:, [2]]) < 0.3


def test_predictions_are_ratings_and_the_same_every_time() -> None:
    known, ratings = make_table(100, 0)
    wordy = known.assign(answer="word " * 400)  # ten times as long as any it learns from
    first, second = (LexicalModel(alpha=1e-3).fit(known, ratings).predict(wordy) for _ in range(2))
    assert np.array_equal(first, second)
    assert (first.min() == 0) | (first.max() == 1)
    assert ((first >= 0) & (first <= 1)).all()


def test_unknown_host_nulls_and_one_row_are_predicted() -> None:
    known, ratings = make_table(100, 0)
    strange = known.iloc[:1].assign(host="unknown.example", category=None, question_body=None, answer="")
    predicted = LexicalModel().fit(known, ratings).predict(strange)
    assert predicted.shape == (1, 3)
    assert np.isfinite(predicted).all()
    assert LexicalModel().fit(known, ratings).predict(known.iloc[:0]).shape == (0, 3)


@pytest.mark.parametrize("kind", ["string", "string[pyarrow]", "category"])
def test_predictions_are_the_same_from_whatever_kind_of_column(kind: str) -> None:
    known, ratings = make_table(50, 0)
    known.loc[3, ["answer", "category", "host"]] = None
    converted = known.astype(kind)
    expected = LexicalModel().fit(known, ratings).predict(known)
    assert np.array_equal(LexicalModel().fit(converted, ratings).predict(converted), expected)


def test_frame_is_not_changed() -> None:
    known, ratings = make_table(50, 0)
    before = known.copy()
    LexicalModel().fit(known, ratings).predict(known)
    pd.testing.assert_frame_equal(known, before)


@pytest.mark.parametrize("column", [*TEXT_COLUMNS, *METADATA_COLUMNS])
def test_model_names_a_missing_column(column: str) -> None:
    known, ratings = make_table(30, 0)
    with pytest.raises(ValueError, match=rf"frame must hold the columns \['{column}'\], however it holds"):
        LexicalModel().fit(known.drop(columns=column), ratings)


def test_model_refuses_what_it_cannot_read() -> None:
    known, ratings = make_table(30, 0)
    with pytest.raises(ValueError, match=r"\(30, n_targets\) with rows, however: true.shape=\(29, 3\)"):
        LexicalModel().fit(known, ratings[:29])
    with pytest.raises(ValueError, match="targets must be finite"):
        LexicalModel().fit(known, np.where(ratings > 0, np.nan, ratings))
    fitted = LexicalModel().fit(known, ratings)
    for call in (lambda: LexicalModel().fit(None, ratings), lambda: fitted.predict([])):
        with pytest.raises(TypeError, match="frame must be a pandas DataFrame, however: "):
            call()
    with pytest.raises(NotFittedError, match="LexicalModel instance is not fitted yet"):
        LexicalModel().predict(known)


def test_saved_model_predicts_alike(tmp_path) -> None:
    known, ratings = make_table(100, 0)
    unseen = make_table(50, 1)[0]
    unseen.loc[3, "host"] = "unknown.example"
    model = LexicalModel(alpha=2.0).fit(known, ratings)
    model.save(tmp_path / "fold")
    loaded = LexicalModel.load(tmp_path / "fold")
    np.testing.assert_allclose(loaded.predict(unseen), model.predict(unseen), atol=1e-6)
    assert loaded.alpha == 2.0
    assert {path.name for path in (tmp_path / "fold").iterdir()} == {"lexical.json", "lexical.safetensors"}


@pytest.mark.real_data
@pytest.mark.skipif("QUEST_DATA" not in os.environ, reason="QUEST_DATA names no folder")
def test_model_reaches_its_score_on_real_questions_not_seen() -> None:
    table = pd.read_csv(Path(os.environ["QUEST_DATA"]) / "train.csv")
    unseen = pd.util.hash_array(table[QUESTION].to_numpy()) % 4 == 0
    ratings = table[list(TARGETS)].to_numpy()
    predicted = LexicalModel().fit(table[~unseen], ratings[~unseen]).predict(table[unseen])
    alone = ~table.loc[unseen, QUESTION].duplicated().to_numpy()
    assert mean_spearman(predicted[alone], ratings[unseen][alone]) > 0.31


@pytest.mark.parametrize("texts", [["", "", ""], ["one", "two", "three"]])
def test_column_without_a_common_word_says_nothing(texts: list[str], toy_frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = toy_frame.head(3).assign(**{name: texts for name in TEXT_COLUMNS})
    model = LexicalModel().fit(frame, np.array([[0.1], [0.5], [0.9]]))
    predicted = model.predict(frame)
    assert predicted.shape == (3, 1)
    model.save(tmp_path)
    np.testing.assert_allclose(LexicalModel.load(tmp_path).predict(frame), predicted)
