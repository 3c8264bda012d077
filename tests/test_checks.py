import numpy as np
import pytest

from questlib.checks import refuse_outside, refuse_unknown


def test_unknown_names_are_refused_together_each_with_its_nearest() -> None:
    with pytest.raises(ValueError, match="unknown parameter") as caught:
        refuse_unknown(
            ["folds", "bacth_size", "zzz", "epochs_"], known=("batch_size", "epochs", "folds"), what="parameter"
        )
    assert str(caught.value) == (
        "unknown parameter: 'bacth_size' (did you mean 'batch_size'?), 'zzz', 'epochs_' (did you mean 'epochs'?); "
        "known: batch_size, epochs, folds"
    )


def test_unknown_names_need_not_be_strings() -> None:
    with pytest.raises(ValueError, match=r"unknown parameter: 5; known: folds"):
        refuse_unknown([5], known=("folds",), what="parameter")  # YAML keys may be numbers
    with pytest.raises(ValueError, match=r"unknown kind: \['a'\]; known: folds"):
        refuse_unknown([["a"]], known={"folds": 1}, what="kind")


@pytest.mark.parametrize("given", [[], ["folds"], {"folds": 3}])
def test_known_names_pass(given: list[str] | dict[str, int]) -> None:
    refuse_unknown(given, known=("folds", "seed"), what="parameter")


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float64(0.5), np.float32(0.25), np.int64(1), np.uint8(0)])
def test_numbers_inside_pass_whoever_made_them(value: float) -> None:
    refuse_outside(value, low=0, high=1, what="share")


@pytest.mark.parametrize(
    "value", [-1e-9, 1.0001, float("nan"), float("inf"), -float("inf"), np.int64(2), np.float32("nan")]
)
def test_numbers_outside_are_refused_by_value(value: float) -> None:
    with pytest.raises(ValueError, match=r"^share must lie in \[0, 1\], however: ") as caught:
        refuse_outside(value, low=0, high=1, what="share")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["0.5", None, True, np.True_, [0.5], 0.5j, np.array([0.5])])
def test_what_is_no_number_is_refused_by_kind(value: object) -> None:
    with pytest.raises(TypeError, match=r"^share must be a number in \[0, 1\], however: ") as caught:
        refuse_outside(value, low=0, high=1, what="share")
    assert repr(value) in str(caught.value)
