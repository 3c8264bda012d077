"""A sweep file: which parameters are varied, how, and how far; checked whole before anything runs."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import nbformat

from questlib.checks import Checked, between, one_of, refuse_unknown
from questlib.marks import hash_text
from questlib.parameters import TAG, override, read_parameters
from questlib.profiles import read_profile, read_yaml
from questlib.recipe import MEMBER_RECIPES, Recipe, TransformerRecipe
from questlib.run_folder import SCORES
from questlib.schema import TARGETS
from questlib.sweeps.space import MOST_POINTS, Dimension, read_space
from questlib.typed_json import list_leaves

SAMPLERS = ["grid", "one_change", "random", "tpe"]
PRUNERS = ["none", "median", "hyperband"]
# Of a run, and of a machine: no part of what is tried.
PLACES = ("data", "out", "cache", "fingerprints")
_KINDS: dict[str, type] = {
    "parameters": dict, "space": dict, "seeds": list, "notebook": str, "profile": str, "objective": str, "trials": int,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sweep(Checked):
    """What a sweep file holds; see `sweeps/` for examples."""

    name: str
    notebook: Path = Path("notebooks/quest.ipynb")
    profile: str = "sample"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # over the profile's, the same in every trial
    space: tuple[Dimension, ...]
    sampler: str = one_of(SAMPLERS, "grid")
    trials: int = between(0, 1_000_000, 0)  # settings that are tried; 0: all of a grid
    minutes: float = between(0, 1e6, 0)  # of work, added up over workers, after which no trial begins; 0 sets no limit
    seeds: tuple[int, ...] = ()  # every setting is tried with each; the profile's own where there are none
    pruner: str = one_of(PRUNERS, "none")
    objective: str = "nested.scores.tied.mean_without_rare"  # a number in a run's scores.json, made large

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.space:
            raise ValueError("space must name a parameter to vary, however it is empty")
        doubled = [seed for place, seed in enumerate(self.seeds) if seed in self.seeds[:place]]
        if doubled:
            raise ValueError(f"seeds must be listed once each, however these stand there again: {doubled}")
        if self.is_listed:
            endless = [each.name for each in self.space if not each.points]
            if endless:
                raise ValueError(
                    f"sampler {self.sampler} needs choices, or ranges with a step, however not so: {endless}"
                )
        elif not self.trials and not self.minutes:
            raise ValueError(f"sampler {self.sampler} never ends: trials or minutes must be given")

    @property
    def is_listed(self) -> bool:
        """Whether its settings are known before they are tried: all of a grid, or one change at a time."""
        return self.sampler in ("grid", "one_change")

    @property
    def is_endless(self) -> bool:
        """Whether only time ends it."""
        return not self.is_listed and not self.trials

    def settings(self) -> list[dict[str, Any]]:
        """List what is tried: the points of a grid, or as many empty settings as the sampler is to fill.

        One change at a time begins with the first value of every parameter, and changes one of them.
        """
        if not self.is_listed:
            return [{} for _ in range(self.trials)]
        if self.sampler == "one_change":
            changes = list(self.single_changes())
            return [each for place, each in enumerate(changes) if each not in changes[:place]][: self.trials or None]
        return list(islice(self._points({}, 0), self.trials or None))

    def single_changes(self) -> Iterator[dict[str, Any]]:
        """Give each value, or both ends of a range without steps, with the first of every other parameter."""
        for varied in self.space:
            wanted = self._conditions_of(varied)
            for value in varied.points if self.is_listed else varied.corners:
                chosen: dict[str, Any] = {}
                for each in self.space:
                    if each.name == varied.name:
                        chosen[each.name] = value
                    elif each.applies(chosen):
                        chosen[each.name] = wanted[each.name][0] if each.name in wanted else each.corners[0]
                yield chosen

    def _conditions_of(self, varied: Dimension) -> dict[str, tuple[Any, ...]]:
        # What the others must be for it to apply, and what these need in turn, which stand before it.
        wanted: dict[str, tuple[Any, ...]] = {}
        for each in reversed(self.space):
            if each.name == varied.name or each.name in wanted:
                for name, allowed in each.when.items():
                    wanted[name] = tuple(value for value in allowed if value in wanted.get(name, allowed))
        never = [name for name, allowed in wanted.items() if not allowed]
        if never:
            raise ValueError(f"{varied.name} must apply to some settings, however what it needs of {never} excludes it")
        return wanted

    def _points(self, chosen: dict[str, Any], place: int) -> Iterator[dict[str, Any]]:
        if place == len(self.space):
            yield dict(chosen)
            return
        dimension = self.space[place]
        if not dimension.applies(chosen):
            yield from self._points(chosen, place + 1)
            return
        for value in dimension.points:
            yield from self._points(chosen | {dimension.name: value}, place + 1)

    def overrides(self, chosen: Mapping[str, Any], *, seed: int | None = None) -> dict[str, Any]:
        """Turn what a trial chose into the notebook's parameters."""
        known = {each.name: each.values for each in self.space}
        given = {name: known[name].get(value, value) for name, value in chosen.items()}
        return {**self.parameters, **given} | ({} if seed is None else {"seed": seed})

    @cached_property
    def _declared(self) -> tuple[dict[str, Any], dict[str, Any]]:
        # The notebook's parameters, and the profile's.
        return read_parameters(self.notebook), read_profile(self.notebook.parent / "profiles", self.profile)

    @cached_property
    def base(self) -> dict[str, Any]:
        """The notebook's parameters with the profile's, before a trial's own."""
        return override(*self._declared)

    def parameters_of(self, chosen: Mapping[str, Any], *, seed: int | None = None) -> dict[str, Any]:
        """Give all of the notebook's parameters as a trial has them, put together as its run does."""
        return override(*self._declared, self.overrides(chosen, seed=seed))

    def profile_with(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Give a profile that runs what a trial chose: what of the notebook's parameters is not its default."""
        defaults, _ = self._declared
        return {name: value for name, value in self.parameters_of(chosen).items() if value != defaults[name]}

    def recipe(self, chosen: Mapping[str, Any], *, seed: int | None = None) -> Recipe | None:
        """Give what a trial would train, None of a notebook that trains no members; what does not fit is refused."""
        parameters = self.parameters_of(chosen, seed=seed)
        if "members" not in parameters:
            return None
        recipe = Recipe.from_parameters(parameters)
        look_up(_list_scores(recipe), self.objective)
        if self.pruner != "none" and not any(getattr(member, "stop_share", 0) for member in recipe.members):
            raise ValueError(f"pruner {self.pruner!r} needs questions held out to judge by: set stop_share")
        return recipe

    def describe(self) -> dict[str, Any]:
        """Give all but the tables that decides what its trials are, as JSON has it; its budget may change."""
        space = {
            each.name: {
                "distribution": str(each.distribution),
                "values": {str(label): value for label, value in each.values.items()},
                "when": {name: list(allowed) for name, allowed in each.when.items()},
            }
            for each in self.space
        }
        about = {name: getattr(self, name) for name in ("profile", "sampler", "pruner", "objective")}
        about |= {"notebook": self.notebook.name, "parameters": dict(self.parameters), "space": space}
        about |= {f"{name} of the profile": value for name, value in self.base.items() if name not in PLACES}
        return json.loads(json.dumps(about | {f"code of {self.notebook.name}": _hash_code(self.notebook)}))


def _hash_code(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code" and TAG not in cell.metadata.get("tags", ())]
    return hash_text("\n".join(code))[:12]


def _list_scores(recipe: Recipe) -> dict[str, Any]:
    # The numbers in scores.json that a trial can be judged by, as the run of a recipe leaves them.
    score = {"mean": 0.0, "mean_without_rare": 0.0, "by_target": dict.fromkeys(TARGETS, 0.0)}
    members = [member.name for member in recipe.members]
    return {
        "nested": {"scores": dict.fromkeys([*members, "blended", "tied"], score)},
        "raw": dict.fromkeys(members, {"one_row_per_question": score, "all_rows": score}),
    }


def name_of(setting: int, seed: int | None) -> str:
    """Name a trial, and its folder."""
    return f"{setting:03d}" if seed is None else f"{setting:03d}-seed-{seed}"


def describe(chosen: Mapping[str, Any]) -> str:
    """Write what a trial tries in one line."""
    values = {name: f"{value:g}" if isinstance(value, float) else value for name, value in chosen.items()}
    return ", ".join(f"{name}={value}" for name, value in values.items())


def look_up(scores: dict[str, Any], name: str) -> float:
    """Find a number in a run's scores by its dotted name."""
    value: Any = scores
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            known = list(value) if isinstance(value, dict) else "no more"
            raise ValueError(f"objective {name!r} must name a number in {SCORES}, however {part!r} is not in {known}")
        value = value[part]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"objective {name!r} must be a number, however: {value!r}")
    return float(value)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and check all of it against its notebook.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If a name is unknown, a value is out of its range, or a combination does not fit; and a TypeError
            if a value is of another kind. The message begins with the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no sweep file {path}; those that ship are sweeps/*.yaml")
    content = read_yaml(path)
    try:
        known = {each.name for each in fields(Sweep)} - {"name"}
        refuse_unknown(content, known=known, what="field of a sweep")
        for name, kind in _KINDS.items():
            if type(content.get(name, kind())) is not kind:
                raise TypeError(f"{name} must be of type {kind.__name__}, however: {content[name]!r}")
        for name in (*content.get("parameters", {}), *content.get("space", {})):
            if not isinstance(name, str):
                raise TypeError(f"a parameter must be named by a word, however: {name!r}")
            if name in ("data", "out"):
                raise ValueError(f"{name} must be given with the command, however the file names it")
        given = dict(content)
        given["notebook"] = Path(content.get("notebook", Sweep.notebook))
        declared = read_parameters(given["notebook"], needed=("data", "out"))
        given["space"] = read_space(content.get("space", {}), declared)
        given["seeds"] = tuple(content.get("seeds", ()))
        sweep = Sweep(name=path.stem, **given)
        _check_points(sweep)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
    return sweep


def _check_points(sweep: Sweep) -> None:
    # Every combination of a grid; of others each value by itself, with the first that there are of the rest.
    for each in sweep.space:
        sweep._conditions_of(each)
    points = list(islice(sweep._points({}, 0) if sweep.sampler == "grid" else sweep.single_changes(), MOST_POINTS + 1))
    if len(points) > MOST_POINTS:
        raise ValueError(f"sampler {sweep.sampler} must have {MOST_POINTS} points at most, however it has more")
    same: dict[str, dict[str, Any]] = {}
    for seed in sweep.seeds or (None,):
        is_first = seed in (None, *sweep.seeds[:1])
        for chosen in points if is_first else points[:1]:
            try:
                recipe = sweep.recipe(chosen, seed=seed)
            except (TypeError, ValueError) as error:
                raise type(error)(f"with {chosen}: {error}") from error
            if recipe is not None and is_first:
                first = same.setdefault(_identify(recipe, chosen), chosen)
                if first != chosen:
                    differing = [name for name in first | chosen if first.get(name) != chosen.get(name)]
                    raise ValueError(
                        f"what is varied must change what is trained, however {differing} change nothing between "
                        f"{first} and {chosen}; leave it out, or say `when` it counts, as sweeps/layouts.yaml does"
                    )


# What nothing reads where others are so, by the group of a transformer's fields that it stands in.
_UNREAD: dict[tuple[str, str], Callable[[TransformerRecipe], bool]] = {
    ("layout", "body_share"): lambda of: of.layout.layout != "joint" or of.layout.stride > 0,
    ("layout", "head_share"): lambda of: of.layout.stride > 0,
    ("layout", "max_windows"): lambda of: of.layout.stride == 0,
    ("model", "hidden_width"): lambda of: of.model.head == "linear" and of.model.pooling in ("cls", "mean", "cls_mean"),
    ("settings", "patience"): lambda of: of.stop_share == 0,
    ("settings", "threshold"): lambda of: of.stop_share == 0 or of.settings.patience == 0,
    ("settings", "use_tensorboard"): lambda of: True,
}


def _identify(recipe: Recipe, chosen: Mapping[str, Any]) -> str:
    # What is no part of a recipe, such as a time limit, tells trials apart too, but where things lie does not.
    content = recipe.to_dict()
    for member, written in zip(recipe.members, content["members"], strict=True):
        for (group, name), is_unread in _UNREAD.items():
            if isinstance(member, TransformerRecipe) and is_unread(member):
                del written[group][name]
    of_recipes = {each.name for each in fields(Recipe)}.union(*map(list_leaves, MEMBER_RECIPES.values()))
    left_out = of_recipes.union(PLACES, ["use_internet"])
    return json.dumps([content, {name: value for name, value in chosen.items() if name.split(".")[0] not in left_out}])
