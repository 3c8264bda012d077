"""scikit-learn's manners, owed by everything here that is fitted as its estimators are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from questlib.blending import Blend
from questlib.data import question_of
from questlib.hosts import HostRates
from questlib.lexical import LexicalModel
from questlib.metadata import MetadataEncoder
from questlib.schema import TARGETS
from questlib.ties import RankTies


@dataclass(frozen=True, kw_only=True)
class Case:
    """An estimator with parameters that are not its defaults, and what each of its methods is given."""

    estimator: Any
    fit: tuple[Any, ...]
    answer: str  # the method that needs what was learned
    given: tuple[Any, ...]


FRAME = pd.DataFrame(
    {
        "question_title": ["how is it", "what is it", "how good", "what is good", "how", "it is"] * 5,
        "question_body": ["it is so", "is it so", "so it is", "is so", "so"] * 6,
        "answer": ["good\nyes", "yes", "no 7"] * 10,
        "category": ["A", "B", "A"] * 10,
        "host": ["x", "y", "z", "x", "y"] * 6,
    }
)
# The first column is rare, the second has many zeros; the first model knows more of both.
RATINGS = np.column_stack([[0, 0, 0, 0, 0, 0, 0, 0, 0, 1] * 3, [0, 0, 0.25, 0, 1, 0, 0.5, 0, 0.75, 0.25] * 3])
SCORES = RATINGS + np.random.default_rng(0).random((2, 30, 2)) * [[[0.2]], [[2.0]]]
CASES = {
    type(case.estimator).__name__: case
    for case in (
        Case(
            estimator=RankTies(caution=0.0, least_gain=0.0, n_resamples=7, seed=3),
            fit=(SCORES[0], RATINGS), answer="transform", given=(SCORES[1],),
        ),
        Case(estimator=Blend(groups=[0, 1]), fit=(SCORES, RATINGS), answer="transform", given=(SCORES,)),
        Case(
            estimator=LexicalModel(alpha=2.0, metadata_weight=0.25, length_weight=0.5),
            fit=(FRAME, RATINGS), answer="predict", given=(FRAME,),
        ),
        Case(
            estimator=MetadataEncoder(n_hosts=2, use_text_statistics=True),
            fit=(FRAME,), answer="transform", given=(FRAME,),
        ),
        Case(
            estimator=HostRates(rare_share=0.2, strength=2.0),
            fit=(FRAME["host"], RATINGS), answer="transform", given=(SCORES[0], FRAME["host"]),
        ),
    )
}  # fmt: skip
# What of `check_estimator` asks nothing of the data: here they are tables, lists of models and columns of ratings.
CHECKS = (
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_mixin_order,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_set_params,
    estimator_checks.check_valid_tag_types,
)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def answer_of(case: Case, estimator: BaseEstimator) -> np.ndarray:
    return np.asarray(getattr(estimator, case.answer)(*case.given))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_estimator_passes_the_checks_of_scikit_learn(case: Case, check: Callable) -> None:
    check(type(case.estimator).__name__, case.estimator)


def test_clone_has_the_parameters_and_nothing_that_was_learned(case: Case) -> None:
    fitted = clone(case.estimator).fit(*case.fit)
    again = clone(fitted)
    assert again.get_params() == case.estimator.get_params() != type(fitted)().get_params()
    assert set(vars(again)) == set(again.get_params())
    with pytest.raises(NotFittedError):
        check_is_fitted(again)


def test_what_is_learned_ends_in_an_underscore_and_parameters_stay(case: Case) -> None:
    estimator = clone(case.estimator)
    assert estimator.fit(*case.fit) is estimator
    learned = set(vars(estimator)) - set(estimator.get_params())
    assert learned
    assert all(name.endswith("_") and not name.startswith("_") for name in learned)
    assert estimator.get_params() == case.estimator.get_params()


def test_every_parameter_that_is_set_counts(case: Case) -> None:
    answer = answer_of(case, clone(case.estimator).fit(*case.fit))
    changed = type(case.estimator)().set_params(**case.estimator.get_params()).fit(*case.fit)
    assert np.array_equal(answer_of(case, changed), answer)
    for name, default in type(case.estimator)().get_params().items():
        without = clone(case.estimator).set_params(**{name: default}).fit(*case.fit)
        assert not np.array_equal(answer_of(case, without), answer), name
    with pytest.raises(ValueError, match="Invalid parameter 'cautoin'"):
        changed.set_params(cautoin=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RankTies", {"caution": "high"}),
        ("RankTies", {"caution": float("nan")}),
        ("RankTies", {"n_resamples": 5.5}),
        ("RankTies", {"n_resamples": -1}),
        ("LexicalModel", {"metadata_weight": "1"}),
        ("MetadataEncoder", {"use_text_statistics": "no"}),
        ("HostRates", {"rare_share": "0.1"}),
        ("HostRates", {"strength": -20}),
    ],
)
def test_fit_refuses_a_parameter_that_cannot_be_by_its_name(name: str, options: dict[str, Any]) -> None:
    case = CASES[name]
    with pytest.raises((TypeError, ValueError), match=rf"{next(iter(options))} must .*however: "):
        clone(case.estimator).set_params(**options).fit(*case.fit)


def test_estimator_refuses_to_answer_or_to_be_saved_before_fit(case: Case, tmp_path) -> None:
    estimator, name = clone(case.estimator), type(case.estimator).__name__
    save = estimator.to_json if hasattr(estimator, "to_json") else lambda: estimator.save(tmp_path / "saved")
    for call in (lambda: answer_of(case, estimator), save):
        with pytest.raises(NotFittedError, match=f"This {name} instance is not fitted yet. Call 'fit'"):
            call()
    assert not (tmp_path / "saved").exists()


def test_what_is_fitted_twice_knows_the_second_data_only(case: Case) -> None:
    estimator = clone(case.estimator).fit(*case.fit)
    first = answer_of(case, estimator)
    estimator.fit(*(each[..., :13, :] if isinstance(each, np.ndarray) else each.iloc[:13] for each in case.fit))
    assert not np.array_equal(answer_of(case, estimator), first)
    estimator.fit(*case.fit)
    assert np.array_equal(answer_of(case, estimator), first)


def test_what_is_saved_answers_as_what_was_fitted(case: Case, tmp_path) -> None:
    estimator = clone(case.estimator).fit(*case.fit)
    if hasattr(estimator, "to_json"):
        read = type(estimator).from_json(estimator.to_json())
        assert read.to_json() == estimator.to_json()
    else:
        estimator.save(str(tmp_path))
        read = type(estimator).load(str(tmp_path))
    assert read.get_params() == estimator.get_params()
    assert np.array_equal(answer_of(case, read), answer_of(case, estimator))


def test_what_was_set_by_numpys_numbers_is_saved_too(case: Case, tmp_path) -> None:
    known = {name: np.array(value) for name, value in case.estimator.get_params().items()}
    asked = {name: value if value.ndim else value[()] for name, value in known.items()}  # as of an array of choices
    estimator = clone(case.estimator).set_params(**asked).fit(*case.fit)
    if hasattr(estimator, "to_json"):
        read = type(estimator).from_json(estimator.to_json())
    else:
        estimator.save(tmp_path)
        read = type(estimator).load(tmp_path)
    assert read.get_params() == case.estimator.get_params()


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_estimator_works_whatever_kind_of_output_is_set_for_all(case: Case, output: str) -> None:
    expected = answer_of(case, clone(case.estimator).fit(*case.fit))
    with config_context(transform_output=output):
        assert np.array_equal(answer_of(case, clone(case.estimator).fit(*case.fit)), expected)


def test_encoder_and_lexical_model_work_inside_scikit_learns_own(toy_frame: pd.DataFrame) -> None:
    ratings, questions = toy_frame[list(TARGETS)].to_numpy(), question_of(toy_frame)
    pipeline = make_pipeline(MetadataEncoder(n_hosts=2), Ridge()).fit(toy_frame, ratings)
    assert pipeline[:-1].get_feature_names_out().tolist()[-1] == "host=Others"
    assert pipeline.predict(toy_frame).shape == ratings.shape
    search = GridSearchCV(
        LexicalModel(), {"alpha": [1.0, 100.0]}, cv=GroupKFold(3), scoring="neg_mean_squared_error", error_score="raise"
    ).fit(toy_frame, ratings, groups=questions)
    assert search.best_params_ == {"alpha": 100.0}
    assert search.predict(toy_frame).shape == ratings.shape
