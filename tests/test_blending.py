import numpy as np
import numpy.typing as npt
import pytest
from sklearn.exceptions import NotFittedError

from questlib.blending import Blend
from questlib.metrics import mean_spearman

Array = npt.NDArray[np.float64]


def models_of(noise: list[float], *, n_rows: int = 600, n_targets: int = 4, seed: int = 0) -> tuple[list[Array], Array]:
    """Ratings, and models that see them through more or less noise of their own."""
    generator = np.random.default_rng(seed)
    targets = generator.random((n_rows, n_targets))
    return [targets + generator.normal(0, scale, targets.shape) for scale in noise], targets


def test_blend_trusts_the_better_model_and_gains_on_rows_not_seen() -> None:
    models, targets = models_of([0.3, 1.5])
    blend = Blend().fit([one[:400] for one in models], targets[:400])
    assert np.all(blend.weights_[0] > 0.7)
    unseen = [one[400:] for one in models]
    assert mean_spearman(blend.transform(unseen), targets[400:]) > mean_spearman(np.mean(unseen, axis=0), targets[400:])


def test_spreads_count_by_what_unseen_questions_say() -> None:
    unlike, targets = models_of([0.3, 1.5])
    freest_first = Blend().fit(unlike, targets).trust_[::-1]
    assert freest_first[0] > 0.5
    assert np.all(freest_first[:-1] >= freest_first[1:])
    alike, targets = models_of([0.5, 0.5], n_rows=200)
    assert Blend().fit(alike, targets).trust_[0] > 0.1


def test_weights_are_shares_of_each_target() -> None:
    models, targets = models_of([0.3, 0.6, 3.0])
    weights = Blend().fit(models, targets).weights_
    assert weights.shape == (3, 4)
    assert weights.min() >= 0
    assert weights.sum(axis=0) == pytest.approx(np.ones(4))


def test_blend_of_models_that_know_nothing_stays_near_the_equal_mean() -> None:
    generator = np.random.default_rng(0)
    models, targets = list(generator.random((3, 400, 5))), generator.random((400, 5))
    assert Blend().fit(models, targets).weights_ == pytest.approx(np.full((3, 5), 1 / 3), abs=0.15)


@pytest.mark.parametrize("n_rows", [1, 2, 4])
def test_blend_of_too_few_questions_is_the_equal_mean(n_rows: int) -> None:
    models, targets = models_of([0.1, 2.0], n_rows=n_rows)
    blend = Blend().fit(models, targets)
    assert blend.trust_.tolist() == [1, 0, 0, 0, 0]
    assert blend.transform(models) == pytest.approx(np.mean(models, axis=0))


def test_blend_of_one_model_is_that_model() -> None:
    models, targets = models_of([0.5])
    assert np.array_equal(Blend().fit(models, targets).transform(models), models[0])


def test_blend_of_models_that_agree_is_what_they_say_to_the_last_bit() -> None:
    models, targets = models_of([0.3, 0.6, 3.0], n_targets=30)
    alike = np.random.default_rng(0).random((50, 30)).round(1)  # ones and zeros too
    assert np.array_equal(Blend().fit(models, targets).transform([alike] * 3), alike)


def test_rows_of_one_question_count_once() -> None:
    models, targets = models_of([0.3, 0.9], n_rows=200)
    models[0][:10] = np.random.default_rng(9).random((10, 4))  # the better model knows nothing of ten questions ...
    repeated = np.repeat(np.arange(200), np.where(np.arange(200) < 10, 40, 1))  # ... that have forty answers each
    once = Blend().fit(models, targets).weights_
    many, rated = [one[repeated] for one in models], targets[repeated]
    assert Blend().fit(many, rated, questions=repeated).weights_ == pytest.approx(once, abs=0.015)
    assert np.abs(Blend().fit(many, rated).weights_ - once).max() > 0.1


