"""The space of a sweep: the parameters that are varied, each with its values and where it applies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from questlib.checks import hints_of, refuse_unknown
from questlib.recipe import MEMBER_RECIPES
from questlib.stage import STAGE_RECIPES

# Columns of a table of trials; the parameters follow.
ABOUT = ["trial", "setting", "seed", "state", "value", "seconds", "error", "folder"]
# Columns of a table of settings, beside `setting` and the parameters.
SUMMARY = ["trials", "mean", "standard error", "behind", "error of that", "verdict", "seconds"]
# More points than these are no sweep that anyone waits for.
MOST_POINTS = 10_000
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
    def points(self) -> Sequence[Any]:
        """All of its values that a grid goes through; none for a range without steps."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high, step=step, log=False):
                return range(low, high + 1, step)
            case FloatDistribution(low=low, high=high, step=float(step)):
                # As they were written: 0.1 + 2 * 0.1 lies beyond 0.3, which a study refuses to hold.
                begin, width = Decimal(str(low)), Decimal(str(step))
                return [float(begin + number * width) for number in range(round((high - low) / step) + 1)]
        return []

    @property
    def corners(self) -> Sequence[Any]:
        """Values that a check should try: every choice, or both ends of a range."""
        is_choice = isinstance(self.distribution, CategoricalDistribution)
        return self.points if is_choice else [self.distribution.low, self.distribution.high]  # type: ignore[attr-defined]


def read_space(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """Read the parameters that a sweep file varies, by name: lists of choices, or ranges; `when` names those before.

    `defaults` are the notebook's, which tell of what kind each is.
    """
    dimensions: dict[str, Dimension] = {}
    for name, given in content.items():
        if name == "seed":
            raise ValueError("seed must not be a parameter to vary: list seeds, which are told apart from settings")
        if name in defaults and name in (*ABOUT, *SUMMARY):
            raise ValueError(
                f"a parameter to vary must not be called as a column of the report is, however: {name!r}; call it "
                "otherwise in the notebook"
            )
        dimension = _read_dimension(name, given, kind=_kind_of(name, defaults))
        for other, allowed in dimension.when.items():
            refuse_unknown([other], known=dimensions, what=f"parameter before {name} in its when")
            points = dimensions[other].points
            if not points and isinstance(dimensions[other].distribution, FloatDistribution):
                raise ValueError(f"{name} must apply where {other} has a certain value, however its range has no step")
            wrong = [value for value in allowed if points and value not in points]
            if wrong:
                known = list(points[:MOST_POINTS])
                raise ValueError(f"{name} must apply where {other} is one of {known}, however: {wrong}")
        dimensions[name] = dimension
    return tuple(dimensions.values())


def _kind_of(name: str, defaults: Mapping[str, Any]) -> Any:  # noqa: ANN401  of a field: whatever it declares
    *way, last = name.split(".")
    if "stages" not in way and last in defaults:
        return type(defaults[last])
    if way[-1:] == ["target_weights"]:
        return float
    declared: dict[str, Any] = {}
    for recipe in STAGE_RECIPES.values() if "stages" in way else MEMBER_RECIPES.values():
        declared |= hints_of(recipe)
    return declared.get(last)  # None in a mapping of a notebook of one's own


def _read_dimension(name: str, given: object, *, kind: Any) -> Dimension:  # noqa: ANN401
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, dict):
        raise TypeError(f"{name} must be a list of values or a range of low and high, however: {given!r}")
    refuse_unknown(given, known=(*_OF_A_RANGE, "choices", "when"), what=f"field of {name}")
    conditions = given.get("when", {})
    if not isinstance(conditions, dict):
        raise TypeError(f"the when of {name} must map other parameters to values, however: {conditions!r}")
    when = {other: tuple(allowed) if isinstance(allowed, list) else (allowed,) for other, allowed in conditions.items()}
    if "choices" in given:
        if set(given) & set(_OF_A_RANGE):
            raise ValueError(f"{name} must have choices or a range, however it has both: {given!r}")
        values = _label(given["choices"], name)
        return Dimension(name=name, distribution=CategoricalDistribution(list(values)), values=values, when=when)
    return Dimension(name=name, distribution=_read_range(name, given, kind=kind), when=when)


def _read_range(name: str, given: dict[str, Any], *, kind: Any) -> IntDistribution | FloatDistribution:  # noqa: ANN401
    options = {each: given[each] for each in _OF_A_RANGE if each in given}
    if not {"low", "high"} <= set(options):
        raise ValueError(f"{name} must have choices, or low and high, however: {given!r}")
    numbers = [options[each] for each in ("low", "high", "step") if each in options]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        raise TypeError(f"{name} must have numbers for its range, however: {numbers}")
    if not isinstance(options.get("log", False), bool):
        raise TypeError(f"{name} must have true or false for log, however: {options['log']!r}")
    are_whole = all(isinstance(each, int) for each in numbers)
    if kind is int and not are_whole:
        raise TypeError(f"{name} must have whole numbers for its range, however: {numbers}")
    try:
        distribution = (IntDistribution if are_whole and kind is not float else FloatDistribution)(**options)
    except ValueError as error:
        raise ValueError(f"{name} must have a range, however: {given!r}; {error}") from error
    if distribution.single():
        raise ValueError(
            f"{name} must have a range of several values, however: {given!r}; parameters take a single one"
        )
    step, width = distribution.step or 0, distribution.high - distribution.low
    if isinstance(distribution, FloatDistribution) and 0 < MOST_POINTS * step <= width:
        raise ValueError(f"{name} must have at most {MOST_POINTS} values, however: {given!r}; leave the step out")
    return distribution


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
