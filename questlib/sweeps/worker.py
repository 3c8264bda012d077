"""A worker of a sweep: takes the next trial, runs its notebook, tells the study; until nothing is left."""

import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from questlib.clock import SESSION_START, read_sessions
from questlib.run import Interrupted, run_notebook
from questlib.run_folder import CHECKPOINTS, EVALUATIONS, LOGS, SCORES, read_json
from questlib.sweeps import study as studies
from questlib.sweeps.definition import Sweep, describe, look_up, name_of
from questlib.sweeps.space import Dimension

logger = logging.getLogger(__name__)

TRIALS, LOG = "trials", "log.txt"
# What a trial can fail of; the sweep goes on without it. Anything else is a mistake of ours.
_FAULTS = (OSError, ValueError, TypeError, RuntimeError, LookupError)
_SECONDS_BETWEEN_LOOKS = 1.0


class _Surplus(Exception):
    """A trial that nobody asked for."""


class Worker:
    """Runs trials, one after the other.

    Args:
        sweep: What is tried.
        study: Its study.
        folder: Of the sweep; takes a run folder for each trial.
        data: Folder of tables; the profile's where None.
        n_workers: How many there are here, to say how long it will take.
    """

    def __init__(
        self, sweep: Sweep, study: optuna.Study, *, folder: Path, data: str | None, n_workers: int = 1
    ) -> None:
        self.sweep = sweep
        self.study = study
        self.folder = folder
        self.data = data
        self.n_workers = n_workers

    def work(self) -> None:
        """Work until every trial is finished, here or by others.

        Raises:
            Interrupted: If this process was told to end while a kernel ran, and a KeyboardInterrupt where none did;
                its trial is queued again, and goes on where it was.
        """
        while self._is_there_work():
            try:
                self.study.optimize(self._run, n_trials=1, catch=(*_FAULTS, _Surplus))
            except (Interrupted, KeyboardInterrupt):
                studies.add_missing(self.study, self.sweep)
                raise
            except (ValueError, UpdateFinishedTrialError) as error:
                if isinstance(error, ValueError) and "Cannot tell" not in str(error):
                    raise
                # This machine slept for longer than a heart may stand still, and whoever took the trial over finds it
                # in its folder, if that is here; or a server that went away had stored the end and could not say so.
                logger.warning("a trial had been ended meanwhile: %s", error)

    def _is_there_work(self) -> bool:
        while True:
            studies.take_back(self.study)
            if studies.is_time_over(self.study, self.sweep):
                return False
            if studies.count(self.study, TrialState.WAITING):
                return True
            if self.sweep.is_endless:
                if not studies.add_missing(self.study, self.sweep):
                    self._queue_next()
                return True
            if not studies.count(self.study, TrialState.RUNNING) and not studies.add_missing(self.study, self.sweep):
                return False
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # one that runs elsewhere may have to be taken over

    def _queue_next(self) -> None:
        numbers = [trial.user_attrs.get(studies.SETTING) for trial in self.study.get_trials(deepcopy=False)]
        first = next(iter(self.sweep.seeds), None)
        setting = max((number for number in numbers if number is not None), default=-1) + 1
        studies.queue(self.study, {}, setting=setting, seed=first)

    def _run(self, trial: Trial) -> float:
        # First of all: one that was queued again has the name of the worker that is gone.
        trial.set_user_attr(studies.WORKER, studies.identify_worker())
        if studies.is_surplus(self.study, trial):
            trial.set_user_attr(studies.SURPLUS, True)
            raise _Surplus
        chosen = suggest(self.sweep, trial)
        setting, seed = trial.user_attrs[studies.SETTING], trial.user_attrs[studies.SEED]
        if not self.sweep.is_listed and seed in self.sweep.seeds[:1]:
            for other in self.sweep.seeds[1:]:
                studies.queue(self.study, chosen, setting=setting, seed=other)
        out = self.folder / TRIALS / name_of(setting, seed)
        if same := studies.find_same(self.study, trial):
            assert same.value is not None  # it is complete
            twin = name_of(same.user_attrs[studies.SETTING], seed)
            trial.set_user_attr(studies.SAME, twin)
            # Counted as if it were trained, so that a budget of minutes ends.
            trial.set_user_attr(studies.SECONDS, same.user_attrs.get(studies.SECONDS, 0.0))
            logger.info("trial %s is as trial %s: %.4f", out.name, twin, same.value)
            return same.value
        logger.info("trial %s begins: %s", out.name, describe(chosen))
        began, watch, is_trained = time.monotonic(), _Watch(trial, out), False
        try:
            with _logged(out), watch:
                self._run_notebook(out, self.sweep.overrides(chosen, seed=seed))
                is_trained = True
            return self._finish(trial, out, time.monotonic() - began)
        except (Interrupted, KeyboardInterrupt) as error:
            if not watch.is_hopeless:
                raise
            if is_trained:  # while it was judged
                return self._finish(trial, out, time.monotonic() - began)
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
            trial.set_user_attr(studies.SECONDS, time.monotonic() - began)
            told = f"trial {out.name} was hopeless after {watch.n_reported} evaluations, and was ended"
            logger.info("%s", told)
            raise optuna.TrialPruned(told) from error
        except _FAULTS as error:
            trial.set_user_attr(studies.SECONDS, time.monotonic() - began)
            trial.set_user_attr(studies.ERROR, f"{type(error).__name__}: {error}"[:2000])
            logger.warning("trial %s failed: %s", out.name, str(error)[:300])
            with out.with_name(f"{out.name}.{LOG}").open("a", encoding="utf-8") as stream:
                stream.write(f"{error}\n")
            raise
        finally:
            os.environ.pop(SESSION_START, None)

    def _run_notebook(self, out: Path, overrides: dict[str, Any]) -> None:
        os.environ[SESSION_START] = str(time.time())
        run_notebook(self.sweep.notebook, profile=self.sweep.profile, data=self.data, out=out, overrides=overrides)

    def _finish(self, trial: Trial, out: Path, seconds: float) -> float:
        if not (out / SCORES).is_file():
            raise ValueError(f"the trial must leave {SCORES}, however it holds too few questions to be scored")
        value = look_up(read_json(out / SCORES), self.sweep.objective)
        # A trial that was gone on with took longer than this time: its notebook knows.
        before = [session["seconds"] for session in read_sessions(out)[:-1]]
        trial.set_user_attr(studies.SECONDS, seconds + sum(before))
        logger.info("trial %s: %.4f in %.0f s; %s", out.name, value, seconds, self._tell_progress(value))
        return value

    def _tell_progress(self, value: float) -> str:
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        best = max([value, *(each.value for each in done if each.state == TrialState.COMPLETE and each.value)])
        n_left = studies.count(self.study, TrialState.WAITING, TrialState.RUNNING) - 1
        seconds = [each for trial in done if (each := trial.user_attrs.get(studies.SECONDS))]
        told = f"best so far {best:.4f}, {n_left} trials left"
        if not seconds or not n_left:
            return told
        return f"{told}, about {n_left * sum(seconds) / len(seconds) / 60 / self.n_workers:.1f} min"


