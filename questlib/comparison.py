"""Finished runs side by side: what differs between them, and what came of it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from questlib.marks import check_outputs
from questlib.resume import flatten
from questlib.run_folder import RUN, read_json
from questlib.schema import RARE_TARGET

# Set by what starts a run with a profile: the notebook gets the parameters, not where they come from.
PROFILE = "QUESTLIB_PROFILE"
MEAN, MEAN_WITHOUT_RARE = "mean of 30", "mean of 29"
_SCORED_ON = "scored on"
_NOTHING = "-"


def read_run(folder: Path) -> dict[str, Any]:
    """Read what a finished run was.

    Raises:
        FileNotFoundError: If the folder has no `run.json`: the run is unfinished, or of an older questlib.
        ValueError: If the file is not what the run wrote.
    """
    if not (folder / RUN).is_file():
        is_folder = "it is unfinished, or of an older questlib" if folder.is_dir() else "it is no folder"
        raise FileNotFoundError(f"{folder}: no {RUN}, {is_folder}")
    check_outputs(folder, RUN)
    return read_json(folder / RUN)


def compare_runs(folders: Iterable[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Lay out finished runs in a table, and say what the table stands on and which folders are not in it.

    Returns:
        A row per run, the best first: its folder, its score, minutes and profile, and what differs between the runs.
        Runs that were scored on other rows or in another way are told apart, by a column of letters. Then lines for a
        person: what the letters mean, and a line for each folder that holds no finished run.
    """
    folders, runs, left_out = list(dict.fromkeys(folders)), {}, []
    names = [folder.resolve().name for folder in folders]
    are_unlike = len(set(names)) == len(names)
    for folder, name in zip(folders, names, strict=True):
        try:
            runs[name if are_unlike else str(folder)] = read_run(folder)
        except (FileNotFoundError, ValueError) as error:
            left_out.append(f"left out: {error}")
    if not runs:
        raise ValueError("; ".join(["there must be finished runs, however there are none", *left_out]))
    scored_on = {name: _describe_scoring(run) for name, run in runs.items()}
    letters = {text: _name(number) for number, text in enumerate(dict.fromkeys(scored_on.values()))}
    table = pd.DataFrame([
        {
            "run": name, _SCORED_ON: letters[scored_on[name]], MEAN_WITHOUT_RARE: run["score"]["mean_without_rare"],
            MEAN: run["score"]["mean"], "minutes": run["minutes"],
        }
        for name, run in runs.items()
    ])  # fmt: skip
    table = table.join(_find_differences(runs.values()))
    table = table.sort_values([_SCORED_ON, MEAN_WITHOUT_RARE], ascending=[True, False], kind="stable")
    table = table.drop(columns=[] if len(letters) > 1 else _SCORED_ON).reset_index(drop=True)
    lines = [f"{letter}: {text}" if len(letters) > 1 else text for text, letter in letters.items()]
    lines.append(f"{MEAN_WITHOUT_RARE}: without {RARE_TARGET}, which is positive in too few rows to tell")
    return table, lines + left_out


def name_machine(machine: Mapping[str, Any]) -> str:
    """Name a machine, as `run.json` has it, in a few words."""
    return ", ".join([f"{machine['cores']} cores of {machine['cpu']}", *machine["gpus"]])


def _name(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number)


def _describe_scoring(run: Mapping[str, Any]) -> str:
    score, data = run["score"], run["data"]
    warning = "LEAKS: " if score["leaks"] else ""
    rows = f"{score['n_rows']} rows of {score['n_questions']} questions"
    rows += f" ({score['rows_sha256'][:8]})" if "rows_sha256" in score else ""  # of an older questlib
    return f"{warning}{rows} of {data['name']} (train.csv {data['sha256']['train.csv'][:8]}), {score['protocol']}"


def _find_differences(runs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    facts = pd.DataFrame([_list_facts(run) for run in runs], dtype=object)
    facts = facts.where(facts.notna(), _NOTHING)
    return facts[[name for name in facts if name == "profile" or facts[name].nunique() > 1]]


def _list_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    source = run["questlib"]
    weights: dict[str, str] = {}  # of encoders of one name, whose folders differ, all
    for each in run["encoders"]:
        weights[each["name"]] = f"{weights.get(each['name'], '')} {each['sha256'][:8]}".strip()
    # The data is told by its hash, and a stage or member by the way to what is set of it.
    known = dict(flatten(run["parameters"]))
    parameters = {name: value for name, value in known.items() if name != "data" and not name.endswith(".name")}
    return {
        "profile": run["profile"],
        **{
            name: value if isinstance(value, str | int | float) else json.dumps(value)
            for name, value in parameters.items()
        },
        **{f"weights of {name}": digests for name, digests in weights.items()},
        "questlib": f"{source['version']} {(source['commit'] or '')[:9]}".strip(),
        "machine": name_machine(run["machine"]),
    }
