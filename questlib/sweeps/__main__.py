"""The command line of sweeps: run one, or report on one."""

import argparse
import logging
import os
import shlex
import signal
import sys
from pathlib import Path

from optuna.trial import TrialState

from questlib.checks import refuse_outside
from questlib.data import read_tables
from questlib.inputs import expand_homes
from questlib.recipe import TransformerRecipe
from questlib.run import Interrupted
from questlib.run_folder import refuse_unwritable
from questlib.sweeps import study as studies
from questlib.sweeps.definition import Sweep, describe, name_of, read_sweep
from questlib.sweeps.storage import DATABASE
from questlib.sweeps.worker import LOG, TRIALS, Worker

SWEEPS = Path("runs/sweeps")


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0, or 1 after an error, which is told in one message on standard error; 130 where interrupted."""
    parsed = _build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format=_format(parsed), datefmt="%H:%M:%S")
    logging.getLogger("questlib.sweeps").setLevel(logging.INFO)
    try:
        expand_homes(parsed)
        return parsed.command(parsed)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        sys.stderr.write(f"questlib.sweeps {parsed.name}: {error}\n")
        return 1


def _format(parsed: argparse.Namespace) -> str:
    worker = getattr(parsed, "worker", 0)
    return f"%(asctime)s worker {worker}: %(message)s" if worker else "%(asctime)s %(message)s"


def _run(parsed: argparse.Namespace) -> int:
    refuse_outside(parsed.workers, low=0, high=1000, what="workers")
    sweep = read_sweep(parsed.file)
    folder = (parsed.out or SWEEPS / sweep.name).resolve()
    if parsed.worker:
        return _work(sweep, folder, parsed)
    data = parsed.data or sweep.base["data"]
    tables = read_tables(data)
    os.environ["HF_HUB_OFFLINE"] = str(int(not {**sweep.base, **sweep.parameters}.get("use_internet", False)))
    encoders = _check_encoders(sweep)
    if parsed.plan:
        from questlib.sweeps.forecast import forecast

        forecast(sweep, tables, n_workers=parsed.workers or 1)
        return 0
    refuse_unwritable(folder / DATABASE)
    study = studies.open_study(sweep, folder=folder, storage=parsed.storage)
    studies.keep_inputs(study, tables, encoders=encoders)
    studies.take_back(study)
    if parsed.retry_failed:
        studies.queue_failed(study, sweep)
    n_left = studies.count(study, TrialState.WAITING)
    is_left = n_left or sweep.is_endless or studies.count(study, TrialState.RUNNING)
    if not is_left or studies.is_time_over(study, sweep):
        sys.stdout.write("" if is_left else f"sweep {sweep.name} is finished: nothing is left to do in {folder}\n")
        _tell_end(sweep, study, folder, parsed)
        return 0
    from questlib.sweeps.parent import Parent

    command = [sys.executable, "-m", "questlib.sweeps", "run", str(parsed.file), *_options(parsed)]
    parent = Parent([*command, "--worker"], n_workers=parsed.workers, log_folder=folder / "workers")
    told = f"{n_left} trials are to be run by {parent.n_workers} workers" if n_left else "runs until its time is over"
    sys.stdout.write(f"sweep {sweep.name} in {folder}: {told}\n")
    sys.stdout.flush()
    status = parent.work(study)
    if parent.received is not None:
        sys.stderr.write(f"interrupted; {folder} holds what is finished, and where to go on; go on with:\n")
        sys.stderr.write(f"{shlex.join(command)}\n")
        return status
    _tell_end(sweep, study, folder, parsed)
    return status


def _check_encoders(sweep: Sweep) -> list[str]:
    # That they are here, and read passes as long as any trial has them; gives their names.
    settings = sweep.settings() if sweep.is_listed else sweep.single_changes()
    recipes = [recipe for chosen in settings if (recipe := sweep.recipe(chosen)) is not None]
    members = [each for recipe in recipes for each in recipe.members if isinstance(each, TransformerRecipe)]
    for member in {(each.encoder, each.layout.max_length): each for each in members}.values():
        from questlib.members.transformer import find_long_enough

        find_long_enough(member)
    return sorted({str(member.encoder) for member in members})


def _options(parsed: argparse.Namespace) -> list[str]:
    given = {
        "--data": parsed.data,
        "--storage": parsed.storage,
        "--out": parsed.out,
        "--workers": parsed.workers or None,
    }
    return [part for name, value in given.items() if value is not None for part in (name, str(value))]


def _work(sweep: Sweep, folder: Path, parsed: argparse.Namespace) -> int:
    study = studies.open_study(sweep, folder=folder, storage=parsed.storage)
    try:
        Worker(sweep, study, folder=folder, data=parsed.data, n_workers=parsed.workers or 1).work()
    except Interrupted as interrupted:
        return 128 + interrupted.number
    return 0


def _tell_end(sweep: Sweep, study: "studies.optuna.Study", folder: Path, parsed: argparse.Namespace) -> None:
    keys = [(each.user_attrs[studies.SETTING], each.user_attrs[studies.SEED]) for each in studies.list_failed(study)]
    n_done, n_left = (studies.count(study, state) for state in (TrialState.COMPLETE, TrialState.WAITING))
    sys.stdout.write(f"sweep {sweep.name}: {n_done} trials finished, {len(keys)} failed\n")
    if keys:
        failed, where = ", ".join(name_of(*key) for key in keys), folder / TRIALS / f"<trial>.{LOG}"
        sys.stdout.write(f"failed: {failed}; {where} says why, ARGS=--retry-failed tries them again\n")
    left = [f"{n_left} trials are left"] if n_left else []
    left += [f"the budget of {sweep.minutes:g} minutes is used up"] if studies.is_time_over(study, sweep) else []
    sys.stdout.write(f"{': '.join(left)}\n" if left else "")
    if n_done:
        sys.stdout.write(f"best {study.best_value:.4f}: {describe(study.best_params)}\n")
        given = {"SWEEP": parsed.file, "DATA": parsed.data, "STORAGE": parsed.storage, "OUT": parsed.out}
        named = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in given.items() if value)
        sys.stdout.write(f"make sweep-report {named} shows what is more than luck\n")


def _report(parsed: argparse.Namespace) -> int:
    from questlib.sweeps.report import write_sweep_report

    if bool(parsed.sweep) == bool(parsed.runs):
        raise ValueError("a report is on a sweep's file or on runs, however neither or both are named")
    folder = parsed.out or (SWEEPS / parsed.sweep.stem if parsed.sweep else SWEEPS / "report")
    path = write_sweep_report(parsed.sweep, parsed.runs, folder=folder, data=parsed.data, storage=parsed.storage)
    sys.stdout.write(f"{path}\n")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m questlib.sweeps", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    run = commands.add_parser("run", help="run a sweep, or go on with it")
    run.add_argument("file", type=Path, help="sweep file, such as sweeps/learning_rates.yaml")
    run.add_argument(
        "--data", help="folder with train.csv, test.csv and sample_submission.csv; the profile's if not given"
    )
    run.add_argument("--workers", type=int, default=0, help="trials at once (as many as GPUs, else 1)")
    run.add_argument("--storage", help="SQLAlchemy URL of a database that other machines use too (a file in --out)")
    run.add_argument("--out", type=Path, help="folder of the sweep (runs/sweeps/<name>)")
    run.add_argument("--plan", action="store_true", help="print the trials and the time they should take; run nothing")
    run.add_argument("--retry-failed", action="store_true", help="try trials again that failed, such as of a full disk")
    run.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    run.set_defaults(command=_run)
    report = commands.add_parser("report", help="report on a sweep, or on any runs")
    report.add_argument("--sweep", type=Path, help="the sweep's file")
    report.add_argument("--runs", nargs="+", type=Path, default=[], help="run folders, of a loop of one's own")
    report.add_argument("--out", type=Path, help="folder of the sweep, and for the report (runs/sweeps/<name>)")
    report.add_argument(
        "--data", help="folder of tables, to pair settings by question; the sweep's profile's if not given"
    )
    report.add_argument("--storage", help="as it was given to run")
    report.set_defaults(command=_report)
    return parser


if __name__ == "__main__":
    sys.exit(main())
