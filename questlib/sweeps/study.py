"""The study of a sweep: which trials it has, and what becomes of those whose worker is gone."""

import math
import os
import socket
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from questlib.data import Tables
from questlib.pretrained import find_encoder, hash_encoder
from questlib.resume import hash_tables
from questlib.sweeps.definition import Sweep
from questlib.sweeps.storage import DATABASE, GRACE_SECONDS, open_storage, requeue

# What a trial is told by, in its user attributes.
SETTING, SEED, WORKER, ERROR, SECONDS, SURPLUS = "setting", "seed", "worker", "error", "seconds", "surplus"
SAME = "same"  # names the trial that a sampler had asked for before
_INPUTS = "tables"  # of the study


def open_study(sweep: Sweep, *, folder: Path, storage: str | None) -> optuna.Study:
    """Open the study of a sweep, or make it; what is missing of its trials is added, what is no longer asked for ended.

    Args:
        sweep: Names the study.
        folder: Of the sweep; holds the storage where none is named.
        storage: A relational storage that several machines share, as SQLAlchemy's URL.

    Raises:
        ValueError: If the study was begun as another sweep; the differences are named.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    sampler, pruner = _SAMPLERS[sweep.sampler](), _PRUNERS[sweep.pruner]()
    study = optuna.create_study(
        storage=open_storage(folder, storage), study_name=sweep.name, direction="maximize",
        load_if_exists=True, sampler=sampler, pruner=pruner,
    )  # fmt: skip
    _refuse_other(study, sweep)
    _end_unasked(study, sweep)
    add_missing(study, sweep)
    return study


def open_existing(sweep: Sweep, *, folder: Path, storage: str | None) -> optuna.Study:
    """Open the study of a sweep to read it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage is None and not (folder / DATABASE).is_file():
        raise FileNotFoundError(f"no sweep {sweep.name} in {folder}: {DATABASE} is not there; run it first")
    opened = open_storage(folder, storage)
    names = optuna.get_all_study_names(opened)
    if sweep.name not in names:
        raise ValueError(f"the sweep must be one of {names} that this storage has, however: {sweep.name}; run it first")
    return optuna.load_study(study_name=sweep.name, storage=opened)


# Without a seed: a common one would draw the same for all workers.
_SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "grid": RandomSampler,
    "one_change": RandomSampler,
    "random": RandomSampler,
    # Trials that run count as bad ones, so that several workers do not try the same.
    "tpe": lambda: TPESampler(constant_liar=True, n_startup_trials=5),
}
_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    "hyperband": optuna.pruners.HyperbandPruner,
}


def _refuse_other(study: optuna.Study, sweep: Sweep) -> None:
    began, now = study.user_attrs.get("sweep"), sweep.describe()
    if began is None:
        study.set_user_attr("sweep", now)
        return
    changed = [name for name in now if began.get(name) != now[name]]
    if changed:
        told = "; ".join(f"{name} was {began.get(name, 'not there')}, is {now[name]}" for name in changed)
        raise ValueError(
            f"the sweep {sweep.name} can only go on as it began, however {told}; budget and seeds may change, anything "
            "else is another sweep: name its file otherwise"
        )
    has_seeds = {trial.user_attrs[SEED] is not None for trial in list_trials(study)}
    if has_seeds - {bool(sweep.seeds)}:
        raise ValueError(
            f"the sweep {sweep.name} must list seeds from its first trial on or never, however it began "
            f"{'without' if sweep.seeds else 'with'} them; name its file otherwise"
        )


def keep_inputs(study: optuna.Study, tables: Tables, *, encoders: Iterable[str] = ()) -> None:
    """Write down which tables and encoders, by name, a sweep is of, and refuse others than it began with."""
    now = hash_tables(tables) | {f"encoder {name}": hash_encoder(find_encoder(name)) for name in encoders}
    _refuse_others(study, now)
    study.set_user_attr(_INPUTS, study.user_attrs.get(_INPUTS, {}) | now)


