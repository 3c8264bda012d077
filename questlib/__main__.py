"""The command line: explore, run, report on a run, compare runs, predict with one, score, check a submission."""

import argparse
import io
import json
import logging
import os
import shlex
import signal
import sys
from pathlib import Path

from safetensors import SafetensorError

from questlib.cache import CACHE
from questlib.clock import SESSION_START
from questlib.csv_table import refuse_unknown_format, write_csv
from questlib.data import question_of, read_table
from questlib.inputs import expand_homes
from questlib.metrics import score_predictions
from questlib.predictions import write_predictions
from questlib.run_folder import refuse_unwritable
from questlib.schema import ID, INPUT_COLUMNS, QUESTION, RARE_TARGET, TARGETS
from questlib.submission import check_against_sample


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0, or 1 after an error, which is told in one message on standard error; 130 where interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    unreadable = [each for each in given if not _is_utf8(each)]
    if unreadable:
        sys.stderr.write(f"questlib: names must be UTF-8, however: {unreadable[0]!r}; rename it\n")
        return 1
    parsed = _build_parser().parse_args(given)
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may be closed
        # As standard error does: a name may hold letters that a terminal does not write.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.WARNING)  # it would repeat every path twice
    try:
        expand_homes(parsed)
        return parsed.command(parsed) or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"questlib {parsed.name}: interrupted\n")
        return 128 + signal.SIGINT
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        sys.stderr.write(f"questlib {parsed.name}: {error}\n")
        return 1


def _is_utf8(text: str) -> bool:
    # Bytes of a name that are none come as halves of characters.
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _run(parsed: argparse.Namespace) -> int:
    try:
        import psutil

        from questlib.profiles import read_value
        from questlib.run import Interrupted, run_notebook
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"the packages that execute notebooks must be installed, however {error.name} is not; "
            "pip install 'questlib[workbench]'"
        ) from error
    os.environ[SESSION_START] = str(psutil.Process().create_time())
    overrides = {name: read_value(value) for name, value in parsed.parameter}
    try:
        run_notebook(parsed.notebook, profile=parsed.profile, data=parsed.data, out=parsed.out, overrides=overrides)
    except Interrupted as interrupted:
        options = {"--data": parsed.data, "--profile": parsed.profile, "--out": interrupted.run_folder}
        options |= {"--notebook": parsed.notebook}
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        given += [part for name, value in parsed.parameter for part in ("-p", name, value)]
        command = shlex.join([sys.executable, "-m", "questlib", "run", *given])
        sys.stderr.write(f"questlib run: {interrupted}; go on with:\n{command}\n")
        return 128 + interrupted.number
    return 0


def _explore(parsed: argparse.Namespace) -> None:
    from questlib.run import explore_tables

    print(explore_tables(parsed.notebook, data=parsed.data, out=parsed.out))


def _refuse_overwriting(out: Path, *inputs: Path) -> None:
    # Before a table of an hour's work, or a fold, is lost to its own predictions.
    place = out.resolve()
    for each in inputs:
        if place == each.resolve() or each.resolve() in place.parents or (out.exists() and out.samefile(each)):
            raise ValueError(f"{out} must not be what is read, however {each} is; name another file to write")


def _predict(parsed: argparse.Namespace) -> None:
    _refuse_overwriting(parsed.out, parsed.table, parsed.run_folder)
    refuse_unknown_format(parsed.out)
    refuse_unwritable(parsed.out)
    table = read_table(parsed.table, columns=INPUT_COLUMNS)  # before torch is imported: a bad table is refused at once
    from questlib.inference import predict_table

    try:
        predictions = predict_table(
            parsed.run_folder, table, cache_folder=parsed.cache, changed_on_purpose=parsed.changed_on_purpose
        )
    except (LookupError, SafetensorError) as error:  # no file was compared with what its run wrote
        raise ValueError(
            f"{parsed.run_folder} must hold what can be predicted with, however it was changed: "
            f"{type(error).__name__}: {error}; copy it anew"
        ) from error
    write_predictions(parsed.out, predictions, ids=table[ID].to_numpy())


def _score(parsed: argparse.Namespace) -> None:
    extra = (QUESTION,) if parsed.one_row_per_question else ()
    predicted = read_table(parsed.predictions, columns=(ID, *TARGETS)).set_index(ID)
    truth = read_table(parsed.truth, columns=(ID, *TARGETS, *extra)).set_index(ID)
    unknown = predicted.index.difference(truth.index)
    if len(unknown):
        raise ValueError(
            f"{parsed.predictions} must hold only ids of {parsed.truth}, however {len(unknown)} are not there, "
            f"such as {unknown[:3].tolist()}"
        )
    n_truth, truth = len(truth), truth.loc[predicted.index]
    scores = score_predictions(
        predicted[list(TARGETS)].to_numpy(dtype=float),
        truth[list(TARGETS)].to_numpy(dtype=float),
        questions=question_of(truth) if parsed.one_row_per_question else None,
        draws=parsed.draws,
        seed=parsed.seed,
    )
    if parsed.json:
        print(json.dumps(scores | {"n_predicted": len(truth), "n_truth": n_truth}, indent=1))
        return
    for name, value in scores["by_target"].items():
        print(f"{name:40} {'undefined' if value is None else format(value, '9.4f')}")
    print(f"{'mean of 30':40} {scores['mean']:9.4f}")
    print(f"{'mean without ' + RARE_TARGET:40} {scores['mean_without_rare']:9.4f}")
    protocol = f"one row per question, {scores['n_draws']} draws" if parsed.one_row_per_question else "all rows at once"
    print(f"{len(truth)} of {n_truth} rows predicted, {scores['n_rows']} scored: {protocol}")


