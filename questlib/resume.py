"""Whether a run folder may be gone on with: one run's alone, the same recipe, the same tables, the same encoders."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from questlib.data import Tables
from questlib.marks import hash_text
from questlib.pretrained import find_encoder, hash_encoder
from questlib.processes import find_launched
from questlib.recipe import Recipe
from questlib.run_folder import (
    INPUTS,
    NAMES,
    OUTPUTS,
    RECIPE,
    REPORT,
    RUN,
    TIMELINE,
    is_on_kaggle,
    read_json,
    write_json,
)

# A run is extended by more of these; anything else would be another run.
_MAY_GROW = "folds_to_train"
_MOST_TOLD = 12  # differences of one message
_MEMBERS_KIND = re.compile(r"members\.[^.]+\.kind")
# Parameters are flat where people name them; the recipe keeps what belongs together in these.
_GROUPS = {"layout", "metadata", "model", "settings"}


def keep_inputs(run_folder: Path, recipe: Recipe, tables: Tables) -> None:
    """Write what a run is made from into its folder, so that it can be told from another one.

    Raises:
        FileExistsError: If the folder holds what is no run's, or is not known to be this one's.
        ValueError: If the folder holds a run that was made from something else; the differences are named.
    """
    refuse_foreign(run_folder)
    refuse_shared_resume(run_folder)
    inputs = _hash_inputs(recipe, tables)
    _refuse_changed(run_folder, recipe, inputs)
    for name in (RUN, OUTPUTS):  # of an earlier end: the run goes on
        (run_folder / name).unlink(missing_ok=True)
    write_json(run_folder / RECIPE, recipe.to_dict())
    write_json(run_folder / INPUTS, inputs)


def refuse_foreign(run_folder: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor one run's: a fold of another would be taken for its own."""
    names = {path.name for path in run_folder.iterdir()} if run_folder.exists() else set()
    # A notebook that was executed there may have any name, and what is hidden is a lock or half-written.
    names = {name for name in names if not name.startswith(".") and not name.endswith(".ipynb")}
    if is_on_kaggle():  # a session leaves files of its own there
        names &= NAMES
    # A run that was killed before it had written what it is made from leaves these at most.
    known = {REPORT, TIMELINE, RECIPE} | (NAMES if {RECIPE, INPUTS} <= names else set())
    if not names <= known:
        raise FileExistsError(
            f"the run folder {run_folder} must be new, empty or one run's, however it holds files: "
            f"{sorted(names - known)[:5]}; name another"
        )


def refuse_shared_resume(run_folder: Path) -> None:
    """Refuse to go on with a run in processes that train one model together: only the first knows how far it is."""
    if _holds_run(run_folder) and find_launched().size > 1:
        raise ValueError(
            f"the run in {run_folder} must go on in one process, however {find_launched().size} were launched: only "
            "the first would know what is finished; leave the launcher out, or name a new folder"
        )


def refuse_changed(run_folder: Path, recipe: Recipe, tables: Tables) -> None:
    """Refuse to go on with a run that was made from something else; a folder without a run passes."""
    if _holds_run(run_folder):
        _refuse_changed(run_folder, recipe, _hash_inputs(recipe, tables))


def _holds_run(run_folder: Path) -> bool:
    return (run_folder / RECIPE).is_file() and (run_folder / INPUTS).is_file()


def _refuse_changed(run_folder: Path, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
    if not _holds_run(run_folder):
        return
    began = Recipe.from_dict(read_json(run_folder / RECIPE))
    before, after = (dict(flatten(_title_encoders(each))) for each in (began, recipe))
    alone = {name.removesuffix(".kind") for name in before.keys() ^ after.keys() if _MEMBERS_KIND.fullmatch(name)}
    changed = [
        f"{name} was {before.get(name, 'not there')}, is {after.get(name, 'not there')}"
        for name in before | after
        if before.get(name) != after.get(name)
        and not _has_grown(name, before, after)
        and not (name == "members" and alone)
        # Of a member that is there or not, its kind tells enough.
        and (_MEMBERS_KIND.fullmatch(name) or not any(name.startswith(f"{each}.") for each in alone))
    ]
    was, now = (dict(flatten(each)) for each in (read_json(run_folder / INPUTS), inputs))
    changed += [f"{name} was another" for name in was | now if was.get(name) != now.get(name)]
    if changed:
        told = [*changed[:_MOST_TOLD], *([f"and {len(changed) - _MOST_TOLD} more"] if changed[_MOST_TOLD:] else [])]
        raise ValueError(
            f"the run in {run_folder} can only go on as it began, however: {'; '.join(told)}; "
            "give what it was given, or name a new folder"
        )


def _has_grown(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return name.split(".")[-1] == _MAY_GROW and name in before and name in after and before[name] <= after[name]


def _title_encoders(recipe: Recipe) -> dict[str, Any]:
    # Where encoders lie may change. What the one of a place holds is told by its hash, which stands by the same title.
    content, titles = recipe.to_dict(), _titles_of(recipe)
    for member in (each for each in content["members"] if each.get("encoder") in titles):
        member["encoder"] = titles[member["encoder"]]
    return content


def _titles_of(recipe: Recipe) -> dict[str, str]:
    return {name: f"{number} ({Path(name).name})" for number, name in enumerate(recipe.encoders)}


def _hash_inputs(recipe: Recipe, tables: Tables) -> dict[str, Any]:
    hashes = {title: hash_encoder(find_encoder(name)) for name, title in _titles_of(recipe).items()}
    return hash_tables(tables) | {"encoder": hashes}


def hash_tables(tables: Tables) -> dict[str, Any]:
    """Hash what tables hold, each by the name of its file."""
    frames = {"train.csv": tables.train, "test.csv": tables.test, "sample_submission.csv": tables.sample_submission}
    return {name: _hash_frame(frame) for name, frame in frames.items()}


def _hash_frame(frame: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(frame, index=False)
    return hash_text(f"{list(frame.columns)} {rows.tolist()}")


def flatten(content: object, way: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Give what a recipe in JSON holds by dotted names, as people name parameters; of a list, its order too."""
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        names = [str(each.get("name", place)) for place, each in enumerate(content)]
        yield ".".join(way), names
        for place, (name, each) in enumerate(zip(names, content, strict=True)):
            yield from flatten(each, (*way, name if names.count(name) == 1 else f"{name}[{place}]"))
    elif isinstance(content, dict) and content:
        for name, value in content.items():
            yield from flatten(value, way if isinstance(value, dict) and name in _GROUPS else (*way, name))
    else:
        yield ".".join(way), content
