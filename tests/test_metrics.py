from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from questlib.blending import Blend
from questlib.data import assign_folds
from questlib.hosts import HostRates
from questlib.metrics import mean_spearman, one_row_per_question, score_predictions, spearman_by_target
from questlib.schema import RARE_TARGET, TARGETS
from questlib.ties import RankTies

RARE = TARGETS.index(RARE_TARGET)
# Few levels, so that most columns hold ties; tiny and huge ones, because only the order may count.
LEVELS = st.sampled_from([0.0, 1e-300, 1 / 3, 0.5, 0.5 + 2**-53, 2 / 3, 1.0, 1e300, -7.25, float("inf")])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[npt.NDArray, npt.NDArray]:
    shape = draw(st.tuples(st.integers(2, 40), st.integers(1, 6)))
    elements = draw(st.sampled_from([LEVELS, st.floats(allow_nan=False, width=64), st.floats(0, 1)]))
    return draw(arrays(np.float64, shape, elements=elements)), draw(arrays(np.float64, shape, elements=LEVELS))


def scipy_by_target(predictions: npt.NDArray, targets: npt.NDArray) -> npt.NDArray:
    # Ranks of infinities and constant columns are ours to define, so scipy is asked for the columns that vary.
    return np.array(
        [
            spearmanr(predicted, true).statistic if len(set(predicted)) > 1 and len(set(true)) > 1 else np.nan
            for predicted, true in zip(predictions.T, targets.T, strict=True)
        ]
    )


@given(pairs())
def test_spearman_equals_scipy_with_ties(pair: tuple[npt.NDArray, npt.NDArray]) -> None:
    predictions, targets = pair
    expected, found = scipy_by_target(predictions, targets), spearman_by_target(predictions, targets)
    vary = ~np.isnan(expected)
    np.testing.assert_allclose(found[vary], expected[vary], rtol=0, atol=1e-12)
    assert ((found >= -1) & (found <= 1) | np.isnan(found)).all()


def test_spearman_equals_scipy_on_a_table_of_the_real_size() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 5, size=(6079, 30)) / 4
    predictions = np.round(targets + generator.normal(0, 1, targets.shape), 2)  # rounded: ties here too
    np.testing.assert_allclose(
        spearman_by_target(predictions, targets), scipy_by_target(predictions, targets), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("spread", [1.0, 1e-9])
def test_spearman_equals_scipy_where_values_are_many_near_and_of_any_number(spread: float) -> None:
    generator = np.random.default_rng(1)
    predictions = spread * generator.beta(0.1, 3, size=(50_000, 2))
    predictions[0] = 1.0  # next to it, all others are near
    targets = predictions + spread * generator.normal(0, 1, predictions.shape)
    np.testing.assert_allclose(
        spearman_by_target(predictions, targets), scipy_by_target(predictions, targets), rtol=0, atol=1e-12
    )


@given(pairs(), st.randoms(use_true_random=False))
def test_spearman_depends_on_the_order_within_a_column_only(
    pair: tuple[npt.NDArray, npt.NDArray], random: Random
) -> None:
    predictions, targets = pair
    before = spearman_by_target(predictions, targets)
    _, ranks = np.unique(predictions, return_inverse=True)
    stretched = (ranks.reshape(predictions.shape) + 1.0) ** 3
    np.testing.assert_allclose(spearman_by_target(stretched, targets), before, atol=1e-12)
    order = list(range(len(targets)))
    random.shuffle(order)
    np.testing.assert_allclose(spearman_by_target(predictions[order], targets[order]), before, atol=1e-12)


def test_constant_target_has_no_correlation_and_a_constant_prediction_has_none_to_show() -> None:
    rising, constant = [0.0, 0.5, 1.0], [0.5, 0.5, 0.5]
    predictions = np.column_stack([rising, constant, rising, constant])
    targets = np.column_stack([rising, rising, constant, constant])
    np.testing.assert_allclose(spearman_by_target(predictions, targets), [1.0, 0.0, np.nan, np.nan], atol=1e-15)
    assert mean_spearman(predictions, targets) == pytest.approx(0.5, abs=1e-15)  # of the two columns that can be ranked


def test_mean_is_refused_when_every_target_is_constant() -> None:
    with pytest.raises(ValueError, match="at least one target column must vary, however: every column is constant"):
        mean_spearman(np.eye(3), np.ones((3, 3)))
    values = np.random.default_rng(0).random((3, 30))
    with pytest.raises(ValueError, match=f"at least one target column but {RARE_TARGET} must vary, however: every"):
        score_predictions(values, values * (np.arange(30) == RARE))


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), r"share one shape .*predicted.shape=\(3, 2\), true.shape=\(3, 3\)"),
        (np.zeros(3), np.zeros(3), r"share one shape .*predicted.shape=\(3,\)"),
        (
            pd.DataFrame([[0], [1], [1]], index=[0, 1, 0]),
            pd.DataFrame([[0], [1]]),
            r"predicted.shape=\(3, 1\), true.shape",
        ),
        (pd.DataFrame({"a": [0.5, None], "b": [0, 1]}).convert_dtypes(), np.eye(2), r"NaN in columns \[0\]"),
        (np.zeros((1, 2)), np.zeros((1, 2)), r"at least two rows, however: len\(predicted\)=1"),
        (np.zeros((0, 2)), np.zeros((0, 2)), r"at least two rows, however: len\(predicted\)=0"),
        ([[0, np.nan], [1, 1]], np.eye(2), r"predictions must not hold NaN, however: NaN in columns \[1\]"),
        (np.eye(2), [[np.nan, 0], [1, np.nan]], r"targets must not hold NaN, however: NaN in columns \[0, 1\]"),
    ],
)
def test_spearman_refuses_what_cannot_be_ranked(
    predictions: npt.ArrayLike, targets: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        spearman_by_target(predictions, targets)


@pytest.mark.parametrize(
    ("values", "said"),
    [([["a"], ["b"]], "could not convert string to float: 'a'"), ([[0, 1], [1]], "inhomogeneous")],
)
def test_what_is_no_table_of_numbers_is_refused_by_its_name(values: list, said: str) -> None:
    for call in (
        lambda: mean_spearman(np.eye(2), values),
        lambda: RankTies().fit(np.eye(2), values),
        lambda: Blend().fit([np.eye(2)], values),
        lambda: HostRates().fit(["a", "b"], values),
    ):
        with pytest.raises(TypeError, match=f"targets must hold numbers alone, .*however: .*{said}"):
            call()
    with pytest.raises(TypeError, match=f"predictions of model 1 must hold numbers alone, .*however: .*{said}"):
        Blend().fit([np.eye(2), values], np.eye(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frame: frame[frame.columns[::-1]],
            r"their columns in the same order, .* are \('question_asker.*', 'answer_well_written'\); reindex",
        ),
        (lambda frame: frame[::-1], r"their index in the same order, .*first to differ are \(0, 4\); reindex one like"),
    ],
)
def test_tables_whose_labels_are_in_another_order_are_not_scored_by_position(change: Callable, message: str) -> None:
    ratings = pd.DataFrame(np.random.default_rng(0).random((5, 30)), columns=list(TARGETS))
    for call in (mean_spearman, score_predictions):
        with pytest.raises(ValueError, match=message):
            call(ratings, change(ratings))
    assert mean_spearman(ratings, ratings.copy()) == pytest.approx(1)
    assert mean_spearman(ratings.to_numpy(), ratings) == pytest.approx(1)
    assert mean_spearman(ratings, ratings.set_axis(range(10, 15))) == pytest.approx(1)  # which say nothing of the order


