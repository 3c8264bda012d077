import numpy as np
import pytest
import torch

from questlib.losses import binary_cross_entropy, weight_targets
from questlib.schema import TARGETS


def test_weights_of_targets_that_are_not_named_are_equal() -> None:
    assert weight_targets({}) == [1.0] * 30


def test_weights_stand_in_submission_order_and_average_one() -> None:
    weights = weight_targets({TARGETS[4]: 3.0, TARGETS[29]: 0})
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
        weight_targets(weights)


def test_loss_is_the_mean_of_what_the_formula_says() -> None:
    generator = np.random.default_rng(0)
    logits, targets, weights = generator.normal(0, 3, (4, 30)), generator.random((4, 30)), generator.random(30)
    prob = 1 / (1 + np.exp(-logits))
    expected = np.mean(-(targets * np.log(prob) + (1 - targets) * np.log(1 - prob)) * weights)
    found = binary_cross_entropy(*(torch.tensor(values) for values in (logits, targets, weights)))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_loss_is_least_at_the_rating() -> None:
    targets = torch.tensor([[0.25, 0.75]])
    best = binary_cross_entropy(torch.logit(targets), targets, torch.ones(2))
    for logit in (-9.0, -1.0, 0.0, 1.0, 9.0):
        assert binary_cross_entropy(torch.full((1, 2), logit), targets, torch.ones(2)) > best


def test_loss_of_a_target_that_weighs_nothing_moves_nothing() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    binary_cross_entropy(logits, torch.ones(3, 2), torch.tensor([2.0, 0.0])).backward()
    assert (logits.grad[:, 0] < 0).all()
    assert (logits.grad[:, 1] == 0).all()


def test_loss_stays_finite_for_extreme_logits() -> None:
    loss = binary_cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]), torch.ones(2))
    assert loss.item() == pytest.approx(1e4)
