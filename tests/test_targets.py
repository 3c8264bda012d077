import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from questlib.metrics import mean_spearman
from questlib.schema import TARGETS
from questlib.targets import RankScale, weigh_by_spread

LEVELS = st.sampled_from([0.0, 1 / 3, 0.5, 2 / 3, 1.0])


@given(st.lists(LEVELS, min_size=2, max_size=40))
def test_ratings_are_put_where_their_ranks_are(column):
    ratings = np.array(column)[:, None]
    scaled = RankScale().fit(ratings).transform(ratings)[:, 0]
    ranks = rankdata(ratings[:, 0])
    if np.ptp(ranks):
        np.testing.assert_allclose(scaled, (ranks - ranks.min()) / np.ptp(ranks))
    else:
        assert (scaled == ratings[:, 0]).all()


def test_a_rating_that_was_not_seen_lies_between_its_neighbours():
    scale = RankScale().fit([[0.0], [0.0], [0.0], [0.4], [1.0]])
    below, level, above = scale.transform([[0.2], [0.4], [0.7]])[:, 0]
    assert 0 < below < level < above < 1
    assert scale.transform([[0.0], [1.0]])[:, 0].tolist() == [0.0, 1.0]


def test_the_scale_leaves_the_score_as_it_is():
    generator = np.random.default_rng(0)
    ratings, predictions = generator.choice([0, 0.25, 0.5, 1.0], (50, 30)), generator.random((50, 30))
    scaled = RankScale().fit(ratings).transform(ratings)
    assert mean_spearman(predictions, scaled) == pytest.approx(mean_spearman(predictions, ratings))


def test_targets_that_vary_little_weigh_more_but_not_without_end():
    generator = np.random.default_rng(0)
    ratings = generator.random((200, 30))
    ratings[:, 3] *= 0.5
    ratings[:, 7] = 0
    weights = weigh_by_spread(ratings)
    assert list(weights) == list(TARGETS)
    assert weights[TARGETS[3]] == pytest.approx(2, rel=0.2)
    assert weights[TARGETS[7]] == 5
    assert weights[TARGETS[0]] == pytest.approx(1, rel=0.2)


def test_one_rating_for_all_rows_weighs_all_targets_alike():
    assert set(weigh_by_spread(np.full((4, 30), 0.5)).values()) == {1.0}
