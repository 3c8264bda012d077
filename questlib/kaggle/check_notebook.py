"""Checks 8, 11 to 14 and 27: what the text of a notebook shows before it runs."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from questlib.kaggle.findings import Check, Finding, judge
from questlib.parameters import TAG, read_cell
from questlib.recipe import Recipe

LIMIT = 700_000  # bytes; 704 KiB were accepted, 2.8 MB refused
_ENDERS = {
    "exit", "quit", "sys.exit", "os._exit", "os.abort", "os.kill", "SystemExit", "KeyboardInterrupt",
    "input", "sys.stdin", "getpass.getpass", "breakpoint", "pdb.set_trace",
}  # fmt: skip
_FETCHERS = re.compile(
    r"^(kagglehub|requests|httpx|aiohttp|socket|ftplib|http\.client|torch\.hub|pip)\b|download|urlopen|urlretrieve"
)
# What fetches, by the words of a command.
_COMMANDS = [{"wget"}, {"curl"}, *({"git", each} for each in ("clone", "pull", "fetch")), {"pip", "download"}]
_COMMANDS += [{each, "install"} for each in ("apt", "apt-get", "conda", "mamba")] + [{"uv", "add"}]
_TRACES = re.compile(
    r"/home/\w+|/Users/\w+|/root/|\b[A-Z]:(?:\\\\|/(?!/))"
    r"|(?<![\w.~/-])/(?:mnt|media|content|data|scratch|srv|work|workspace|var|opt)/[\w./-]+"
)
_INJECTED = "injected-parameters"  # how papermill tags the cell that it adds
_FOREIGN = re.compile(r'"(/(?!kaggle/|tmp/)[^"]*)"')  # a value that is a path and not one of Kaggle's
_HUBS = {"transformers", "datasets", "huggingface_hub", "questlib"}
# How a statement closes the hub, as `ast.unparse` writes it; the libraries look once, when they are imported.
_CLOSING = re.compile(
    r"os\.environ(\.update\((.*, )?HF_HUB_OFFLINE=|\['HF_HUB_OFFLINE'\] = )('1'|str\(int\(not use_internet\)\))"
)


def check_notebook(path: Path, *, parameters: dict[str, Any], attached: set[str]) -> list[Finding]:
    """Check the text of a notebook.

    Args:
        path: The notebook in the bundle.
        parameters: What each of its parameters must be.
        attached: The slugs of the kernel's sources.

    Returns:
        Findings of checks 8, 11, 12, 13, 14 and 27; of checks 8 and 11 alone where it cannot be read.
    """
    size = path.stat().st_size
    large = [f"the notebook must be below {LIMIT} bytes, however: {size}"] if size >= LIMIT else []
    findings = [judge(Check.SIZE, large, evidence=f"the notebook has {size} bytes")]
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("nbformat") != 4:
            raise ValueError("it is none of nbformat 4")
        written = content["cells"]  # nbformat gives new ids where they are missing or doubled
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code" and not _list_magics(cell.source):
                ast.parse(cell.source, filename=f"cell {cell.id}")
    except (ValueError, KeyError, SyntaxError, nbformat.ValidationError) as error:
        return [
            *findings,
            judge(Check.NOTEBOOK, [f"the notebook must be valid, however: {str(error)[:200]}"], evidence=""),
        ]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        *findings,
        judge(Check.NOTEBOOK, _judge_form(notebook, written), evidence="valid, kernel python3, cell ids unique"),
        judge(Check.TRACES, _judge_traces(notebook, text, parameters), evidence="none in any cell"),
        judge(
            Check.PARAMETERS,
            _judge_parameters(cells, parameters),
            evidence=f"{len(parameters)} parameters as in production",
        ),
        judge(Check.CODE, _judge_code(cells), evidence=f"{len(cells)} cells without any"),
        judge(
            Check.HUB_CLOSED,
            _judge_hub(cells, parameters, attached),
            evidence="switched before any import; inputs are attached",
        ),
    ]


def _judge_form(notebook: nbformat.NotebookNode, written: list[dict[str, Any]]) -> list[str]:
    wrong = []
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        wrong.append(f"the kernelspec must be named python3, or Kaggle's runner finds no kernel, however: {name!r}")
    if notebook.metadata.get("language_info", {}).get("name") != "python":
        wrong.append("language_info must name python")
    ids = [cell.get("id") for cell in written]
    unlike = sorted({str(each) for each in ids if each is None or ids.count(each) > 1})
    if unlike:
        wrong.append(f"each cell must have an id of its own, however missing or doubled: {unlike}")
    return wrong


def _judge_traces(notebook: nbformat.NotebookNode, text: str, parameters: dict[str, Any]) -> list[str]:
    wrong = []
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    left = [cell.id for cell in cells if cell.outputs or cell.execution_count is not None]
    if left:
        wrong.append(f"outputs or counts are left in the cells {left}: strip them")
    if "papermill" in notebook.metadata or any("papermill" in cell.metadata for cell in notebook.cells):
        wrong.append("papermill's own block is left, which holds paths and parameters: strip it")
    if any(_INJECTED in cell.metadata.get("tags", []) for cell in cells):
        wrong.append("papermill's cell of parameters is left, which overrides those of production: remove it")
    traces = sorted({*_TRACES.findall(text), *_FOREIGN.findall(json.dumps(parameters))})
    if traces:
        wrong.append(f"paths of one machine: {traces}")
    return wrong


def _judge_parameters(cells: list[nbformat.NotebookNode], parameters: dict[str, Any]) -> list[str]:
    tagged = [cell for cell in cells if TAG in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"exactly one cell must be tagged parameters, however: {len(tagged)}"]
    found = read_cell(tagged[0].source)
    wrong = [f"unknown parameters: {sorted(set(found) - set(parameters))}"] if set(found) - set(parameters) else []
    for name, value in parameters.items():
        if name not in found or found[name] != value:
            wrong.append(f"the default of {name} must be {value!r}, however: {found.get(name)!r}")
    others = [ast.parse(cell.source) for cell in cells if cell is not tagged[0] and not _list_magics(cell.source)]
    names = [node for tree in others for node in ast.walk(tree) if isinstance(node, ast.Name)]
    stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    if again := sorted(stored & set(parameters) - {"out"}):  # which may be chosen
        wrong.append(f"other cells must leave parameters as they are, however they set: {again}")
    return wrong


def _judge_code(cells: list[nbformat.NotebookNode]) -> list[str]:
    wrong, trees = [], {}
    for cell in cells:
        magics = _list_magics(cell.source)
        if magics:
            wrong.append(f"cell {cell.id} must be plain Python, however: {magics[0]!r}")
        else:
            trees[cell.id] = ast.parse(cell.source)
    called = {name: full for tree in trees.values() for name, full in _imports(tree)}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                first, dot, rest = ast.unparse(node).partition(".")
                full = (called.get(first, first) + dot + rest).removeprefix("builtins.")
                if full in _ENDERS:
                    wrong.append(f"cell {name} must not end or ask, however: {ast.unparse(node)}")
                elif _FETCHERS.search(full):
                    wrong.append(f"cell {name} must fetch nothing, however: {ast.unparse(node)}")
            elif isinstance(node, ast.stmt):
                wrong += [f"cell {name} {told}" for told in _judge_words(node)]
    return wrong


def _judge_words(statement: ast.stmt) -> Iterator[str]:
    # A command may be one string, a list of words, or strings that are split: all that a statement says is read.
    own = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.expr | ast.withitem)]
    said = " ".join(
        node.value
        for child in own
        for node in ast.walk(child)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    words = {re.sub(r"^pip[\d.]+$", "pip", word.rsplit("/", 1)[-1]) for word in said.split()}
    if "://" in said or any(command <= words for command in _COMMANDS):
        yield f"must fetch nothing, however: {said[:60]!r}"
    if {"pip", "install"} <= words and "--no-index" not in words:
        yield f"must give pip --no-index, however: {said[:60]!r}"


def _judge_hub(cells: list[nbformat.NotebookNode], parameters: dict[str, Any], attached: set[str]) -> list[str]:
    wrong = []
    if parameters.get("use_internet"):
        wrong.append("use_internet must be False, however: True; a kernel has no internet to fetch from")
    named: dict[str, Any] = {name: parameters[name] for name in ("data", "run") if name in parameters}
    named |= {f"dataset {slug}": slug for slug in parameters.get("fingerprints", ())}
    if "members" in parameters:
        named |= {f"encoder {name}": name for name in Recipe.from_parameters(parameters).encoders}
    for name, value in named.items():
        if value not in attached:
            wrong.append(f"{name} must be the slug of an attached source, however: {value!r}, attached: {attached}")
    switched = False
    for cell in cells:
        for statement in () if _list_magics(cell.source) else ast.parse(cell.source).body:
            imported = {full.split(".")[0] for _, full in _imports(statement)} & _HUBS
            if imported and not switched:
                wrong.append(f"cell {cell.id} imports {sorted(imported)} before HF_HUB_OFFLINE is set")
            said = ast.unparse(statement)
            switched = bool(_CLOSING.match(said)) if "HF_HUB_OFFLINE" in said else switched
    return wrong


def _list_magics(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.lstrip().startswith(("%", "!"))]


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What is imported: the name it then has, and its own in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
