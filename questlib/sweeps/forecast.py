"""What a sweep would run and how long it should take, from the measured speed of its settings."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from questlib.cache import CACHE
from questlib.data import Tables
from questlib.folds import list_tasks
from questlib.recipe import MemberRecipe, Recipe, TransformerRecipe
from questlib.sweeps.definition import Sweep, describe, name_of
from questlib.tasks import measure_fold
from questlib.typed_json import write_typed


def forecast(sweep: Sweep, tables: Tables, *, n_workers: int) -> float:
    """Print every trial with the minutes it should take, and their sum shared among the workers; give the sum.

    A few steps are trained of what is not as fast as another; nothing is kept. A sampler's trials are not known before:
    the ends of its space are shown.
    """
    settings = sweep.settings() if sweep.is_listed else list(sweep.single_changes())
    measured: dict[str, float] = {}
    opening = _time_opening()
    seconds = []
    for number, chosen in enumerate(settings):
        for seed in sweep.seeds or (None,):
            recipe = sweep.recipe(chosen, seed=seed)
            if recipe is None:
                raise ValueError(f"only what trains members can be forecast, however {sweep.notebook} has none")
            whole = opening + sum(_fold_seconds(member, recipe, tables, measured) for member in recipe.members)
            seconds.append(min(whole, 60 * sweep.parameters_of(chosen).get("time_limit_minutes", 0) or whole))
            sys.stdout.write(f"{name_of(number, seed):12} {seconds[-1] / 60:7.1f} min  {describe(chosen)}\n")
            sys.stdout.flush()
    total = sum(seconds)
    if sweep.is_listed:
        told = f"{len(seconds)} trials: {total / 60:.1f} min of work"
    elif sweep.trials:
        total *= sweep.trials * max(1, len(sweep.seeds)) / len(seconds)
        told = f"up to {sweep.trials} settings, such as these: {total / 60:.1f} min of work"
    else:
        told = f"as many trials as fit, such as these of {total / len(seconds) / 60:.1f} min"
        total = 60 * sweep.minutes
    limit = f", ended after {sweep.minutes:g} min of work" if sweep.minutes else ""
    total = min(total, 60 * sweep.minutes) if sweep.minutes else total
    sys.stdout.write(f"{told}{limit}; {total / 60 / n_workers:.1f} min with {n_workers} workers side by side at most\n")
    return total


def _time_opening() -> float:
    # What every trial begins with: a kernel that imports the library.
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import questlib.folds, ipykernel"], check=True)
    return time.monotonic() - start


def _fold_seconds(member: MemberRecipe, recipe: Recipe, tables: Tables, measured: dict[str, float]) -> float:
    alike = json.dumps(write_typed(_without_rates(member)))
    if alike not in measured:
        with tempfile.TemporaryDirectory() as folder:
            tasks = list_tasks(tables, replace(recipe, members=(member,)), Path(folder), CACHE)
            start = time.monotonic()
            speed = measure_fold(tasks[0])
            if speed is None:  # a quick member is fitted in about the time that a few steps of others take
                measured[alike] = time.monotonic() - start
            else:
                n_rows = len(tasks[0].scored_rows) + len(tables.test)
                once = speed.once / member.folds_to_train
                measured[alike] = speed.fit_seconds(member.epochs()) + speed.predict_seconds(n_rows) + once
    return measured[alike] * member.folds_to_train


def _without_rates(member: MemberRecipe) -> MemberRecipe:
    # Rates and seeds change nothing of how long a step takes.
    if not isinstance(member, TransformerRecipe):
        return member
    stages = tuple(
        replace(stage, learning_rate=0.0, head_learning_rate=0.0, warmup_share=0.0, weight_decay=0.0)
        for stage in member.stages
    )
    return replace(member, name="any", stages=stages, settings=replace(member.settings, seed=0))
