from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questlib.plan import NOTHING, WHOLE, Share, Speed, choose_shares, total_seconds


def cost_of(seconds: float, fixed: float = 0.0, rest: float = 0.0):
    """A fold whose first stage takes some seconds and whose other stages take the rest, over what is fixed."""
    return lambda share: fixed + share.epochs * (seconds + (0.0 if share.first_stage_alone else rest))


FOLDS = st.lists(st.tuples(st.floats(1, 100), st.floats(0, 5), st.floats(0, 20), st.booleans()), min_size=1, max_size=8)


@given(FOLDS, st.floats(1, 400), st.integers(1, 3))
def test_what_is_chosen_fits_and_is_the_most_valuable_first(folds, seconds: float, n_devices: int) -> None:
    costs = [cost_of(*numbers) for *numbers, _ in folds]
    shares = choose_shares(costs, is_first=[each for *_, each in folds], seconds=seconds, n_devices=n_devices)
    assert len(shares) == len(folds)
    assert total_seconds(costs, shares, n_devices=n_devices) <= seconds * (1 + 1e-9)
    assert all(bool(before) or not after for before, after in pairwise(shares))
    if total_seconds(costs, [WHOLE] * len(costs), n_devices=n_devices) <= seconds:
        assert shares == [WHOLE] * len(costs)


@given(st.integers(1, 12), st.floats(1, 50), st.floats(0.5, 1000))
def test_time_is_used_where_there_is_work_to_fill_it(n_folds: int, each: float, seconds: float) -> None:
    costs = [cost_of(each)] * n_folds
    shares = choose_shares(costs, is_first=[True] + [False] * (n_folds - 1), seconds=seconds)
    if n_folds * each >= seconds and seconds > 0.1 * each:
        assert total_seconds(costs, shares) >= 0.93 * seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (50, [WHOLE] * 5),
        (31, [WHOLE] * 3 + [NOTHING] * 2),
        (25, [Share(epochs=25 / 30)] * 3 + [NOTHING] * 2),
        (15, [Share(epochs=0.75)] * 2 + [NOTHING] * 3),
        (4, [Share(epochs=4 / 8, first_stage_alone=True)] + [NOTHING] * 4),
        (0.1, [NOTHING] * 5),
    ],
)
def test_last_folds_are_dropped_first_then_all_are_shortened_then_one_is_left(seconds: float, expected: list) -> None:
    shares = choose_shares([cost_of(8, rest=2)] * 5, is_first=[True] + [False] * 4, seconds=seconds)
    assert [share.first_stage_alone for share in shares] == [share.first_stage_alone for share in expected]
    assert [share.epochs for share in shares] == pytest.approx([share.epochs for share in expected], abs=0.01)


def test_first_fold_of_another_member_is_trained_as_far_as_time_goes() -> None:
    shares = choose_shares([cost_of(10), cost_of(100)], is_first=[True, True], seconds=40)
    assert shares[0] == WHOLE
    assert shares[1].first_stage_alone
    assert shares[1].epochs == pytest.approx(0.3, abs=0.01)
    assert choose_shares([cost_of(10), cost_of(100)], is_first=[True, False], seconds=40)[1] == NOTHING


def test_devices_share_the_folds_and_a_busy_one_takes_none_until_it_is_free() -> None:
    costs = [cost_of(10)] * 4
    assert choose_shares(costs, is_first=[True] + [False] * 3, seconds=20, n_devices=2) == [WHOLE] * 4
    chosen = choose_shares(costs, is_first=[True] + [False] * 3, seconds=20, n_devices=2, busy=[20])
    assert chosen == [WHOLE] * 2 + [NOTHING] * 2


def test_speed_tells_what_a_fold_takes_by_its_epochs() -> None:
    speed = Speed(before=5, stages=(1, 20), epochs=(100, 2), row=0.1, after=3)
    assert speed.fit_seconds((3, 2)) == 5 + 1 + 300 + 20 + 4
    assert speed.fit_seconds((0.5,)) == 5 + 1 + 50
    assert speed.fit_seconds((1, 1, 1, 1)) == 5 + 2 * (1 + 100 + 20 + 2)  # two cycles
    assert speed.predict_seconds(200) == 23
