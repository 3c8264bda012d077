import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from questlib.data import fill_nulls
from questlib.metadata import MetadataEncoder
from questlib.schema import METADATA_COLUMNS, TEXT_COLUMNS

NAMES = st.text(max_size=8)


def make(categories: list[str], hosts: list[str], text: str = "One? Two.\n3 = x;") -> pd.DataFrame:
    return pd.DataFrame({"category": categories, "host": hosts} | dict.fromkeys(TEXT_COLUMNS, text))


def test_category_and_host_are_one_hot_in_sorted_order() -> None:
    frame = make(["B", "A", "B", "C"], ["y.org", "x.org", "y.org", "z.org"])
    encoder = MetadataEncoder(n_hosts=2).fit(frame)
    assert encoder.get_feature_names_out().tolist() == [
        "category=A", "category=B", "category=C", "host=x.org", "host=y.org", "host=Others",
    ]  # fmt: skip
    encoded = encoder.transform(frame)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [
        [0, 1, 0, 0, 1, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1],
    ]


def test_hosts_are_the_most_frequent_and_ties_go_by_name() -> None:
    hosts = ["d"] * 3 + ["c"] * 2 + ["b"] * 2 + ["a"]
    frame = make(["A"] * 8, hosts)
    assert MetadataEncoder(n_hosts=2).fit(frame).hosts_ == ["b", "d"]
    assert MetadataEncoder(n_hosts=3).fit(frame.iloc[::-1]).hosts_ == ["b", "c", "d"]
    assert MetadataEncoder(n_hosts=0).fit(frame).hosts_ == []
    assert MetadataEncoder(n_hosts=99).fit(frame).hosts_ == ["a", "b", "c", "d"]


def test_unknown_category_is_zeros_and_unknown_host_is_others() -> None:
    encoder = MetadataEncoder(n_hosts=1).fit(make(["A", "B"], ["x", "x"]))
    unseen = make(["C", "A"], ["y", "x"])
    assert encoder.transform(unseen).tolist() == [[0, 0, 0, 1], [1, 0, 1, 0]]


def test_nulls_have_a_stated_place(toy_frame: pd.DataFrame) -> None:
    toy_frame.loc[0, ["category", "host"]] = None
    encoder = MetadataEncoder(n_hosts=99).fit(fill_nulls(toy_frame))
    encoded = pd.DataFrame(encoder.transform(fill_nulls(toy_frame)), columns=encoder.get_feature_names_out())
    assert encoded.loc[0, ["category=unknown", "host=unknown"]].tolist() == [1, 1]
    assert encoded.loc[1:, ["category=unknown", "host=unknown"]].to_numpy().sum() == 0


@pytest.mark.parametrize("kind", ["string", "string[pyarrow]", "category"])
def test_kind_of_column_tells_the_encoder_nothing(toy_frame: pd.DataFrame, kind: str) -> None:
    converted = toy_frame.astype(dict.fromkeys((*METADATA_COLUMNS, *TEXT_COLUMNS), kind))
    plain, other = (MetadataEncoder(use_text_statistics=True).fit(frame.iloc[:3]) for frame in (toy_frame, converted))
    assert other.to_json() == plain.to_json()  # no host of a row that it was not given
    converted.loc[2, METADATA_COLUMNS] = toy_frame.loc[2, METADATA_COLUMNS] = None
    np.testing.assert_array_equal(other.transform(converted), plain.transform(toy_frame))


def test_encoder_learns_from_the_training_fold_only(toy_frame: pd.DataFrame) -> None:
    encoder = MetadataEncoder(use_text_statistics=True).fit(toy_frame.iloc[:12])
    before = encoder.to_json()
    encoder.transform(toy_frame.assign(category="new", host="new", answer="x" * 9999))
    assert encoder.to_json() == before
    assert before != MetadataEncoder(use_text_statistics=True).fit(toy_frame).to_json()


def test_text_statistics_are_standardised_on_the_training_fold(toy_frame: pd.DataFrame) -> None:
    encoder = MetadataEncoder(use_text_statistics=True).fit(toy_frame)
    encoded = pd.DataFrame(encoder.transform(toy_frame), columns=encoder.get_feature_names_out())
    statistics = [name for name in encoder.get_feature_names_out() if "=" not in name]
    assert len(statistics) == 15
    assert len(MetadataEncoder().fit(toy_frame).get_feature_names_out()) == len(encoder.get_feature_names_out()) - 15
    np.testing.assert_allclose(encoded[statistics].mean(), 0, atol=1e-5)
    assert set(encoded[statistics].std(ddof=0).round(4)) == {0.0, 1.0}
    assert encoded["answer_characters"].corr(np.log1p(toy_frame["answer"].str.len())) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "statistic", "value"),
    [
        ("abc", "characters", np.log(4)),
        ("a\nb\n", "lines", np.log(3)),
        ("why? how?", "question_marks", np.log(3)),
        ("a1b2", "digits", 0.5),
        ("x = {y};", "symbols", 0.5),
        ("", "characters", 0),
        ("", "digits", 0),
        ("", "symbols", 0),
    ],
)
def test_text_statistics_measure_what_they_name(text: str, statistic: str, value: float) -> None:
    encoder = MetadataEncoder(use_text_statistics=True).fit(make(["A"], ["x"], text="other"))
    encoder.means_[:], encoder.scales_[:] = 0, 1
    values = encoder.transform(make(["A"], ["x"], text=text))[0]
    encoded = dict(zip(encoder.get_feature_names_out(), values, strict=True))
    assert [encoded[f"{column}_{statistic}"] for column in TEXT_COLUMNS] == pytest.approx([value] * 3)


