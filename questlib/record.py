"""What a run was, in one file, written at its end: what was asked, of which tables, where, and what came of it."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import questlib
from questlib.checkout import find_commit
from questlib.clock import Clock, read_sessions
from questlib.comparison import PROFILE
from questlib.data import Tables, question_of, read_table
from questlib.marks import hash_text
from questlib.recipe import Recipe
from questlib.run_folder import ENSEMBLE, INPUTS, RECIPE, RUN, SCORES, TIED, read_json, write_json
from questlib.schema import ID

_PACKAGES = "torch transformers accelerate datasets pandas numpy scikit-learn scipy bitsandbytes".split()
# Where things lie on this machine is no part of what was run.
_PLACES = ("out", "cache")


def record_run(run_folder: Path, namespace: Mapping[str, Any], *, tables: Tables, clock: Clock) -> None:
    """Write `run.json` into the folder of a run that ends: all that it was, and its one final score.

    Args:
        run_folder: Holds recipe, inputs, ensemble and scores.
        namespace: The notebook's `globals()`; what it annotates are its parameters.
        tables: What the run was given.
        clock: The run's.
    """
    clock.finish_step("pictures")
    recipe, inputs = Recipe.from_dict(read_json(run_folder / RECIPE)), read_json(run_folder / INPUTS)
    parameters = {name: namespace[name] for name in namespace["__annotations__"] if name not in _PLACES}
    sessions = read_sessions(run_folder)
    hashes = inputs.pop("encoder").values()
    content = {
        "profile": os.environ.get(PROFILE),
        "parameters": _name_folders(parameters),
        "seed": recipe.seed,
        "encoders": [
            {"name": Path(name).name, "sha256": digest} for name, digest in zip(recipe.encoders, hashes, strict=True)
        ],
        "data": {
            "name": Path(namespace["data"]).name,
            "n_rows": {"train.csv": len(tables.train), "test.csv": len(tables.test)},
            "sha256": inputs,
        },
        "questlib": {"version": questlib.__version__, "commit": find_commit()},
        "machine": describe_machine(),
        "start": sessions[0].get("began"),  # sessions of an older version do not say
        "minutes": sum(session["seconds"] for session in sessions) / 60,
        "folds": read_json(run_folder / ENSEMBLE)["folds"],
        "score": _read_score(run_folder, tables),
    }
    write_json(run_folder / RUN, content)


def _name_folders(parameters: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    # A path of this machine is nobody's business; what lay there is told by its hash.
    if isinstance(parameters, dict):
        return {
            name: Path(value).name if name in ("data", "encoder") and isinstance(value, str) else _name_folders(value)
            for name, value in parameters.items()
        }
    return [_name_folders(each) for each in parameters] if isinstance(parameters, list | tuple) else parameters


def _read_score(run_folder: Path, tables: Tables) -> dict[str, Any]:
    ids = tables.train[ID].astype(str)
    known = tables.train[ids.isin(read_table(run_folder / TIED, columns=(ID,))[ID])]
    scores = read_json(run_folder / SCORES)
    nested = scores["nested"]
    tied = nested["scores"]["tied"]
    return {
        "mean": tied["mean"],
        "mean_without_rare": tied["mean_without_rare"],
        "protocol": f"blended and tied, {nested['protocol']}; {scores['protocol']}",
        "leaks": scores["leaks"],
        "n_rows": len(known),
        "n_questions": len(np.unique(question_of(known))),  # one row of each is scored
        "rows_sha256": hash_text(" ".join(sorted(known[ID].astype(str)))),
    }


def describe_machine() -> dict[str, Any]:
    """Say what this process runs on: processor, cores, memory (GB), GPUs, system, and versions."""
    return {
        "cpu": _name_cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _find_version(name))},
    }


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _name_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has it
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
