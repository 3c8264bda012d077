import numpy as np
import pytest
import torch

from questlib import recipe
from questlib.metrics import mean_spearman
from questlib.model.losses import LOSSES
from questlib.model.losses.binary_cross_entropy import BinaryCrossEntropy
from questlib.recipe import ModelOptions
from questlib.schema import TARGETS


def test_weights_of_targets_that_are_not_named_are_equal() -> None:
    assert BinaryCrossEntropy({}).weights == [1.0] * 30


def test_weights_stand_in_submission_order_and_average_one() -> None:
    weights = BinaryCrossEntropy({TARGETS[4]: 3.0, TARGETS[29]: 0}).weights
    assert len(weights) == 30
    assert np.mean(weights) == pytest.approx(1)
    assert weights[29] == 0
    assert weights[4] == pytest.approx(3 * weights[0])
    assert len(set(weights)) == 3


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            {"answer_helpfull": 2},
            ValueError,
            r"unknown target in target_weights: 'answer_helpfull' \(did you mean 'answer_helpful'",
        ),
        (
            {"answer_helpful": -1},
            ValueError,
            r"target_weights\['answer_helpful'\] must lie in \[0, 1000\], however: -1",
        ),
        ({"answer_helpful": float("nan")}, ValueError, r"must lie in \[0, 1000\], however: nan"),
        ({"answer_helpful": "2"}, TypeError, r"must be a number in \[0, 1000\], however: '2'"),
        (dict.fromkeys(TARGETS, 0), ValueError, "at least one target weight must be above 0, however: all are 0"),
    ],
)
def test_weights_are_refused_by_name_and_value(weights: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ModelOptions(target_weights=weights)


def test_loss_is_the_mean_of_what_the_formula_says() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(0, 3, (4, 30)), generator.random((4, 30))
    loss = BinaryCrossEntropy({TARGETS[3]: 5.0})
    prob = 1 / (1 + np.exp(-logits))
    expected = np.mean(-(targets * np.log(prob) + (1 - targets) * np.log(1 - prob)) * loss.weights)
    found = loss(torch.tensor(logits), torch.tensor(targets))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_least_near_the_rating_and_finite_far_from_it(name: str) -> None:
    loss, targets = LOSSES[name]({}), torch.full((2, 30), 0.25)
    best = loss(torch.logit(targets), targets)
    for logit in (-1e4, -60.0, -1.0, 1.0, 60.0, 1e4):
        worse = loss(torch.full((2, 30), logit), targets)
        assert torch.isfinite(worse)
        assert worse > best


def test_loss_of_a_target_that_weighs_nothing_moves_nothing() -> None:
    logits = torch.zeros(3, 30, requires_grad=True)
    BinaryCrossEntropy({TARGETS[1]: 0.0})(logits, torch.ones(3, 30)).backward()
    assert (logits.grad[:, 0] < 0).all()
    assert (logits.grad[:, 1] == 0).all()


def test_ordinal_asks_of_each_step_of_the_ladder_whether_the_rating_is_above_it() -> None:
    generator = np.random.default_rng(1)
    logits, targets = generator.normal(0, 2, (6, 30)), generator.choice([0, 1 / 3, 1 / 2, 2 / 3, 1], (6, 30))
    expected = []
    for step in (1 / 6, 5 / 12, 7 / 12, 5 / 6):
        prob = 1 / (1 + np.exp(-logits) * step / (1 - step))  # odds of the logit, over those of the step
        expected.append(np.mean(np.where(targets > step, -np.log(prob), -np.log(1 - prob))))
    found = LOSSES["ordinal"]({})(torch.tensor(logits), torch.tensor(targets))
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_losses_are_those_that_a_recipe_may_name() -> None:
    assert recipe.LOSSES == list(LOSSES)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].compares_rows])
def test_losses_that_compare_rows_are_less_where_rows_stand_in_the_order_of_their_ratings(name: str) -> None:
    targets = torch.tensor([[0.0], [0.5], [1.0]]).expand(3, 30)
    logits = torch.tensor([[-0.4], [0.1], [0.5]]).expand(3, 30)
    loss, entropy = LOSSES[name]({}), BinaryCrossEntropy({})
    in_order, reversed_ = loss(logits, targets), loss(logits.flip(0), targets)
    assert reversed_ - entropy(logits.flip(0), targets) > in_order - entropy(logits, targets) + 0.1
    equal = torch.full((3, 30), 0.5)
    assert loss(logits, equal).item() == pytest.approx(entropy(logits, equal).item())


def test_margin_ranking_asks_for_a_tenth_between_rows_that_were_rated_apart() -> None:
    targets = torch.tensor([[0.0], [1.0]]).expand(2, 30)
    prob = torch.tensor([[0.50], [0.53]]).expand(2, 30)
    added = LOSSES["margin_ranking"]({})(torch.logit(prob), targets) - BinaryCrossEntropy({})(
        torch.logit(prob), targets
    )
    assert added.item() == pytest.approx(0.07, abs=1e-6)


def test_soft_spearman_is_the_correlation_where_logits_are_far_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(12, 30, generator=generator)
    logits = 50 * torch.randn(12, 30, generator=generator)
    added = LOSSES["soft_spearman"]({})(logits, targets) - BinaryCrossEntropy({})(logits, targets)
    assert 1 - added.item() == pytest.approx(mean_spearman(logits.numpy(), targets.numpy()), abs=2e-3)
