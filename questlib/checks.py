"""What a user may misspell, set out of range or not have installed: one check, one kind of message."""

import functools
import importlib.util
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, field, fields
from difflib import get_close_matches
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

# What type each field of a class is declared to be: to find that out takes longer than to check it.
hints_of: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)
# NumPy's numbers are these too.
_NUMBERS: dict[type, type] = {int: Integral, float: Real}


def refuse_unknown(given: Iterable[object], *, known: Collection[str], what: str) -> None:
    """Refuse names that are not known, all at once, each with its nearest valid one; `what` says what they are."""
    names = list(known)  # what is looked for may be a list or a mapping, which no set can be asked for
    unknown = [name for name in given if name not in names]
    if not unknown:
        return
    hints = []
    for name in unknown:
        nearest = get_close_matches(str(name), names, n=1, cutoff=0.4)
        hints.append(f"{name!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else ""))
    raise ValueError(f"unknown {what}: {', '.join(hints)}; known: {', '.join(sorted(names))}")


def refuse_outside(value: Any, *, low: float, high: float, what: str) -> None:  # noqa: ANN401
    """Refuse what is no number, by a TypeError, or lies outside [low, high]; `what` names the parameter."""
    # NumPy's numbers are Real too; a bool is an int, but no quantity.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number in [{low}, {high}], however: {value!r}")
    if not low <= float(value) <= high:
        raise ValueError(f"{what} must lie in [{low}, {high}], however: {value!r}")


def refuse_other_kind(value: object, kind: type, *, what: str) -> None:
    """Refuse what is of another type, by a TypeError; a bool is no number."""
    if not isinstance(value, _NUMBERS.get(kind, kind)) or isinstance(value, bool) != (kind is bool):
        raise TypeError(f"{what} must be of type {kind.__name__}, however: {value!r}")


def refuse_missing(package: str, *, what: str, install: str) -> None:
    """Refuse an option where the package it needs is not here; `install` is what pip calls what brings it."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{what} needs {package}, however it is not here; pip install '{install}'")


def between(low: float, high: float, default: Any = MISSING) -> Any:  # noqa: ANN401  a field of whatever type
    """Declare a field of a `Checked` dataclass: a number in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def one_of(known: Collection[str], default: str) -> Any:  # noqa: ANN401
    """Declare a field of a `Checked` dataclass: one of some names."""
    return field(default=default, metadata={"known": known})


class Checked:
    """A dataclass that refuses values which its fields do not allow; None passes where it is the default."""

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for each in fields(self):  # type: ignore[arg-type]  # a mixin of dataclasses
            value, allowed = getattr(self, each.name), each.metadata
            if value is None and each.default is None:
                continue
            if "known" in allowed:
                refuse_unknown([value], known=allowed["known"], what=each.name)
            elif "low" in allowed:
                refuse_outside(value, low=allowed["low"], high=allowed["high"], what=each.name)
            hint = hints[each.name]
            kinds = [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint])]
            refuse_other_kind(
                value, next((kind for kind in kinds if isinstance(value, kind)), kinds[0]), what=each.name
            )


def take_tuple(instance: object, name: str, *, of: type) -> None:
    """Make a tuple of what a frozen dataclass was given for a field, such as a list; refuse what is no list of that."""
    given = getattr(instance, name)
    if isinstance(given, str) or not isinstance(given, Iterable) or not all(isinstance(each, of) for each in given):
        raise TypeError(f"{name} must be a list of {of.__name__}, however: {given!r}; put one into [ ]")
    object.__setattr__(instance, name, tuple(given))
