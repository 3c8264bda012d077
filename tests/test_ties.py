import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.exceptions import NotFittedError

from questlib.metrics import spearman_by_target
from questlib.ties import RankTies

Array = npt.NDArray[np.float64]
# Without guard, the programme alone.
EXACT = {"caution": 0.0, "least_gain": 0.0, "n_resamples": 0}


def best_by_brute_force(predictions: Array, targets: Array) -> float:
    """Try every way to cut the distinct predictions into runs, each tied or left in order."""
    levels = rankdata(predictions, method="dense").astype(int) - 1
    best = 0.0
    for cuts in itertools.product([False, True], repeat=levels.max()):
        runs = np.cumsum([0, *cuts])[levels]
        if runs.max() > 0:
            best = max(best, spearmanr(runs, targets).statistic)
    return best


def noisy_table(n_rows: int, n_columns: int, seed: int = 0) -> tuple[Array, Array]:
    """Ratings of which 9 in 10 are equal, and predictions that know a little about them."""
    generator = np.random.default_rng(seed)
    targets = np.where(
        generator.random((n_rows, n_columns)) < 0.1, generator.integers(1, 4, (n_rows, n_columns)) / 3, 0
    )
    predictions = 1 / (1 + np.exp(3 - 3 * targets - generator.normal(size=targets.shape)))
    return predictions, targets


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_programme_finds_what_brute_force_finds(n_rows: int, n_levels: int, n_ratings: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    predictions = generator.integers(0, n_levels, n_rows) / n_levels
    targets = generator.integers(0, n_ratings, n_rows) / n_ratings
    if np.ptp(predictions) == 0 or np.ptp(targets) == 0:
        return
    tied = RankTies(**EXACT).fit(predictions[:, None], targets[:, None]).transform(predictions[:, None])
    best = best_by_brute_force(predictions, targets)
    if best <= 1e-8:  # nothing here ranks the targets the right way round, so nothing is worth a change
        assert np.array_equal(tied[:, 0], predictions)
    else:
        assert spearmanr(tied[:, 0], targets).statistic == pytest.approx(best, abs=1e-8)


def test_programme_solves_columns_of_one_table_as_it_solves_each_alone() -> None:
    predictions, targets = noisy_table(300, 6)
    together = RankTies().fit(predictions, targets).intervals_
    alone = [RankTies().fit(predictions[:, [c]], targets[:, [c]]).intervals_[0] for c in range(6)]
    assert together == alone


def test_ties_raise_the_score_on_rows_not_seen() -> None:
    predictions, targets = noisy_table(4000, 5)
    ties = RankTies().fit(predictions[:2000], targets[:2000])
    raw = spearman_by_target(predictions[2000:], targets[2000:])
    assert np.all(spearman_by_target(ties.transform(predictions[2000:]), targets[2000:]) > raw + 0.03)


def test_guard_leaves_a_column_alone_that_nothing_ties() -> None:
    generator = np.random.default_rng(0)
    targets = generator.random((1000, 3))
    predictions = targets + generator.normal(0, 0.3, targets.shape)
    assert RankTies().fit(predictions, targets).intervals_ == [[], [], []]
    assert any(RankTies(**EXACT).fit(predictions, targets).intervals_)


def test_guard_leaves_noise_alone() -> None:
    generator = np.random.default_rng(1)
    predictions, targets = generator.random((400, 8)), generator.random((400, 8))
    assert RankTies().fit(predictions, targets).intervals_ == [[]] * 8
    assert all(RankTies(**EXACT).fit(predictions, targets).intervals_)


def test_rows_of_one_question_count_once() -> None:
    # Few enough rows for every one to be a boundary.
    predictions, targets = noisy_table(60, 3)
    repeated = np.repeat(np.arange(60), np.where(np.arange(60) % 7 == 0, 6, 1))
    once = RankTies(**EXACT).fit(predictions, targets)
    grouped = RankTies(**EXACT).fit(predictions[repeated], targets[repeated], questions=repeated)
    ungrouped = RankTies(**EXACT).fit(predictions[repeated], targets[repeated])
    assert np.allclose(grouped.transform(predictions), once.transform(predictions))
    assert not np.allclose(ungrouped.transform(predictions), once.transform(predictions))


tables = st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3]))


@settings(max_examples=80, deadline=None)
@given(tables, st.booleans())
def test_transform_keeps_order_and_variation_and_is_stable(table: tuple, guarded: bool) -> None:
    n_rows, n_columns, seed, decimals = table
    generator = np.random.default_rng(seed)
    predictions, targets = noisy_table(n_rows, n_columns, seed)
    predictions = predictions.round(decimals or 9)
    ties = RankTies(**({} if guarded else EXACT)).fit(predictions, targets)
    for new in (predictions, predictions[:1], generator.normal(0, 5, (10, n_columns)), np.full((4, n_columns), 0.5)):
        tied = ties.transform(new)
        assert np.array_equal(ties.transform(new), tied)
        assert np.array_equal(ties.transform(tied), tied)
        shuffled = generator.permutation(len(new))
        assert np.array_equal(ties.transform(new[shuffled]), tied[shuffled])
        for before, after in zip(new.T, tied.T, strict=True):
            order = np.argsort(before, kind="stable")
            assert np.all(np.diff(after[order]) >= 0)
            assert all(np.ptp(after[before == value]) == 0 for value in np.unique(before))
            assert (np.ptp(before) == 0) or (np.ptp(after) > 0)


