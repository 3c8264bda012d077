from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from questlib.parameters import check_parameters, override, read_cell, read_parameters, write_cell
from questlib.profiles import read_profile

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
    ("content", "told"),
    [
        (b"\x89PNG\xff", "must be a notebook whose cell .* however: 'utf-8' codec"),
        (b"[1, 2]", "must be a notebook whose cell tagged parameters assigns plain values, however: 'list' object"),
        (b'{"cells": [', "must be a notebook whose cell .* JSON"),
        ("%matplotlib inline\nx: int = 1", "must be .* assigns plain values, however: invalid syntax"),
        ("x: float = 2 * 3", "must be .* assigns plain values, however: malformed node"),
        ("x: float = None", "must be .* assigns plain values, however: float"),
        ('data: str = ""', r"must declare \['out'\] in a cell tagged parameters, however it has \['data'\]"),
    ],
)
def test_file_that_is_no_notebook_to_run_is_refused_by_name(tmp_path: Path, content: bytes | str, told: str) -> None:
    if isinstance(content, str):
        cell = new_code_cell(content, metadata={"tags": ["parameters"]})
        content = nbformat.writes(new_notebook(cells=[cell])).encode()
    (tmp_path / "any.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=f"any.ipynb {told}"):
        read_parameters(tmp_path / "any.ipynb", needed=("data", "out"))


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


@pytest.mark.parametrize(
    "name",
    ["members.first.stages.full.epochs", "members.first.stages.full.learning_rate", "members.first.weights.spam"],
)
def test_what_an_anchor_puts_in_two_places_is_changed_in_the_one_that_is_named(name: str, tmp_path: Path) -> None:
    text = """
members:
  - {name: first, kind: transformer, stages: &stages [{name: full, epochs: 1}], weights: &weights {spam: 1}}
  - {name: second, kind: transformer, stages: *stages, weights: *weights}
"""
    (tmp_path / "anchored.yaml").write_text(text)
    profile = read_profile(tmp_path, "anchored")
    first, second = override(DEFAULTS, profile, {name: 9})["members"]
    assert first != {**second, "name": "first"}
    assert second == profile["members"][1]
    assert second == {
        "name": "second",
        "kind": "transformer",
        "stages": [{"name": "full", "epochs": 1}],
        "weights": {"spam": 1},
    }


def test_later_changes_win_and_a_whole_list_comes_before_what_reaches_into_it() -> None:
    whole = [{"name": "only", "epochs": 1}]
    assert override(DEFAULTS, {"stages.only.epochs": 5, "stages": whole})["stages"] == [{"name": "only", "epochs": 5}]
    assert override(DEFAULTS, {"stages.full.epochs": 5}, {"stages": whole})["stages"] == whole
    assert override(DEFAULTS, {"folds": 3}, {"folds": 4})["folds"] == 4


def test_what_is_said_for_all_members_reaches_the_own_copies_of_one_whenever_it_is_said() -> None:
    profile = {"members.minilm.stages.full.epochs": 8}
    for changes in ([profile, {"stages.full.rate": 7}], [{"stages.full.rate": 7}, profile]):
        [minilm] = override(DEFAULTS, *changes)["members"][:1]
        assert [stage.get("rate") for stage in minilm["stages"]] == [7, None, 7]
        assert [stage["epochs"] for stage in minilm["stages"]] == [8, 2, 8]
    # What is said for the one wins over what is said for all, until its list is given whole.
    [minilm] = override(DEFAULTS, profile, {"stages.full.epochs": 9})["members"][:1]
    assert [stage["epochs"] for stage in minilm["stages"]] == [8, 2, 8]
    members = [{"name": "minilm", "kind": "transformer"}]
    assert override(DEFAULTS, profile, {"members": members})["members"] == members


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
        (
            {"layer_decay": 0.9},  # of a stage, though none here states it
            ValueError,
            "'layer_decay' is a field of a stage; name it by one of: stages.full.layer_decay, stages.head.layer_decay",
        ),
        (
            {"learning_rates": 1e-5},
            ValueError,
            "'learning_rates' is close to 'learning_rate', a field of a stage; name it by one of: stages.full.lear",
        ),
        ({"folds": 2.5}, TypeError, "parameter folds must be of type int, however: 2.5"),
        ({"stages": None}, TypeError, "parameter stages must be of type list, however: None"),
        ({"share": "3e-5"}, TypeError, "parameter share must be of type float, however: '3e-5'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        override(DEFAULTS, changes, {})


def test_a_profiles_name_that_leads_nowhere_any_more_is_told_as_such() -> None:
    profile, own = {"members.minilm.stages.full.epochs": 8}, {"stages": [{"name": "all", "epochs": 1}]}
    told = (
        r"unknown entry in members.minilm.stages.full.epochs: 'full'.* by a profile: give members.minilm.stages whole"
    )
    with pytest.raises(ValueError, match=told):
        override(DEFAULTS, profile, own)
    [minilm] = override(DEFAULTS, profile, own | {"members.minilm.stages": own["stages"]})["members"][:1]
    assert minilm["stages"] == own["stages"]


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_name_parameters_of_their_notebook_in_the_right_kind(name: str) -> None:
    notebook = "predict.ipynb" if name == "kaggle-predict" else "quest.ipynb"
    override(read_parameters(NOTEBOOKS / notebook), read_profile(NOTEBOOKS / "profiles", name))


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


# In the kernel, where papermill was called directly


def names_after(*cells: str) -> dict[str, Any]:
    """A kernel's globals after these cells."""
    names: dict[str, Any] = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, names)
    return names


DECLARED = """limit: float = 119  # minutes
folds: int = 5
is_quick: bool = False
stages: list = [
    {"name": "full", "learning_rate": 3e-5},
    {"name": "head", "learning_rate": 0.0},
]  # fields"""


def test_parameters_that_papermill_gave_are_taken_where_they_fit() -> None:
    given = (
        "# Parameters\nfolds = 3\nlimit = 30\nPAPERMILL_OUTPUT_PATH = 'a.ipynb'\nstages[0]['learning_rate'] = 1e-05\n"
    )
    check_parameters(names_after(DECLARED, given, "import os\nscratch = folder = 1"))
    check_parameters(names_after(DECLARED))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            "fold = 3",
            ValueError,
            r"unknown parameter: 'fold' \(did you mean 'folds'\?\); known: folds, is_quick",
        ),
        ("os = 3\nlimits = 1", ValueError, r"unknown parameter: 'os'.*, 'limits' \(did you mean 'limit'\?\)"),
        (
            "learning_rate = 1e-05",
            ValueError,
            r"field of a stage; name it by one of: stages\[0\]\['learning_rate'\], stages\[1\]\['learning_rate'\]$",
        ),
        ("folds = 2.5", TypeError, "parameter folds must be of type int, however: 2.5"),
        ("is_quick = 'false'", TypeError, "parameter is_quick must be of type bool, however: 'false'"),
        ("limit = float('inf')", ValueError, "parameter limit must be a finite number, however: inf"),
    ],
)
def test_parameters_that_papermill_only_logs_are_refused_by_name(
    given: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_parameters(names_after(DECLARED, f"# Parameters\n{given}\n"))


def test_parameters_that_a_person_changed_in_their_cell_are_held_against_what_it_declares() -> None:
    with pytest.raises(TypeError, match="parameter folds must be of type int, however: 'five'"):
        check_parameters(names_after(DECLARED, DECLARED.replace("folds: int = 5", "folds: int = 'five'")))
    # What was given before belongs to the cell that was run before.
    check_parameters(names_after(DECLARED, "# Parameters\nfold = 3\n", DECLARED))