def _report(parsed: argparse.Namespace) -> None:
    from questlib.page import write_page

    print(write_page(parsed.run_folder))


def _compare(parsed: argparse.Namespace) -> None:
    from questlib.comparison import MEAN, MEAN_WITHOUT_RARE, compare_runs

    if parsed.csv:
        _refuse_overwriting(parsed.csv, *(run for run in parsed.runs if run.is_dir()))  # runs/* may hold it from before
        refuse_unknown_format(parsed.csv)
        refuse_unwritable(parsed.csv)
    table, lines = compare_runs(parsed.runs)
    if parsed.csv:
        write_csv(parsed.csv, table)
    formats = {MEAN: "{:.4f}".format, MEAN_WITHOUT_RARE: "{:.4f}".format, "minutes": "{:.1f}".format}
    print(table.to_string(index=False, float_format="{:g}".format, formatters=formats))
    print("\n".join(["", *lines]))


def _check(parsed: argparse.Namespace) -> None:
    sample = read_table(parsed.sample, columns=(ID, *TARGETS))
    submission = read_table(parsed.submission, columns=(ID,))
    try:
        check_against_sample(submission, sample)
    except ValueError as error:
        raise ValueError(f"{parsed.submission}: {error}") from error
    print(f"{parsed.submission} is valid: {len(submission)} rows, {len(TARGETS)} targets in [0, 1], none constant")


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m questlib", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)

    run = commands.add_parser("run", help="execute the notebook and write a run folder")
    run.add_argument("--data", help="folder with train.csv, test.csv and sample_submission.csv")
    run.add_argument("--profile", default="sample", help="name of a YAML file in profiles/ beside the notebook")
    run.add_argument("--out", type=Path, help="run folder; that of an interrupted run goes on (runs/<time>-<profile>)")
    run.add_argument("--notebook", type=Path, default=Path("notebooks/quest.ipynb"), help="notebook to execute")
    run.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="override one parameter by name or dotted name, with a value as a profile has it; may be repeated",
    )  # fmt: skip
    run.set_defaults(command=_run)

    explore = commands.add_parser("explore", help="make a page of what tables hold, and print where it is")
    explore.add_argument("--data", required=True, help="folder with train.csv, test.csv and sample_submission.csv")
    explore.add_argument("--out", type=Path, help="folder to write to (runs/<time>-explore)")
    explore.add_argument("--notebook", type=Path, default=Path("notebooks/explore.ipynb"), help="notebook to execute")
    explore.set_defaults(command=_explore)

    predict = commands.add_parser("predict", help="predict a table with a run folder")
    predict.add_argument("run_folder", type=Path, help="what a run left behind")
    predict.add_argument("table", type=Path, help="CSV with the input columns, such as test.csv")
    predict.add_argument("out", type=Path, help="CSV to write")
    # A text: what is no Path keeps its ~ until the cache is looked for, and a user without a home has another one.
    predict.add_argument("--cache", default=str(CACHE), help="folder of what is computed once, such as tokens")
    predict.add_argument(
        "--changed-on-purpose", action="store_true", help="take files of the run folder that are not what its run wrote"
    )
    predict.set_defaults(command=_predict)

    score = commands.add_parser("score", help="score predictions against ratings")
    score.add_argument("predictions", type=Path, help="CSV with qa_id and 30 targets")
    score.add_argument("truth", type=Path, help="CSV with qa_id and 30 targets, and url for --one-row-per-question")
    score.add_argument(
        "--one-row-per-question", action="store_true", help="score one random row of each question, averaged over draws"
    )
    score.add_argument("--draws", type=int, default=20, help="number of draws")
    score.add_argument("--seed", type=int, default=0, help="seed of the draws")
    score.add_argument("--json", action="store_true", help="print JSON")
    score.set_defaults(command=_score)

    report = commands.add_parser("report", help="make a run's report.html anew from its folder")
    report.add_argument("run_folder", type=Path, help="what a run left behind, finished or not")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="print finished runs as one table, the best first")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder")
    compare.add_argument("--csv", type=Path, help="CSV to write the table to")
    compare.set_defaults(command=_compare)

    check = commands.add_parser("check", help="check a submission against the sample")
    check.add_argument("submission", type=Path, help="CSV to check")
    check.add_argument("sample", type=Path, help="sample_submission.csv")
    check.set_defaults(command=_check)
    return parser


if __name__ == "__main__":
    sys.exit(main())
