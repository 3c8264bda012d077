"""Frozen dataclasses written in JSON's types and read back as what they were; what does not fit is refused by place."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from questlib.checks import hints_of, refuse_other_kind, refuse_unknown

Typed = TypeVar("Typed")
Families = Mapping[type, Mapping[str, type]]


def write_typed(value: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    """Write a dataclass as a mapping, with its `kind` if it has one, and what is in it likewise."""
    if is_dataclass(value):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        return kind | {each.name: write_typed(getattr(value, each.name)) for each in fields(value)}
    return [write_typed(each) for each in value] if isinstance(value, list | tuple) else value


def read_typed(kind: type[Typed], content: object, *, where: str, families: Families) -> Typed:
    """Build a dataclass from what `write_typed` made of one, or a person wrote.

    Args:
        kind: The dataclass, or one that heads a family, of which the content's `kind` says which.
        content: A mapping of fields to values. What is unknown, missing or of another type is refused.
        where: Names the content in messages.
        families: By the dataclass that heads a family, its members by kind.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"{where} must map fields to values, however: {content!r}")
    if kind in families:
        chosen = content.get("kind", getattr(kind, "kind", None))
        refuse_unknown([chosen], known=families[kind], what=f"kind of {where}")
        kind, content = families[kind][chosen], {name: each for name, each in content.items() if name != "kind"}
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(content, known=known, what=f"field of {where}")
    missing = [
        name
        for name, each in known.items()
        if name not in content and each.default is MISSING and each.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} must state {missing}, however: {dict(content)}")
    hints = hints_of(kind)
    values = {
        name: _read(hints[name], each, where=f"{where}.{name}", families=families) for name, each in content.items()
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error


def _read(hint: Any, value: Any, *, where: str, families: Families) -> Any:  # noqa: ANN401  whatever a field holds
    if isinstance(hint, type) and is_dataclass(hint):
        return read_typed(hint, value, where=where, families=families)
    inner = get_args(hint)
    match get_origin(hint):
        case origin if origin is UnionType:  # the first of its types that fits, or is to be blamed
            fitting = next((each for each in inner if isinstance(value, each)), inner[0])
            return None if fitting is NoneType else _read(fitting, value, where=where, families=families)
        case origin if origin is tuple and isinstance(value, list | tuple):
            numbered = enumerate(value)
            return tuple(_read(inner[0], each, where=f"{where}[{i}]", families=families) for i, each in numbered)
        case origin if origin is dict and isinstance(value, Mapping):
            return {
                _read(inner[0], key, where=f"a key of {where}", families=families): _read(
                    inner[1], each, where=f"{where}[{key!r}]", families=families
                )
                for key, each in value.items()
            }
    plain = hint if isinstance(hint, type) else get_origin(hint)
    refuse_other_kind(value, plain, what=where)
    return plain(value)


def list_leaves(kind: type) -> dict[str, tuple[str, ...]]:
    """List the fields of a dataclass and of those it groups fields in: by name the way there, groups first."""
    leaves: dict[str, tuple[str, ...]] = {}
    for name, hint in hints_of(kind).items():
        if isinstance(hint, type) and is_dataclass(hint):
            leaves |= {inner: (name, *way) for inner, way in list_leaves(hint).items()}
        elif name in {each.name for each in fields(kind)}:
            leaves[name] = (name,)
    return leaves
