"""Boosted stumps learn from metadata and the shape of texts what no line through them tells."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from questlib import BoostedMember, BoostedRecipe
from questlib.members import boosted
from questlib.metadata import MetadataEncoder
from questlib.metrics import mean_spearman
from questlib.schema import TARGETS


def make_table(n_rows: int, seed: int) -> pd.DataFrame:
    """Ratings that are high where an answer is neither short nor long, and but for the last the more so at one host."""
    generator = np.random.default_rng(seed)
    length, host = generator.integers(1, 60, n_rows), generator.integers(0, 3, n_rows)
    is_good = (length > 20) & (length < 40)
    return pd.DataFrame(
        {
            "question_title": "what?", "question_body": "body", "answer": ["word " * n for n in length],
            "url": [f"http://any/{n}" for n in range(n_rows)], "category": "ANY", "host": [f"h{n}" for n in host],
        }
        | {target: (is_good + 0.5 * (host == 1)) / 1.5 for target in TARGETS[:-1]} | {TARGETS[-1]: 0.25}
    )  # fmt: skip


def test_what_lies_between_and_what_hosts_differ_in_is_learned():
    known, unseen = make_table(300, 0), make_table(300, 1)
    predicted = BoostedMember(BoostedRecipe()).fit(known).predict(unseen)
    rated = unseen[list(TARGETS)].to_numpy()
    assert mean_spearman(predicted[:, :-1], rated[:, :-1]) > 0.85
    np.testing.assert_allclose(predicted[:, -1], 0.25)  # all rows have it, and no stump parts them


def test_more_stumps_or_less_shrinkage_learn_more():
    known = make_table(300, 0)
    rated = known[list(TARGETS)].to_numpy()

    def error_of(**options: float) -> float:
        return float(((BoostedMember(BoostedRecipe(**options)).fit(known).predict(known) - rated) ** 2).mean())

    usual = error_of()
    assert error_of(n_stumps=10) > 1.5 * usual
    assert error_of(shrinkage=0.01) > 1.5 * usual


def test_stumps_are_those_of_scikit_learn(toy_frame):
    member = BoostedMember(BoostedRecipe(n_stumps=30, shrinkage=0.2)).fit(toy_frame)
    features = MetadataEncoder(n_hosts=100, use_text_statistics=True).fit_transform(toy_frame)
    for number in (0, 7, 29):
        expected = GradientBoostingRegressor(
            n_estimators=30, learning_rate=0.2, max_depth=1, subsample=0.7, max_features=0.2, random_state=number
        ).fit(features, toy_frame[TARGETS[number]])
        found = member.predict(toy_frame)[:, number]
        np.testing.assert_allclose(found, expected.predict(features).clip(0, 1), atol=1e-12)


def test_one_row_is_learned_and_what_was_never_seen_is_predicted(toy_frame):
    [predicted] = BoostedMember(BoostedRecipe(n_stumps=3)).fit(toy_frame, rows=[2]).predict(toy_frame, rows=[5])
    np.testing.assert_allclose(predicted, toy_frame[list(TARGETS)].to_numpy(dtype=float)[2])
    strange = toy_frame.iloc[:2].assign(host="unknown.example", category=None, question_body=None, answer="")
    assert np.isfinite(BoostedMember(BoostedRecipe(n_stumps=3)).fit(toy_frame).predict(strange)).all()
    assert BoostedMember(BoostedRecipe(n_stumps=3)).fit(toy_frame).predict(toy_frame.iloc[:0]).shape == (0, 30)


@pytest.mark.parametrize("n_rows", [1, 7])
def test_however_many_rows_are_predicted_at_a_time_they_are_predicted_alike(toy_frame, monkeypatch, n_rows):
    member = BoostedMember(BoostedRecipe(n_stumps=10)).fit(toy_frame)
    expected = member.predict(toy_frame)
    monkeypatch.setattr(boosted, "_ROWS_AT_A_TIME", n_rows)
    assert np.array_equal(member.predict(toy_frame), expected)