def test_targets_of_a_group_share_what_they_know() -> None:
    good_first, targets = models_of([0.6, 0.9], n_targets=8, seed=1)
    models = [
        np.hstack([good_first[0][:, :4], good_first[1][:, 4:]]),
        np.hstack([good_first[1][:, :4], good_first[0][:, 4:]]),
    ]
    few = slice(0, 60)
    grouped = Blend(groups=[0] * 4 + [1] * 4).fit([one[few] for one in models], targets[few])
    assert grouped.weights_[0, :4].mean() > 0.5 > grouped.weights_[0, 4:].mean()


def test_a_constant_model_or_target_is_no_obstacle() -> None:
    models, targets = models_of([0.5, 0.5])
    models[0][:, 0], targets[:, 1] = 0.5, 0.0
    blended = Blend().fit(models, targets).transform(models)
    assert np.isfinite(blended).all()


def test_state_survives_json() -> None:
    models, targets = models_of([0.3, 1.0])
    blend = Blend(groups=[0, 0, 1, 1]).fit(models, targets)
    read = Blend.from_json(blend.to_json())
    assert read.groups == [0, 0, 1, 1]
    named = Blend(groups=["question", "question", "answer", "answer"]).fit(models, targets)
    assert Blend.from_json(named.to_json()).groups == named.groups
    assert np.array_equal(read.transform(models), blend.transform(models))


def test_blend_refuses_what_it_cannot_read() -> None:
    models, targets = models_of([0.3, 1.0], n_rows=20)
    with pytest.raises(ValueError, match=r"per model, however: shapes=\[\]"):
        Blend().fit([], targets)
    with pytest.raises(ValueError, match=r"shapes=\[\(20, 4\), \(19, 4\)\]"):
        Blend().fit([models[0], models[1][:19]], targets)
    with pytest.raises(ValueError, match=r"per model, however: shapes=\[\(4,\)\]; give a list"):
        Blend().fit(models[0], targets)
    with pytest.raises(ValueError, match=r"true.shape=\(20, 3\)"):
        Blend().fit(models, targets[:, :3])
    with pytest.raises(ValueError, match=r"NaN or infinity in models \[1\]"):
        Blend().fit([models[0], np.where(targets > 0.5, np.nan, models[1])], targets)
    with pytest.raises(ValueError, match=r"targets must be finite"):
        Blend().fit(models, np.where(targets > 0.5, np.nan, targets))
    with pytest.raises(ValueError, match=r"one group per target, 4, however: groups.shape=\(3,\)"):
        Blend(groups=[0, 0, 0]).fit(models, targets)
    with pytest.raises(ValueError, match=r"questions must have shape \(20,\)"):
        Blend().fit(models, targets, questions=["q"])
    with pytest.raises(ValueError, match=r"questions must name that of each row, however 1 rows have none; give"):
        Blend().fit(models, targets, questions=[*range(19), None])
    with pytest.raises(NotFittedError, match="Blend instance is not fitted yet"):
        Blend().transform(models)
    with pytest.raises(NotFittedError, match="Blend instance is not fitted yet"):
        Blend().to_json()
    with pytest.raises(ValueError, match=r"scores.shape=\(1, 20, 4\), self.weights_.shape=\(2, 4\)"):
        Blend().fit(models, targets).transform(models[:1])


@pytest.mark.parametrize("n_targets", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (3, 1, 1, 1, 1), (9, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2, 2)])
def test_few_questions_are_blended_as_far_as_they_tell_anything(sizes: tuple[int, ...], n_targets: int) -> None:
    questions = np.repeat(np.arange(len(sizes)), sizes)
    generator = np.random.default_rng(0)
    targets = generator.random((len(questions), n_targets))
    blend = Blend().fit([targets, generator.random(targets.shape)], targets, questions=questions)
    assert np.isfinite(blend.weights_).all()
    assert blend.trust_.sum() == pytest.approx(1)
