from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from questlib.parameters import override, read_cell, read_parameters, read_profile, read_value, write_cell

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PROFILES = sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))
CELL = """data: str = "a folder"  # with "quotes" # and hashes
share = 0.5  # of rows
stages: list = [
    {"name": "full", "epochs": 3},
]  # fields
last: dict = {}"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
DEFAULTS: dict[str, Any] = {
    "folds": 5,
    "share": 0.1,
    "max_length": 256,
    "stages": [
        {"name": "full", "epochs": 3, "learning_rate": 3e-5},
        {"name": "head", "epochs": 2, "learning_rate": 0.0},
        {"name": "full", "epochs": 1, "learning_rate": 1e-5},
    ],
    "members": [{"name": "minilm", "kind": "transformer"}, {"name": "lexical", "kind": "lexical"}],
    "target_weights": {"answer_helpful": 2.0},
}


@given(values=st.dictionaries(st.sampled_from(["data", "share", "stages", "last"]), JSON))
def test_parameters_take_any_json_and_keep_the_rest_of_the_cell(values: dict) -> None:
    source = write_cell(CELL, values)
    assert read_cell(source) == read_cell(CELL) | values
    for comment in ('# with "quotes" # and hashes', "# of rows", "# fields"):
        assert comment in source


def test_parameters_that_keep_their_value_keep_their_lines() -> None:
    assert write_cell(CELL, {"stages": [{"name": "full", "epochs": 3}], "share": 0.5}) == CELL


def test_parameters_of_the_main_notebook_are_all_read() -> None:
    cells = nbformat.read(NOTEBOOKS / "quest.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    declared: dict[str, Any] = {}
    exec(source, declared)
    del declared["__builtins__"], declared["__annotations__"]
    assert read_parameters(NOTEBOOKS / "quest.ipynb") == declared
    assert len(declared) > 30


def test_parameters_of_a_notebook_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook .*absent.ipynb; run from the project's root, or name one"):
        read_parameters(tmp_path / "absent.ipynb")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("stages.head.epochs", ("stages", 1, "epochs")),
        ("stages.full.learning_rate", ("stages", 2, "learning_rate")),  # every stage of that name
        ("members.minilm.max_length", ("members", 0, "max_length")),
        ("target_weights.answer_plausible", ("target_weights", "answer_plausible")),
        ("members.minilm.stages.head.epochs", ("members", 0, "stages", 1, "epochs")),
        ("members.minilm.target_weights.answer_helpful", ("members", 0, "target_weights", "answer_helpful")),
    ],
)
def test_a_dotted_name_reaches_inside(name: str, place: tuple) -> None:
    values = override(DEFAULTS, {name: 7})
    found: Any = values
    for step in place:
        found = found[step]
    assert found == 7
    untouched = {key: value for key, value in values.items() if key != place[0]}
    assert untouched == {key: value for key, value in DEFAULTS.items() if key != place[0]}


def test_what_is_overridden_is_a_copy() -> None:
    before = repr(DEFAULTS)
    override(DEFAULTS, {"stages.full.epochs": 9, "members.minilm.stages.full.epochs": 8})
    assert repr(DEFAULTS) == before


def test_a_member_keeps_its_own_stages_apart_from_the_general_ones() -> None:
    values = override(DEFAULTS, {"members.minilm.stages.full.epochs": 8})
    assert [stage["epochs"] for stage in values["stages"]] == [3, 2, 1]
    assert [stage["epochs"] for stage in values["members"][0]["stages"]] == [8, 2, 8]


def test_later_changes_win_and_a_whole_list_comes_before_what_reaches_into_it() -> None:
    whole = [{"name": "only", "epochs": 1}]
    assert override(DEFAULTS, {"stages.only.epochs": 5, "stages": whole})["stages"] == [{"name": "only", "epochs": 5}]
    assert override(DEFAULTS, {"stages.full.epochs": 5}, {"stages": whole})["stages"] == whole
    assert override(DEFAULTS, {"folds": 3}, {"folds": 4})["folds"] == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"fold": 3}, ValueError, r"unknown parameter: 'fold' \(did you mean 'folds'"),
        ({"stage.full.epochs": 3}, ValueError, r"unknown parameter: 'stage' \(did you mean 'stages'"),
        ({"stages.ful.epochs": 3}, ValueError, r"unknown entry in stages.ful.epochs: 'ful' \(did you mean 'full'"),
        ({"members.mini.seed": 3}, ValueError, r"'mini' \(did you mean 'minilm'\?\); known: lexical, minilm"),
        ({"stages.full": 3}, ValueError, "stages.full must go on to a field, such as stages.full.name"),
        ({"folds.first": 3}, ValueError, "folds.first must lead into a list or a mapping, however 'first' stands in 5"),
        (
            {"learning_rate": 1e-5},
            ValueError,
            "'learning_rate' is a field of a stage; name it by one of: stages.full.learning_rate, stages.head.lear",
        ),
        ({"folds": 2.5}, TypeError, "parameter folds must be of type int, however: 2.5"),
        ({"share": "3e-5"}, TypeError, "parameter share must be of type float, however: '3e-5'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        override(DEFAULTS, changes)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bert", "bert"),
        ("3", 3),
        ("2e-5", 2e-5),
        ("-1", -1),
        ("false", False),
        ("False", "False"),
        ('"5"', "5"),
        ("", ""),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ('{"a": 2}', {"a": 2}),
        ("[{name: a, kind: transformer}, {name: b, layout: joint}]", [
            {"name": "a", "kind": "transformer"}, {"name": "b", "layout": "joint"},
        ]),
        ("[1", "[1"),
    ],
)  # fmt: skip
def test_a_value_is_json_or_yamls_short_form_or_a_word(text: str, value: object) -> None:
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)


def test_profile_that_is_unknown_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown profile: 'smaple' \(did you mean 'sample'\?\); known: .*seed"):
        read_profile(NOTEBOOKS / "profiles", "smaple")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- folds\n- 3\n", "few.yaml must map parameters to values, however"),
        ("folds: [3\n", "few.yaml must be YAML, however"),
    ],
)
def test_profile_that_is_no_mapping_is_refused_by_path(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "few.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_profile(tmp_path, "few")


def test_profile_is_its_file_and_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("folds: 3\nstages.full.epochs: 2\n")
    (tmp_path / "plain.yaml").write_text("# nothing\n")
    assert read_profile(tmp_path, "few") == {"folds": 3, "stages.full.epochs": 2}
    assert read_profile(tmp_path, "plain") == {}


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_name_parameters_of_their_notebook_in_the_right_kind(name: str) -> None:
    notebook = "predict.ipynb" if name == "kaggle-predict" else "quest.ipynb"
    override(read_parameters(NOTEBOOKS / notebook), read_profile(NOTEBOOKS / "profiles", name))


def test_profiles_are_those_that_are_documented() -> None:
    assert PROFILES == ["cpu", "cpu-best", "kaggle", "kaggle-cpu", "kaggle-predict", "sample", "seed"]
    assert read_profile(NOTEBOOKS / "profiles", "kaggle") == {}


def test_default_that_is_no_literal_is_refused() -> None:
    with pytest.raises(ValueError, match="malformed node"):
        read_cell("folds: int = len('abc')")


def test_what_is_declared_a_float_may_have_halves_but_an_end() -> None:
    defaults = read_cell("limit: float = 119\nfolds: int = 5\n")
    assert override(defaults, {"limit": 0.5})["limit"] == 0.5
    assert override(defaults, {"limit": 30})["limit"] == 30
    for value in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="parameter limit must be a finite number, however"):
            override(defaults, {"limit": value})
    with pytest.raises(TypeError, match="parameter folds must be of type int, however: 2.5"):
        override(defaults, {"folds": 2.5})