def suggest(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """Let the sampler choose, parameter after parameter; those that do not apply are left out."""
    chosen: dict[str, Any] = {}
    for dimension in sweep.space:
        if dimension.applies(chosen):
            chosen[dimension.name] = _suggest(trial, dimension)
    return chosen


def _suggest(trial: Trial, dimension: Dimension) -> Any:  # noqa: ANN401
    match dimension.distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(dimension.name, choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(dimension.name, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(dimension.name, low, high, step=step, log=log)
    raise AssertionError(dimension)


@contextmanager
def _logged(out: Path) -> Iterator[None]:
    # What the notebook prints lies beside what it writes; the run folder itself holds a run's files only.
    path = out.with_name(f"{out.name}.{LOG}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield


class _Watch:
    """Forward the evaluations of a trial's first fold to the study, and end the trial where they are hopeless."""

    def __init__(self, trial: Trial, out: Path) -> None:
        self.is_hopeless = False
        self.n_reported = 0
        self._trial, self._out = trial, out
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_over.wait(_SECONDS_BETWEEN_LOOKS)
            values = self._read()
            for number, value in list(enumerate(values))[self.n_reported :]:
                self._trial.report(value, number)
                self.n_reported = number + 1
                if not is_last and not self.is_hopeless and self._trial.should_prune():
                    self.is_hopeless = True
                    os.kill(os.getpid(), signal.SIGINT)  # the notebook is told, and its cell ends

    def _read(self) -> list[float]:
        folders = sorted((self._out / LOGS).glob(f"*-fold-0/{EVALUATIONS}"))
        lines = folders[0].read_text(encoding="utf-8").split("\n")[:-1] if folders else []
        return [json.loads(line)["spearman"] for line in lines]