def refuse_other_tables(study: optuna.Study, tables: Tables) -> None:
    """Refuse tables that a sweep's trials were not trained on, as far as it is known what those were."""
    _refuse_others(study, hash_tables(tables))


def _refuse_others(study: optuna.Study, now: dict[str, str]) -> None:
    began = study.user_attrs.get(_INPUTS, {})
    changed = [name for name in now if began.get(name, now[name]) != now[name]]
    if changed:
        raise ValueError(
            f"the sweep {study.study_name} must have the tables and encoders that it began with, however others are "
            f"given: {', '.join(changed)}; give the same (DATA names tables), or another folder OUT for another sweep"
        )


def add_missing(study: optuna.Study, sweep: Sweep) -> int:
    """Queue what was broken off, and what the sweep asks for and nobody has begun; tell how many trials that are.

    A sampler fills in a setting when its first trial begins, which then queues the setting's other seeds; those that
    were added to the sweep later are queued here.
    """
    trials = list_trials(study)
    asked_for = {_key_of(trial): trial for trial in trials}
    there = {_key_of(trial) for trial in trials if _is_there(trial)}
    unasked = _find_unasked(sweep, trials)
    lost = [trial for key, trial in asked_for.items() if key not in there | unasked]
    for trial in lost:
        requeue(study, trial)
    wanted = [key for key in _list_keys(sweep, trials) if key not in asked_for]
    settings = dict(enumerate(sweep.settings())) if sweep.is_listed else _filled_settings(trials)
    for number, seed in wanted:
        queue(study, settings.get(number, {}), setting=number, seed=seed)
    return len(lost) + len(wanted)


def _end_unasked(study: optuna.Study, sweep: Sweep) -> None:
    # Fewer seeds or trials are asked for than before: what waits in their name would be run.
    trials = list_trials(study)
    unasked = _find_unasked(sweep, trials)
    for trial in trials:
        if trial.state == TrialState.WAITING and _key_of(trial) in unasked:
            with suppress(UpdateFinishedTrialError):  # another machine did the same
                # Begun first, as a worker begins it, so that none has begun it.
                if study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    Trial(study, trial._trial_id).set_user_attr(SURPLUS, True)
                    study.tell(trial.number, state=TrialState.FAIL)


def _find_unasked(sweep: Sweep, trials: Sequence[FrozenTrial]) -> set[tuple[int | None, int | None]]:
    # A setting that a sampler filled in keeps its seeds, however few new ones are asked for.
    most = math.inf if sweep.is_endless else len(sweep.settings())
    filled = {} if sweep.is_listed else _filled_settings(trials)
    return {
        (number, seed)
        for number, seed in map(_key_of, trials)
        if number is not None and (seed not in (sweep.seeds or (None,)) or not (number < most or number in filled))
    }


def _list_keys(sweep: Sweep, trials: Sequence[FrozenTrial]) -> list[tuple[int, int | None]]:
    # Seed after seed, so that every setting is tried before any is tried again.
    first, *others = sweep.seeds or (None,)
    if sweep.is_listed:
        return [(number, seed) for seed in (first, *others) for number in range(len(sweep.settings()))]
    begun = {trial.user_attrs[SETTING] for trial in trials}
    new = [number for number in range(sweep.trials) if number not in begun]
    filled = sorted(_filled_settings(trials))
    return [*((number, first) for number in new), *((number, seed) for seed in sweep.seeds for number in filled)]


def _filled_settings(trials: Iterable[FrozenTrial]) -> dict[int, dict[str, Any]]:
    # What a sampler chose, in trials that came to an end.
    return {
        trial.user_attrs[SETTING]: trial.params for trial in trials if _is_there(trial) and trial.state.is_finished()
    }