def test_transform_stays_within_zero_and_one() -> None:
    predictions, targets = noisy_table(500, 4)
    tied = RankTies().fit(predictions, targets).transform(predictions)
    assert tied.min() >= 0
    assert tied.max() <= 1


@pytest.mark.parametrize("constant", ["predictions", "targets", "both"])
def test_constant_columns_are_left_alone(constant: str) -> None:
    predictions, targets = noisy_table(50, 2)
    if constant != "targets":
        predictions[:, 0] = 0.3
    if constant != "predictions":
        targets[:, 0] = 0.0
    ties = RankTies(**EXACT).fit(predictions, targets)
    assert np.array_equal(ties.transform(predictions)[:, 0], predictions[:, 0])


def test_a_row_alone_is_answered_as_among_others() -> None:
    predictions, targets = noisy_table(500, 4)
    ties = RankTies().fit(predictions, targets)
    tied = ties.transform(predictions)
    assert (tied != predictions).any()
    assert all(np.array_equal(ties.transform(predictions[[row]]), tied[[row]]) for row in range(500))


def test_state_survives_json() -> None:
    predictions, targets = noisy_table(500, 4)
    ties = RankTies(caution=0.25).fit(predictions, targets)
    read = RankTies.from_json(ties.to_json())
    assert any(np.isinf(low) for runs in ties.intervals_ for low, _, _ in runs)
    assert read.intervals_ == ties.intervals_
    assert read.caution == 0.25
    assert np.array_equal(read.transform(predictions), ties.transform(predictions))


def test_fit_refuses_what_it_cannot_read() -> None:
    predictions, targets = noisy_table(20, 3)
    with pytest.raises(ValueError, match=r"must share one shape .* predicted.shape=\(20, 2\), true.shape=\(20, 3\)"):
        RankTies().fit(predictions[:, :2], targets)
    with pytest.raises(ValueError, match=r"predictions must have shape .*\(20,\)"):
        RankTies().fit(predictions[:, 0], targets)
    with pytest.raises(ValueError, match=r"with rows"):
        RankTies().fit(predictions[:0], targets[:0])
    with pytest.raises(ValueError, match=r"questions must have shape \(20,\), however: given.shape=\(19,\)"):
        RankTies().fit(predictions, targets, questions=["q"] * 19)
    with pytest.raises(ValueError, match=r"questions must name that of each row, however 2 rows have none; give"):
        RankTies().fit(predictions, targets, questions=[*"abcdefghijklmnopqr", None, np.nan])
    for name, broken in (("predictions", (np.nan, 0.0)), ("targets", (0.0, np.inf))):
        spoilt, rated = predictions.copy(), targets.copy()
        spoilt[3, 1] += broken[0]
        rated[3, 1] += broken[1]
        with pytest.raises(ValueError, match=rf"{name} must be finite, however: NaN or infinity in columns \[1\]"):
            RankTies().fit(spoilt, rated)


def test_transform_refuses_what_it_cannot_read() -> None:
    predictions, targets = noisy_table(20, 3)
    for call in (lambda: RankTies().transform(predictions), lambda: RankTies().to_json()):
        with pytest.raises(NotFittedError, match="RankTies instance is not fitted yet"):
            call()
    ties = RankTies().fit(predictions, targets)
    with pytest.raises(ValueError, match=r"must have 3 columns, however: predicted.shape=\(20, 2\)"):
        ties.transform(predictions[:, :2])
    with pytest.raises(ValueError, match=r"NaN or infinity in columns \[2\]"):
        ties.transform(np.where(np.arange(3) == 2, np.nan, predictions))
    assert ties.transform(predictions[:0]).shape == (0, 3)


@pytest.mark.parametrize("module", ["ties", "blending", "lexical"])
def test_import_needs_no_torch(module: str) -> None:
    code = f"import sys, questlib.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real_data
@pytest.mark.skipif("QUEST_OOF" not in os.environ, reason="QUEST_OOF names no folder")
def test_ties_gain_on_real_predictions_of_questions_not_seen() -> None:
    with np.load(Path(os.environ["QUEST_OOF"]) / "sixth_place.npz", allow_pickle=False) as stored:
        predictions = np.mean([stored[name] for name in ("albert", "bert", "roberta", "xlnet")], axis=0)
        targets, fold = stored["targets"], stored["fold"]
    unseen = fold == 1
    tied = RankTies().fit(predictions[~unseen], targets[~unseen]).transform(predictions[unseen])
    gain = spearman_by_target(tied, targets[unseen]) - spearman_by_target(predictions[unseen], targets[unseen])
    assert gain.mean() > 0.03
    assert gain.min() > -0.02
