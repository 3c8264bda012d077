import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from questlib.hosts import HostRates

HOSTS = ("cooking.example", "words.example", "maths.example")


def test_host_rates_learn_where_a_rare_rating_lives() -> None:
    hosts = np.repeat(HOSTS, 400)
    ratings = np.zeros((1200, 2))
    ratings[[410, 500, 700], 0] = 1.0  # three of 1,200, all on the second host
    ratings[::2, 1] = 1.0
    rates = HostRates().fit(hosts, ratings)
    scaled = rates.transform(np.full((4, 2), 0.5), [*HOSTS, "unknown.example"])
    assert scaled[1, 0] == scaled[3, 0] == 0.5
    assert np.all(scaled[[0, 2], 0] < 0.1)
    assert np.all(scaled[:, 1] == 0.5)
    read = HostRates.from_json(rates.to_json())
    assert np.array_equal(read.transform(np.full((3, 2), 0.5), HOSTS), scaled[:3])


def test_host_rates_refuse_what_they_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"hosts must have shape \(3,\), however: given.shape=\(2,\)"):
        HostRates().fit(["a", "b"], np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"targets must have shape .*true.shape=\(2,\)"):
        HostRates().fit(["a", "b"], np.zeros(2))
    for hosts, ratings in ((["a"], [[np.nan]]), (["a"], [[-0.5]]), ([], np.zeros((0, 2)))):
        with pytest.raises(
            ValueError, match=rf"targets must be ratings in \[0, 1\], however: len\(true\)={len(hosts)},"
        ):
            HostRates().fit(hosts, ratings)
    with pytest.raises(NotFittedError, match="HostRates instance is not fitted yet"):
        HostRates().transform([[0.5]], ["a"])
    two = HostRates().fit(["a", "b"], [[0.5]] * 2)
    with pytest.raises(ValueError, match=r"hosts must have shape \(1,\), however: given.shape=\(2,\)"):
        HostRates().fit(["a"], [[0.5]]).transform([[0.5]], ["a", "b"])
    for call in (lambda hosts: HostRates().fit(hosts, [[0.5]] * 2), lambda hosts: two.transform([[0.5]] * 2, hosts)):
        with pytest.raises(ValueError, match=r"hosts must name that of each row, however 1 rows have none; .*fill_nul"):
            call(["a", None])


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.full((3, 5), 0.5), r"must have 2 columns, however: scaled.shape=\(3, 5\)"),
        (np.full((3, 1), 0.5), r"must have 2 columns, however: scaled.shape=\(3, 1\)"),
        (np.full(3, 0.5), "must have 2 columns, however"),
        ([[0.5, 0.5], [0.5, np.nan], [0.5, 0.5]], "at least 0, however some are negative or NaN"),
        ([[0.5, 0.5], [-1.0, 0.5], [0.5, 0.5]], "at least 0, however some are negative or NaN"),
    ],
)
def test_host_rates_refuse_predictions_of_other_columns_or_that_are_none(predictions: object, message: str) -> None:
    ratings = np.zeros((1200, 2))
    ratings[[410, 500, 700], 0] = 1.0
    fitted = HostRates().fit(np.repeat(HOSTS, 400), ratings)
    for rates in (fitted, HostRates.from_json(fitted.to_json())):
        with pytest.raises(ValueError, match=message):
            rates.transform(predictions, HOSTS)
