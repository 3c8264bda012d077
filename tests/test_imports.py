import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "questlib"
LAYERS = (
    ("schema", "config"),
    (
        "inputs", "artifacts", "data", "metadata", "metrics", "ties", "blending", "submission", "lexical", "pretrained",
        "clock", "segmentation", "ensemble", "hosts", "attached",
    ),
    ("text", "pooling", "heads", "model", "losses", "devices", "batches", "attention", "cores"),
    ("inference", "features", "parallel", "trainer", "training", "folds"),
    ("report", "explore", "run", "__main__"),
)  # fmt: skip
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# Torch and transformers take seconds to import and start at layer 2; tools of the workbench stay out of a kernel.
HEAVY = {"torch", "transformers", "datasets", "accelerate", "bitsandbytes"}
WORKBENCH = {"papermill", "nbconvert", "nbformat", "matplotlib", "yaml"}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported_names(name: str) -> set[str]:
    """Dotted names of everything a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively, which hides what it needs"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(name: str) -> set[str]:
    parts = [imported.split(".") for imported in imported_names(name)]
    return {part[1] for part in parts if part[0] == "questlib" and part[1] not in ("", "__version__")}


def foreign_imports(name: str) -> set[str]:
    return {imported.split(".")[0] for imported in imported_names(name)}


def test_layers_name_every_module() -> None:
    assert set(MODULES) <= set(LAYER)
    assert len(LAYER) == sum(map(len, LAYERS))  # and none twice
    assert [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()] == ["kaggle"]


def test_no_module_of_a_kernel_imports_what_stays_at_home() -> None:
    assert not [name for name in MODULES if "kaggle" in own_imports(name)]


def test_modules_that_stay_at_home_import_one_way() -> None:
    home = {path.stem: f"kaggle/{path.stem}" for path in (PACKAGE / "kaggle").glob("*.py") if path.stem != "__init__"}
    graph = {}
    for name, path in home.items():
        parts = [imported.split(".") for imported in imported_names(path) if imported.startswith("questlib.kaggle.")]
        graph[name] = {part[2] for part in parts} & set(home)
    order = list(TopologicalSorter(graph).static_order())  # refuses a circle
    assert set(order) == set(home)
    assert order.index("manifest") < order.index("bundle") < order.index("rehearse") < order.index("__main__")


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    upward = {other for other in own_imports(name) if LAYER[other] > LAYER[name]}
    assert upward == set(), f"{name} of layer {LAYER[name]} must import lower layers only"


def test_imports_within_a_layer_go_one_way() -> None:
    order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())  # refuses a circle
    assert set(order) >= set(MODULES)
    assert sum(len(own_imports(name)) for name in MODULES) > 40  # the graph was seen


def test_imports_of_the_lowest_layer_are_none_of_ours() -> None:
    assert {name: own_imports(name) for name in LAYERS[0]} == {name: set() for name in LAYERS[0]}


@pytest.mark.parametrize("name", [name for name in MODULES if LAYER[name] < 2])
def test_low_layers_import_no_torch(name: str) -> None:
    assert not foreign_imports(name) & HEAVY


@pytest.mark.parametrize("name", [name for name in MODULES if LAYER[name] < 4])
def test_modules_of_a_kernel_import_no_workbench(name: str) -> None:
    assert not foreign_imports(name) & WORKBENCH


def test_import_of_a_low_layer_loads_no_torch() -> None:
    # __main__ too: scoring and checking answer at once, because the rest is imported where it is needed.
    names = [f"questlib.{name}" for name in MODULES if LAYER[name] < 2] + ["questlib.__main__"]
    assert {"questlib.metrics", "questlib.data", "questlib.metadata", "questlib.submission"} <= set(names)
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = sorted(set(sys.modules) & {HEAVY | WORKBENCH})\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