@pytest.mark.parametrize("n_targets", [29, 31])
def test_other_columns_than_the_targets_are_not_scored(n_targets: int) -> None:
    values = np.random.default_rng(0).random((5, n_targets))
    with pytest.raises(ValueError, match=rf"a column for each of 30 targets, however: true.shape=\(5, {n_targets}\)"):
        score_predictions(values, values)


@given(st.lists(st.text(max_size=3) | st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 9))
def test_one_row_per_question_draws_each_question_once(questions: list[object], draws: int, seed: int) -> None:
    questions = [str(question).replace("\0", "") for question in questions]  # NumPy drops a NUL at the end
    drawn = one_row_per_question(questions, draws=draws, seed=seed)
    assert len(drawn) == draws
    for rows in drawn:
        assert sorted(questions[row] for row in rows) == sorted(set(questions))
        assert (np.diff(rows) > 0).all()
    again = one_row_per_question(np.array(questions), draws=draws, seed=seed)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))


def test_one_row_per_question_gives_every_row_its_chance() -> None:
    questions = ["a", "b", "a", "a", "b", "c"]
    drawn = one_row_per_question(questions, draws=600, seed=3)
    counts = np.bincount(np.concatenate(drawn), minlength=6)
    assert counts[5] == 600
    assert (np.abs(counts[[0, 2, 3]] - 200) < 50).all()
    assert (np.abs(counts[[1, 4]] - 300) < 50).all()
    assert any(
        (one != other).any()
        for one, other in zip(drawn, one_row_per_question(questions, draws=600, seed=4), strict=True)
    )


@pytest.mark.parametrize("n_questions", [3, 5, 9])
def test_questions_of_other_rows_than_are_scored_are_refused(n_questions: int) -> None:
    values = np.random.default_rng(0).random((6, 30))
    with pytest.raises(ValueError, match=rf"questions must have shape \(6,\), however: given.shape=\({n_questions},\)"):
        score_predictions(values, values, questions=np.arange(n_questions))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("read", [list, pd.Series, pd.Categorical])
def test_rows_without_a_question_are_not_taken_for_one_question(read: Callable, missing: object) -> None:
    questions, values = read(["a", "b", missing, "b", missing]), np.random.default_rng(0).random((5, 30))
    for call in (
        lambda: score_predictions(values, values, questions=questions),
        lambda: one_row_per_question(questions, draws=1, seed=0),
        lambda: assign_folds(questions, split="question", folds=2, seed=0),
    ):
        with pytest.raises(ValueError, match=r"however 2 rows have none; give questlib.question_of\(frame\)"):
            call()


