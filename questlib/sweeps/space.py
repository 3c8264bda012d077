"""The space of a sweep: the parameters that are varied, each with its values and where it applies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from questlib.checks import refuse_unknown

_OF_A_RANGE = ("low", "high", "step", "log")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One parameter that is varied."""

    name: str  # dotted where it reaches inside
    distribution: BaseDistribution
    values: Mapping[Any, Any] = field(default_factory=dict)  # of choices, by what stands for each in tables
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # only where these others have such values

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Tell whether it is varied where others are as chosen."""
        return all(chosen.get(name) in allowed for name, allowed in self.when.items())

    @property
    def points(self) -> list[Any]:
        """All of its values that a grid goes through; none for a range without steps."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step, log=False):
                return list(range(low, high + 1, step))
            case FloatDistribution(low=low, high=high, step=float(step)):
                # As they were written: 0.1 + 2 * 0.1 lies beyond 0.3, which a study refuses to hold.
                begin, width = Decimal(str(low)), Decimal(str(step))
                return [float(begin + number * width) for number in range(round((high - low) / step) + 1)]
        return []

    @property
    def corners(self) -> list[Any]:
        """Values that a check should try: every choice, or both ends of a range."""
        is_choice = isinstance(self.distribution, CategoricalDistribution)
        return self.points if is_choice else [self.distribution.low, self.distribution.high]  # type: ignore[attr-defined]


def read_space(content: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """Read the parameters that a sweep file varies, by name: lists of choices, or ranges; `when` names those before."""
    dimensions: dict[str, Dimension] = {}
    for name, given in content.items():
        if name == "seed":
            raise ValueError("seed must not be a parameter to vary: list seeds, which are told apart from settings")
        dimension = _read_dimension(name, given)
        for other, allowed in dimension.when.items():
            refuse_unknown([other], known=dimensions, what=f"parameter before {name} in its when")
            points = dimensions[other].points
            wrong = [value for value in allowed if points and value not in points]
            if wrong:
                raise ValueError(f"{name} must apply where {other} is one of {points}, however: {wrong}")
        dimensions[name] = dimension
    return tuple(dimensions.values())


def _read_dimension(name: str, given: object) -> Dimension:
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, dict):
        raise TypeError(f"{name} must be a list of values or a range of low and high, however: {given!r}")
    refuse_unknown(given, known=(*_OF_A_RANGE, "choices", "when"), what=f"field of {name}")
    when = {
        other: tuple(allowed) if isinstance(allowed, list) else (allowed,)
        for other, allowed in given.get("when", {}).items()
    }
    if "choices" in given:
        values = _label(given["choices"], name)
        return Dimension(name=name, distribution=CategoricalDistribution(list(values)), values=values, when=when)
    options = {each: given[each] for each in _OF_A_RANGE if each in given}
    if not {"low", "high"} <= set(options):
        raise ValueError(f"{name} must have choices, or low and high, however: {given!r}")
    numbers = [options[each] for each in ("low", "high", "step") if each in options]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        raise TypeError(f"{name} must have numbers for its range, however: {numbers}")
    kind = IntDistribution if all(isinstance(each, int) for each in numbers) else FloatDistribution
    return Dimension(name=name, distribution=kind(**options), when=when)


def _label(choices: object, name: str) -> dict[Any, Any]:
    # A list or a mapping, such as whole stages, stands in tables under a name: its own, or what it holds.
    if isinstance(choices, dict):
        labelled = dict(choices)
    elif isinstance(choices, list):
        labelled = {stand_for(each): each for each in choices}
    else:
        raise TypeError(f"{name} must list choices, or name them, however: {choices!r}")
    if not labelled or (isinstance(choices, list) and len(labelled) < len(choices)):
        raise ValueError(f"{name} must have choices, each another, however: {choices!r}")
    return labelled


def stand_for(value: object) -> Any:  # noqa: ANN401
    """Give what stands for a value in tables: itself if it is plain, else its JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