def list_trials(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials that somebody asked for, without those that were queued again."""
    trials = [each for each in study.get_trials(deepcopy=False) if not each.user_attrs.get(SURPLUS)]
    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return [trial for trial in trials if SETTING in trial.user_attrs and trial.number not in again]


def list_failed(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials that failed, and can say of what."""
    return [trial for trial in list_trials(study) if trial.state == TrialState.FAIL and _is_there(trial)]


def queue_failed(study: optuna.Study, sweep: Sweep) -> None:
    """Queue the trials that failed once more, as far as the sweep asks for them."""
    for failed in list_failed(study):
        trial = deepcopy(failed)
        trial.user_attrs = {name: value for name, value in trial.user_attrs.items() if name not in (ERROR, SECONDS)}
        requeue(study, trial)
    _end_unasked(study, sweep)


def _is_there(trial: FrozenTrial) -> bool:
    # One that failed of nothing that it could say was broken off.
    return trial.state != TrialState.FAIL or ERROR in trial.user_attrs


def _key_of(trial: Trial | FrozenTrial) -> tuple[int | None, int | None]:
    # What a trial was asked for as; the same for one that was broken off and its next try.
    return trial.user_attrs.get(SETTING), trial.user_attrs.get(SEED)


def queue(study: optuna.Study, chosen: dict[str, Any], *, setting: int, seed: int | None) -> None:
    """Queue one trial."""
    study.enqueue_trial(chosen, user_attrs={SETTING: setting, SEED: seed})


def count(study: optuna.Study, *states: TrialState) -> int:
    """Count the trials of some states, without those that nobody asked for."""
    return sum(not trial.user_attrs.get(SURPLUS) for trial in study.get_trials(deepcopy=False, states=states))


def is_surplus(study: optuna.Study, trial: Trial | FrozenTrial) -> bool:
    """Tell whether nobody asked for a trial, or another one is the same.

    Two workers that see one trial waiting both ask for it, and one gets a new one; two machines that begin a sweep at
    the same moment both queue its trials.
    """
    key = _key_of(trial)
    if key[0] is None:
        return True
    return any(_key_of(each) == key and each.number < trial.number and _is_there(each) for each in list_trials(study))


def find_same(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """Find a trial that was finished with the parameters and the seed that a sampler asks for again."""
    wanted = trial.params, trial.user_attrs[SEED]
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trained = [each for each in done if SAME not in each.user_attrs]
    return next((each for each in trained if (each.params, each.user_attrs.get(SEED)) == wanted), None)


def is_time_over(study: optuna.Study, sweep: Sweep) -> bool:
    """Tell whether a sweep's budget of minutes is used up."""
    spent = sum(trial.user_attrs.get(SECONDS, 0.0) for trial in study.get_trials(deepcopy=False))
    return bool(sweep.minutes) and spent >= 60 * sweep.minutes


def identify_worker() -> dict[str, Any]:
    """Say which process this is, so that others can tell whether it lives."""
    process = psutil.Process()
    return {"machine": _machine(), "pid": process.pid, "started": process.create_time()}


def _machine() -> str:
    spaces = Path("/proc/self/ns/pid")  # two containers of one name count their processes apart
    return f"{socket.gethostname()} {spaces.readlink() if spaces.exists() else ''}"


def _is_gone(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get(WORKER)
    if worker is None:  # was killed before it could say who it is
        began = trial.datetime_start
        return began is not None and (datetime.now() - began).total_seconds() > GRACE_SECONDS
    if worker["machine"] != _machine() or worker["pid"] == os.getpid():
        return False
    try:
        return abs(psutil.Process(worker["pid"]).create_time() - worker["started"]) > 1
    except psutil.NoSuchProcess:
        return True


def take_back(study: optuna.Study) -> int:
    """Queue again what workers had begun that are gone: those of this machine at once, others by their heartbeat."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    gone = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if _is_gone(trial)]
    return sum(put_back(study, trial) for trial in gone)


def put_back(study: optuna.Study, trial: FrozenTrial) -> bool:
    """End a trial whose worker is gone, and queue it once more; False where another worker did."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    requeue(study, trial)
    return True