def test_text_statistic_that_is_constant_in_the_fold_stays_small_elsewhere() -> None:
    frame = make(["A"] * 7, ["x"] * 7, text="123abc4")  # the mean of seven equal shares is off by a rounding error
    encoder = MetadataEncoder(use_text_statistics=True).fit(frame)
    assert np.abs(encoder.transform(make(["A"], ["x"], text="4 = x; why?\n"))).max() < 10


@given(
    rows=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=12),
    unseen=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4),
    n_hosts=st.integers(0, 5),
    use_text_statistics=st.booleans(),
)
def test_state_comes_back_from_json(
    rows: list[tuple[str, str]], unseen: list[tuple[str, str]], n_hosts: int, use_text_statistics: bool
) -> None:
    frame, other = (make(*map(list, zip(*some, strict=True)), text="".join(map(str, some))) for some in (rows, unseen))
    encoder = MetadataEncoder(n_hosts=n_hosts, use_text_statistics=use_text_statistics).fit(frame)
    again = MetadataEncoder.from_json(encoder.to_json())
    assert again.get_params() == encoder.get_params()
    assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    for table in (frame, other):
        np.testing.assert_array_equal(again.transform(table), encoder.transform(table))
        block = again.transform(table)[:, len(encoder.categories_) :][:, : len(encoder.hosts_) + 1]
        assert (block.sum(axis=1) == 1).all()  # a host of its own, or Others
    assert again.to_json() == encoder.to_json()


def test_state_is_plain_json(toy_frame: pd.DataFrame) -> None:
    state = json.loads(MetadataEncoder(use_text_statistics=True).fit(toy_frame).to_json(), parse_constant=pytest.fail)
    assert state["parameters"] == {"n_hosts": 10, "use_text_statistics": True}
    assert state["state"]["categories_"] == sorted(set(toy_frame["category"]))


def test_encoder_gives_tables_where_asked_to(toy_frame: pd.DataFrame) -> None:
    encoder = MetadataEncoder(n_hosts=1, use_text_statistics=True).set_output(transform="pandas").fit(toy_frame)
    table = encoder.transform(toy_frame)
    assert list(table.columns) == encoder.get_feature_names_out().tolist()
    assert table["host=stackoverflow.com"].tolist() == (toy_frame["host"] == "stackoverflow.com").tolist()


def test_encoder_names_a_missing_column(toy_frame: pd.DataFrame) -> None:
    encoder = MetadataEncoder(use_text_statistics=True)
    with pytest.raises(ValueError, match=r"frame must hold the columns \['host', 'answer'\]"):
        encoder.fit(toy_frame.drop(columns=["host", "answer"]))
    with pytest.raises(ValueError, match=r"frame must hold the columns \['host'\]"):
        encoder.fit(toy_frame).transform(toy_frame.drop(columns="host"))


@pytest.mark.parametrize(
    "call", [lambda encoder, frame: encoder.transform(frame), lambda encoder, _: encoder.to_json()]
)
def test_encoder_refuses_to_work_before_fit(call: object, toy_frame: pd.DataFrame) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        call(MetadataEncoder(), toy_frame)


def test_encoder_refuses_what_is_no_table_and_counts_that_are_not_whole(toy_frame: pd.DataFrame) -> None:
    for table in (toy_frame.to_numpy(), {}):
        with pytest.raises(TypeError, match="frame must be a pandas DataFrame, however: <class"):
            MetadataEncoder().fit(table)
    for n_hosts in (2.5, "3", None):
        with pytest.raises(TypeError, match=f"n_hosts must be a whole number, however: {n_hosts!r}"):
            MetadataEncoder(n_hosts=n_hosts).fit(toy_frame)


@pytest.mark.parametrize(("n_hosts", "rows"), [(-1, 3), (5, 0)])
def test_encoder_refuses_negative_counts_and_empty_folds(toy_frame: pd.DataFrame, n_hosts: int, rows: int) -> None:
    message = rf"there must be rows, however: self.n_hosts={n_hosts}, len\(frame\)={rows}"
    with pytest.raises(ValueError, match=message):
        MetadataEncoder(n_hosts=n_hosts).fit(toy_frame.iloc[:rows])


@pytest.mark.parametrize(
    ("column", "value", "shown"), [("category", None, "None"), ("host", 7, "7"), ("host", np.nan, "nan")]
)
def test_encoder_refuses_what_is_no_string(toy_frame: pd.DataFrame, column: str, value: object, shown: str) -> None:
    toy_frame[column] = [value, *toy_frame[column][1:]]
    with pytest.raises(TypeError, match=rf"{column} must hold strings, however: \[{shown}\]; .*fill_nulls"):
        MetadataEncoder().fit(toy_frame)
    MetadataEncoder().fit(fill_nulls(toy_frame))


@pytest.mark.parametrize("column", TEXT_COLUMNS)
def test_encoder_of_text_statistics_refuses_null_text_wherever_it_is_given(
    toy_frame: pd.DataFrame, column: str
) -> None:
    whole = MetadataEncoder(use_text_statistics=True).fit(toy_frame)
    toy_frame[column] = [None, *toy_frame[column][1:]]
    for call in (whole.transform, MetadataEncoder(use_text_statistics=True).fit):
        with pytest.raises(TypeError, match=rf"{column} must hold strings, however: \[None\]; .*fill_nulls"):
            call(toy_frame)
    assert np.isfinite(whole.transform(fill_nulls(toy_frame))).all()
    MetadataEncoder().fit(toy_frame).transform(toy_frame)  # which reads no text


def test_encoder_leaves_the_frame_as_it_was(toy_frame: pd.DataFrame) -> None:
    before = toy_frame.copy(deep=True)
    MetadataEncoder(use_text_statistics=True).fit_transform(toy_frame)
    pd.testing.assert_frame_equal(toy_frame, before)
