"""The parameters cell of a notebook: read, checked, overridden by dotted names, and written.

It is checked before a kernel starts, and by the same rules in the kernel: papermill may have been called directly.

A dotted name reaches inside: `stages.full.learning_rate` is that field of every stage named full, `members.minilm.seed`
overrides the seed for one member, whatever is said for all, `target_weights.answer_helpful` is a key of a mapping.
"""

import ast
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from questlib.checks import refuse_unknown
from questlib.stage import STAGE_RECIPES

TAG = "parameters"
# How the cell begins that papermill adds, and what it may name of its own accord in it.
_INJECTED, _PAPERMILLS_OWN = "# Parameters\n", "PAPERMILL_"
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}


def read_parameters(notebook: Path, *, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read the parameters that a notebook's tagged cell declares, and defaults; the needed ones must be there."""
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}; run from the project's root, or name one that is there")
    import nbformat  # a kernel has no need of it

    try:
        cells = nbformat.read(notebook, as_version=4).cells
        declared = read_cell("\n".join(cell.source for cell in cells if TAG in cell.metadata.get("tags", [])))
    except (ValueError, TypeError, SyntaxError, AttributeError) as error:  # the last of JSON that maps nothing
        told = f"{notebook} must be a notebook whose cell tagged {TAG} assigns plain values, however: {str(error):.200}"
        raise ValueError(told) from error
    missing = [name for name in needed if name not in declared]
    if missing:
        raise ValueError(f"{notebook} must declare {missing} in a cell tagged {TAG}, however it has {sorted(declared)}")
    return declared


def read_cell(source: str) -> dict[str, Any]:
    """Read the source of a parameters cell; see `read_parameters`."""
    values = {name: ast.literal_eval(value) for name, value in _find_values(source).items()}
    kinds = _find_kinds(source)  # floats may have halves, also where the default is whole
    return {name: float(value) if kinds.get(name) is float else value for name, value in values.items()}


def read_given(source: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Read the cell that papermill adds, by parameter; `stages[0]["epochs"] = 3` changes a copy of what is declared."""
    given: dict[str, Any] = {}
    for statement in (each for each in ast.parse(source).body if isinstance(each, ast.Assign)):
        [target], way = statement.targets, list[Any]()
        while isinstance(target, ast.Subscript):
            way.insert(0, ast.literal_eval(target.slice))
            target = target.value
        name, value = ast.unparse(target), ast.literal_eval(statement.value)
        if not way:
            given[name] = value
            continue
        place = given.setdefault(name, _copy(declared[name]))
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] = value
    return given


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


def _find_kinds(source: str) -> dict[str, type]:
    return {
        ast.unparse(each.target): _KINDS[ast.unparse(each.annotation)]
        for each in ast.parse(source).body
        if isinstance(each, ast.AnnAssign) and ast.unparse(each.annotation) in _KINDS
    }


def override(defaults: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give parameters other values, by name or dotted name; later changes win, and what was given is left as it was.

    A name that is unknown or leads nowhere is refused with the nearest, and a value of another kind than the default.
    """
    values, asked = _copy(dict(defaults)), dict[str, Any]()
    for change in changes:
        _refuse_unknown_names(change, values | {name: each for name, each in asked.items() if name in values})
        # What is given whole leaves nothing of what reached into it before.
        kept = {old: each for old, each in asked.items() if not any(_lies_in(old, name) for name in change)}
        asked = {**kept, **change}

    def place(name: str) -> tuple[bool, int]:
        """Put a whole list before what reaches into it, and what is for all members before what is for one."""
        return name.split(".")[0] == "members", name.count(".")

    for name in sorted(asked, key=place):
        first, *way = name.split(".")
        if way:
            try:
                _reach(values, [first, *way], asked[name], whole=name, general=values)
            except ValueError as error:
                if name in changes[-1]:
                    raise
                whole = name.rsplit(".", 2)[0]
                told = (
                    f"{error}; it was given before, as by a profile: give {whole} whole to replace what it reaches into"
                )
                raise ValueError(told) from error
        else:
            values[first] = _copy(asked[name])
    for name, value in values.items():
        _refuse_other_kind(name, value, kind=type(defaults[name]))
    return values


def _copy(value: Any) -> Any:  # noqa: ANN401  whatever a parameter holds
    # What stands in two places, as by an anchor of YAML, becomes two: a change of one would reach the other.
    if isinstance(value, dict):
        return {name: _copy(each) for name, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value


def _lies_in(name: str, whole: str) -> bool:
    return name == whole or name.startswith(f"{whole}.")


def check_parameters(names: Mapping[str, Any]) -> None:
    """Refuse what is wrong with a notebook's parameters from inside it, before anything long begins.

    papermill adds a cell with what it was given, misspelt names among it, which it only logs. A name that is unknown is
    refused with the nearest, and a value of another kind than its parameter is declared with.

    Args:
        names: The notebook's `globals()`, with `In`, the cells that were run, among them.
    """
    kinds: dict[str, type] = {}
    given: list[str] = []
    for source in names.get("In", ()):
        found = _find_kinds(source) if _declares(source) else {}
        if found:  # the latest, where a person ran the cell once more
            kinds, given = found, []
        elif source.startswith(_INJECTED):
            given = [name for name in _list_assigned(source) if not name.startswith(_PAPERMILLS_OWN)]
    _refuse_unknown_names(dict.fromkeys(given), {name: names[name] for name in kinds}, in_notebook=True)
    for name, kind in kinds.items():
        _refuse_other_kind(name, names[name], kind=kind)


def _declares(source: str) -> bool:
    try:
        return all(isinstance(each, ast.AnnAssign) for each in ast.parse(source).body)
    except SyntaxError:  # a cell that never ran
        return False


def _list_assigned(source: str) -> Iterator[str]:
    # `stages[0]["epochs"] = 3` changes stages, and so papermill may be told.
    for statement in ast.parse(source).body:
        for target in statement.targets if isinstance(statement, ast.Assign) else ():
            yield next(node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _refuse_other_kind(name: str, value: object, *, kind: type) -> None:
    # The word "False" counts as true, and 2.5 folds fail late: better to say so before anything is made.
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"parameter {name} must be of type {kind.__name__}, however: {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"parameter {name} must be a finite number, however: {value!r}")


def _refuse_unknown_names(change: Mapping[str, Any], values: Mapping[str, Any], *, in_notebook: bool = False) -> None:
    # What is asked for most is a field of a stage. papermill has no dotted names: it assigns.
    place = "stages[{number}]['{field}']" if in_notebook else "stages.{name}.{field}"
    found = values.get("stages")  # whatever a profile holds
    stages = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    inner = {each.name for kind in STAGE_RECIPES.values() for each in fields(kind)} - {"name"} if stages else set()
    for name in [name.split(".")[0] for name in change if name.split(".")[0] not in values]:
        [nearest] = get_close_matches(name, [*values, *inner], n=1) or [""]
        if nearest in inner:
            named = [place.format(number=at, name=stage.get("name"), field=nearest) for at, stage in enumerate(stages)]
            told = "is" if nearest == name else f"is close to {nearest!r},"
            one_of = ", ".join(dict.fromkeys(named))
            raise ValueError(f"unknown parameter: {name!r} {told} a field of a stage; name it by one of: {one_of}")
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
        inner = place.setdefault(first, _copy(general.get(first, {})))
        _reach(inner, rest, value, whole=whole, general=general)
    else:
        place[first] = _copy(value)