@pytest.mark.parametrize(
    ("questions", "draws", "seed"), [([], 3, 0), (["a"], 0, 0), (["a"], 2.5, 0), (["a"], 1, -1), (["a"], 1, None)]
)
def test_one_row_per_question_refuses_no_rows_no_draws_and_no_seed(questions: list[str], draws: int, seed: int) -> None:
    message = (
        rf"of at least 0, in whole numbers, however: len\(question_index\)={len(questions)}, draws={draws}, seed={seed}"
    )
    with pytest.raises(ValueError, match=message):
        one_row_per_question(questions, draws=draws, seed=seed)


@pytest.mark.parametrize("draws", [10_001, 10**9])
def test_more_draws_than_memory_holds_are_refused_at_once(draws: int) -> None:
    with pytest.raises(ValueError, match=f"at most 10000 draws, however: draws={draws}"):
        one_row_per_question(["a"], draws=draws, seed=0)


@pytest.fixture
def scored() -> tuple[npt.NDArray, npt.NDArray, list[str]]:
    """Predictions, targets and questions of 60 rows, three rows a question."""
    generator = np.random.default_rng(7)
    targets = generator.integers(0, 4, size=(60, 30)) / 3
    return targets + generator.normal(0, 0.5, targets.shape), targets, [f"q{row // 3}" for row in range(60)]


def test_scores_of_all_rows_are_the_metrics(scored: tuple[npt.NDArray, npt.NDArray, list[str]]) -> None:
    predictions, targets, _ = scored
    scores, by_target = score_predictions(predictions, targets), spearman_by_target(predictions, targets)
    assert scores["by_target"] == pytest.approx(dict(zip(TARGETS, by_target, strict=True)), abs=1e-15)
    assert scores["mean"] == pytest.approx(by_target.mean(), abs=1e-15)
    assert scores["mean_without_rare"] == pytest.approx(np.delete(by_target, RARE).mean(), abs=1e-15)
    assert scores["mean"] != scores["mean_without_rare"]
    assert (scores["n_rows"], scores["n_draws"]) == (60, 1)


def test_scores_of_one_row_per_question_average_the_draws(scored: tuple[npt.NDArray, npt.NDArray, list[str]]) -> None:
    predictions, targets, questions = scored
    scores = score_predictions(predictions, targets, questions=questions, draws=5, seed=2)
    drawn = one_row_per_question(questions, draws=5, seed=2)
    by_draw = np.stack([spearman_by_target(predictions[rows], targets[rows]) for rows in drawn])
    assert scores["mean"] == pytest.approx(by_draw.mean(), abs=1e-15)
    assert list(scores["by_target"].values()) == pytest.approx(by_draw.mean(axis=0).tolist(), abs=1e-15)
    assert (scores["n_rows"], scores["n_draws"]) == (20, 5)
    assert scores["mean"] != score_predictions(predictions, targets)["mean"]


def test_scores_leave_out_a_constant_target_and_say_so(scored: tuple[npt.NDArray, npt.NDArray, list[str]]) -> None:
    predictions, targets, questions = scored
    targets[:, 3] = 0.0
    for chosen in (None, questions):
        scores = score_predictions(predictions, targets, questions=chosen)
        defined = [value for value in scores["by_target"].values() if value is not None]
        assert scores["by_target"][TARGETS[3]] is None
        assert len(defined) == 29
        assert scores["mean"] == pytest.approx(np.mean(defined), abs=1e-12)


def test_scores_take_a_target_that_varies_in_some_draws_only(
    scored: tuple[npt.NDArray, npt.NDArray, list[str]],
) -> None:
    predictions, targets, questions = scored
    targets[:, RARE] = 0.0
    targets[0, RARE] = 1.0  # one row of a question of three: a third of the draws sees it
    drawn = one_row_per_question(questions, draws=20, seed=0)
    seen = [spearman_by_target(predictions[rows], targets[rows])[RARE] for rows in drawn if 0 in rows]
    assert 0 < len(seen) < 20
    scores = score_predictions(predictions, targets, questions=questions, draws=20, seed=0)
    assert scores["by_target"][RARE_TARGET] == pytest.approx(np.mean(seen), abs=1e-12)


@given(
    st.lists(
        st.sampled_from(
            [0.0, 1.0, np.nextafter(1.0, 2.0), 1 + 1e-12, 5e-324, -1e-300, 1e300, -1.7e308, 1.7e308, np.inf]
        )
        | st.floats(-1e-3, 1e-3),
        min_size=2,
        max_size=40,
    )
)
def test_values_of_any_range_and_distance_are_ranked_as_scipy_ranks_them(values: list[float]) -> None:
    column = np.array(values)
    place = np.arange(len(column), dtype=float)
    expected = np.corrcoef(rankdata(column), place)[0, 1] if len(set(values)) > 1 else 0.0
    assert spearman_by_target(column[:, None], place[:, None])[0] == pytest.approx(expected, abs=1e-12)
