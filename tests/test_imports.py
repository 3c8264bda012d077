import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "questlib"
# From below: a module imports its own layer, without a circle, and those before it. A folder stands for its modules.
LAYERS = (
    ("schema", "checks", "typed_json"),
    ("inputs", "run_folder", "marks", "cache", "csv_table", "data", "metadata", "targets", "metrics", "ranks",
     "submission", "lexical", "clock", "attached", "pretrained", "predictions", "processes", "checkout"),
    ("ties", "segmentation", "blending", "hosts", "ensemble", "scores", "paired", "plan", "stage", "recipe", "resume",
     "standing", "comparison"),
    ("text", "batches", "devices", "cpu"),
    ("model",),
    ("training",),
    ("members", "parallel"),
    ("tasks", "schedule", "folds", "inference", "record"),
    ("charts", "pieces", "explore", "report", "parameters", "profiles", "executed", "page", "run", "__main__"),
)  # fmt: skip
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
N_LIGHT = 3  # layers
# Torch and transformers take seconds to import and start above them; tools of the workbench stay out of a kernel.
HEAVY = {"torch", "transformers", "datasets", "accelerate", "bitsandbytes"}
WORKBENCH = {"papermill", "nbconvert", "nbformat", "matplotlib", "yaml", "jinja2"}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted({dotted(path) for path in PACKAGE.rglob("*.py")} - {"__init__"})
AT_HOME = ("kaggle", "sweeps", "encoder_parts")
KERNEL = [name for name in MODULES if not name.startswith(AT_HOME)]


def imported_names(name: str) -> set[str]:
    """Dotted names of everything a module imports, inside functions too."""
    path = PACKAGE.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively, which hides what it needs"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(name: str) -> set[str]:
    """The modules of ours that a module imports: the longest of each dotted name that is one."""
    found = set()
    for imported in imported_names(name):
        parts = imported.split(".")
        if parts[0] == "questlib":
            known = [".".join(parts[1:end]) for end in range(len(parts), 1, -1) if ".".join(parts[1:end]) in MODULES]
            found |= set(known[:1])
    return found


def foreign_imports(name: str) -> set[str]:
    return {imported.split(".")[0] for imported in imported_names(name)}


def layer_of(name: str) -> int:
    return LAYER[name.split(".")[0]]


def test_layers_name_every_module() -> None:
    assert {name.split(".")[0] for name in KERNEL} == set(LAYER)
    assert len(LAYER) == sum(map(len, LAYERS))  # and none twice


def test_no_module_of_a_kernel_imports_what_stays_at_home() -> None:
    assert not [name for name in KERNEL if any(other.startswith(AT_HOME) for other in own_imports(name))]


def test_no_imports_form_a_circle() -> None:
    order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())  # refuses a circle
    assert set(order) == set(MODULES)
    assert sum(len(own_imports(name)) for name in MODULES) > 150  # the graph was seen
    for chain in (
        ("checks", "recipe", "training.stages", "folds"),
        ("kaggle.manifest", "kaggle.bundle", "kaggle.rehearse"),
    ):
        assert [name for name in order if name in chain] == list(chain)


@pytest.mark.parametrize("name", KERNEL)
def test_imports_go_down(name: str) -> None:
    upward = {other for other in own_imports(name) if layer_of(other) > layer_of(name)}
    assert upward == set(), f"{name} of layer {layer_of(name)} must import lower layers only"


def test_folders_import_one_another_one_way() -> None:
    graph: dict[str, set[str]] = {}
    for name in KERNEL:
        room = name.split(".")[0]
        graph.setdefault(room, set()).update({other.split(".")[0] for other in own_imports(name)} - {room})
    assert len(list(TopologicalSorter(graph).static_order())) == len(LAYER)  # refuses a circle


@pytest.mark.parametrize("name", [name for name in KERNEL if layer_of(name) < N_LIGHT])
def test_low_layers_import_no_torch(name: str) -> None:
    assert not foreign_imports(name) & HEAVY


@pytest.mark.parametrize("name", [name for name in KERNEL if layer_of(name) < len(LAYERS) - 1])
def test_modules_of_a_kernel_import_no_workbench(name: str) -> None:
    assert not foreign_imports(name) & WORKBENCH


def test_import_of_a_low_layer_loads_no_torch() -> None:
    # __main__ too: scoring and checking answer at once, because the rest is imported where it is needed.
    names = [f"questlib.{name}" for name in KERNEL if layer_of(name) < N_LIGHT] + ["questlib.__main__"]
    assert {"questlib.metrics", "questlib.ties", "questlib.data", "questlib.recipe"} <= set(names)
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = sorted(set(sys.modules) & {HEAVY | WORKBENCH})\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_read_in_one_sitting(name: str) -> None:
    path = PACKAGE.joinpath(*name.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = [node.name for node in functions if node.end_lineno - node.lineno >= 60]
    assert not long, f"{name}: {long} must have 60 lines at most"
