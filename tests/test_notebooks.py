import ast
import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from questlib.__main__ import main
from questlib.parameters import read_parameters
from questlib.profiles import read_profile
from questlib.recipe import TransformerRecipe
from questlib.typed_json import list_leaves

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
_SPECIAL = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.With, ast.Lambda)

notebook_of = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def is_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def imports_of(source: str) -> list[str]:
    """The top-level packages that a cell imports."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [name.split(".")[0] for name in plain + [node.module for node in nodes if isinstance(node, ast.ImportFrom)]]


@notebook_of
def test_notebook_is_thin(path):
    # The parameters are an interface, one line each; the limits are for code.
    sources = [cell.source for cell in code_cells(path) if not is_parameters(cell)]
    lines = [[line for line in source.splitlines() if line.strip()] for source in sources]
    assert len(sources) <= 12
    assert max(len(cell) for cell in lines) <= 10
    assert sum(len(cell) for cell in lines) <= 60
    for source in sources:
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, _SPECIAL)]


@notebook_of
def test_notebook_is_valid_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "language_info" in notebook.metadata
    assert "papermill" not in notebook.metadata
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in code_cells(path):
        assert not cell.outputs
        assert cell.execution_count is None
        assert not set(cell.metadata) - {"tags"}


@notebook_of
def test_notebook_has_one_cell_of_annotated_json_parameters_with_comments(path):
    [cell] = [cell for cell in code_cells(path) if is_parameters(cell)]
    tree = ast.parse(cell.source)
    for node in tree.body:
        assert isinstance(node, ast.AnnAssign)
        json.dumps(ast.literal_eval(node.value))
        assert "#" in cell.source.splitlines()[node.end_lineno - 1]
    assert set(read_parameters(path)) == {node.target.id for node in tree.body}


@notebook_of
def test_every_parameter_is_used(path):
    sources = [cell.source for cell in code_cells(path) if not is_parameters(cell)]
    used = {node.id for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    if any("Recipe.from_parameters(globals())" in source for source in sources):
        used |= {"members", "split", "folds", "seed", *list_leaves(TransformerRecipe)}
    assert set(read_parameters(path)) <= used


def test_kaggle_profile_overrides_nothing():
    assert read_profile(NOTEBOOKS / "profiles", "kaggle") == {}


def test_seed_profile_is_the_write_ups_recipe():
    seed = read_profile(NOTEBOOKS / "profiles", "seed")
    full, head = seed["stages"]
    assert (seed["encoder"], seed["max_length"], seed["pooling"]) == ("bert-base-uncased", 512, "cls")
    assert (seed["layout"], seed["separator"], seed["head_share"]) == ("joint", "space", 1.0)
    assert (seed["loss"], seed["hidden_dropout"], seed["attention_dropout"]) == ("binary_cross_entropy", 0.1, 0.1)
    assert (full["epochs"], full["learning_rate"], full["trainable"]) == (10, 4e-5, ["*"])
    assert (head["epochs"], head["head_learning_rate"], head["trainable"]) == (20, 3e-5, ["head.*"])
    assert {stage["weight_decay"] for stage in seed["stages"]} == {0.02}
    assert not any("warmup_share" in stage or "schedule" in stage for stage in seed["stages"])
    assert (seed["batch_size"], seed["evaluate_every"], seed["patience"], seed["threshold"]) == (8, 100, 3, 1e-5)
    assert seed["stop_share"] > 0  # without questions to stop by, patience does nothing
    assert (seed["optimizer"], seed["precision"], seed["seed"]) == ("adamw_8bit", "fp16", 42)


@notebook_of
def test_hub_is_closed_before_anything_can_ask_it(path):
    sources = [cell.source for cell in code_cells(path)]
    imported = [set(imports_of(source)) for source in sources]
    first_import = next(number for number, names in enumerate(imported) if names & {"questlib", "transformers"})
    assert any("HF_HUB_OFFLINE" in source for source in sources[:first_import]) or path.stem in (
        "explore",
        "sweep_report",
    )


@notebook_of
def test_parameters_are_checked_by_the_first_cell_that_has_the_library(path):
    checked = [number for number, cell in enumerate(code_cells(path)) if "check_parameters(globals())" in cell.source]
    slow = {"matplotlib_inline", "pandas", "matplotlib"} if path.stem in ("quest", "predict") else set()
    assert len(checked) == 1
    assert not [cell for cell in code_cells(path)[: checked[0]] if set(imports_of(cell.source)) & slow]


def test_papermill_alone_refuses_a_misspelt_parameter_by_name_before_anything_is_read(tmp_path):
    with pytest.raises(PapermillExecutionError, match=r"unknown parameter: 'fold' \(did you mean 'folds'") as told:
        papermill.execute_notebook(
            str(NOTEBOOKS / "quest.ipynb"),
            str(tmp_path / "quest.ipynb"),
            parameters={"data": "nowhere", "fold": 3},
            cwd=str(tmp_path),
            progress_bar=False,
        )
    assert "check_parameters(globals())" in told.value.source
    assert [path.name for path in tmp_path.iterdir()] == ["quest.ipynb"]


def test_explore_makes_one_page_of_the_sample_that_holds_no_path_of_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(NOTEBOOKS.parent)
    assert main(["explore", "--data", "notebooks/sample", "--out", str(tmp_path / "out")]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "out" / "explore.html"
    text = page.read_text(encoding="utf-8")
    alts = re.findall(r'<img[^>]*?alt="([^"]*)"', text)
    assert text.count("<img") == len(alts) == 7
    assert all(alts)  # each says in words what it shows
    assert str(NOTEBOOKS.parent) not in text
    executed = tmp_path / "out" / "explore.ipynb"
    assert all(cell.execution_count for cell in code_cells(executed))
    assert str(NOTEBOOKS.parent) not in executed.read_text(encoding="utf-8")


def test_explore_refuses_tables_that_are_not_there_before_anything_is_made(tmp_path, capsys):
    assert main(["explore", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "no train.csv in the data folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
