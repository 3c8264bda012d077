"""The parameters cell of a notebook: read, checked, overridden by dotted names, and written.

A dotted name reaches inside: `stages.full.learning_rate` is that field of every stage named full, `members.minilm.seed`
overrides the seed for one member, `target_weights.answer_helpful` is a key of a mapping.
"""

import ast
import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import yaml

from questlib.checks import refuse_unknown

TAG = "parameters"


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Read the parameters that a notebook's cell tagged `parameters` declares, and their defaults."""
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}; run from the project's root, or name one with --notebook")
    cells = nbformat.read(notebook, as_version=4).cells
    return read_cell("\n".join(cell.source for cell in cells if TAG in cell.metadata.get("tags", [])))


def read_cell(source: str) -> dict[str, Any]:
    """Read the source of a parameters cell; see `read_parameters`."""
    values = {name: ast.literal_eval(value) for name, value in _find_values(source).items()}
    floats = _find_floats(source)  # they may have halves, also where the default is whole
    return {name: float(value) if name in floats else value for name, value in values.items()}


def write_cell(source: str, values: Mapping[str, Any]) -> str:
    """Replace values, of JSON types, in the source of a parameters cell and keep everything else of it."""
    lines = source.splitlines(keepends=True)
    for name, value in reversed(_find_values(source).items()):  # from the end, so that places before stay as they are
        if name not in values or ast.literal_eval(value) == values[name] or value.end_lineno is None:
            continue
        before = lines[value.lineno - 1].encode()[: value.col_offset].decode()
        after = lines[value.end_lineno - 1].encode()[value.end_col_offset :].decode()
        lines[value.lineno - 1 : value.end_lineno] = [before + repr(values[name]) + after]
    return "".join(lines)


def _find_values(source: str) -> dict[str, ast.expr]:
    found = {}
    # papermill's own inspection goes line by line: a "#" in a string or a "=" in a comment misleads it.
    for statement in ast.parse(source).body:
        match statement:
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id=name)], value=value)
            ):
                found[name] = value
    return found


def _find_floats(source: str) -> set[str]:
    return {
        ast.unparse(statement.target)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) == "float"
    }


class _Loader(yaml.SafeLoader):
    """YAML as its newer version has it, where 3e-5 is a number and not a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that maps names to values."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}  # a safe loader, as its base is
    except yaml.YAMLError as error:
        raise ValueError(f"{path} must be YAML, however: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must map parameters to values, however: {type(content)=}")
    return content


def read_profile(folder: Path, name: str) -> dict[str, Any]:
    """Read a profile: parameters by name out of a folder's YAML file of that name, or of any file ending in .yaml."""
    if name.endswith(".yaml"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no profile {name}; those that ship are named without .yaml")
        return read_yaml(Path(name))
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    refuse_unknown([name], known=known, what="profile")
    return read_yaml(known[name])


def read_value(text: str) -> Any:  # noqa: ANN401  whatever JSON holds
    """Read a value from the command line: JSON, a list or mapping in YAML's short form, or a bare word.

    A shell takes quotes away: `[{name: full, epochs: 3}]` needs none inside.
    """
    try:
        return json.loads(text, parse_constant=str)  # JSON has no NaN: as a word it is refused where a number is due
    except json.JSONDecodeError:
        if not text.startswith(("[", "{")):
            return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def override(defaults: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give parameters other values, by name or dotted name; later changes win, and what was given is left as it was.

    A name that is unknown or leads nowhere is refused with the nearest, and a value of another kind than the default.
    """
    values = deepcopy(dict(defaults))
    for change in changes:
        _refuse_unknown_names(change, values)
        # A whole list first, and then what reaches into it, whatever the order they were written in.
        for name, value in sorted(change.items(), key=lambda item: item[0].count(".")):
            first, *way = name.split(".")
            if way:
                _reach(values, [first, *way], value, whole=name, general=values)
            else:
                values[first] = deepcopy(value)
    for name, value in values.items():
        # The word "False" counts as true, and 2.5 folds fail late: better to say so before anything is made.
        kind = type(defaults[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise TypeError(f"parameter {name} must be of type {kind.__name__}, however: {value!r}")
        if kind is float and not math.isfinite(value):
            raise ValueError(f"parameter {name} must be a finite number, however: {value!r}")
    return values


def _refuse_unknown_names(change: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    stages = [stage for stage in values.get("stages", ()) if isinstance(stage, dict)]
    for name in change:
        named = [f"stages.{stage.get('name')}.{name}" for stage in stages if name in stage and name not in values]
        if named:
            raise ValueError(
                f"unknown parameter: {name!r} is a field of a stage; name it by one of: {', '.join(named)}"
            )
    refuse_unknown([name.split(".")[0] for name in change], known=values, what="parameter")


def _reach(place: Any, way: list[str], value: Any, *, whole: str, general: Mapping[str, Any]) -> None:  # noqa: ANN401
    first, *rest = way
    if isinstance(place, list):
        named = [entry for entry in place if isinstance(entry, dict) and entry.get("name") == first]
        names = [str(entry["name"]) for entry in place if isinstance(entry, dict) and "name" in entry]
        refuse_unknown([first] if not named else [], known=names, what=f"entry in {whole}")
        if not rest:
            raise ValueError(f"{whole} must go on to a field, such as {whole}.{next(iter(named[0]))}")
        for entry in named:
            _reach(entry, rest, value, whole=whole, general=general)
    elif not isinstance(place, dict):
        raise ValueError(f"{whole} must lead into a list or a mapping, however {first!r} stands in {place!r}")
    elif rest:
        # A member that has no stages of its own gets a copy of those that all have.
        inner = place.setdefault(first, deepcopy(general.get(first, {})))
        _reach(inner, rest, value, whole=whole, general=general)
    else:
        place[first] = deepcopy(value)
