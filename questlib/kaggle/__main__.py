"""The command line to Kaggle: wheels, bundle, rehearse, push, status, output, submit."""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from questlib.inputs import expand_homes
from questlib.kaggle import output, push, submit
from questlib.kaggle.kernels import KERNEL_METADATA, KERNELS, hash_contents, refuse_no_user, refuse_unrehearsed
from questlib.profiles import read_value
from questlib.run_folder import read_json

if TYPE_CHECKING:  # what imports torch is imported where it is needed: the others answer at once
    from questlib.kaggle.bundle import Order

logger = logging.getLogger("questlib.kaggle")

_PROJECT, _BUILD = Path(), Path("build")
_BUNDLE = _BUILD / "kaggle"


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: As on the command line; the process's own where None.

    Returns:
        0, or 1 after an error or a failed check, which is told.
    """
    parsed = _build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        expand_homes(parsed)
        if "owner" in parsed:
            refuse_no_user(parsed.owner)
        return parsed.command(parsed)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        sys.stderr.write(f"questlib.kaggle {parsed.name}: {error}\n")
        return 1


def _wheels(parsed: argparse.Namespace) -> int:
    from questlib.kaggle.wheels import make_wheels

    folder = make_wheels(_PROJECT)
    sys.stdout.write(f"{folder}: {', '.join(sorted(path.name for path in folder.glob('*.whl')))}\n")
    return 0


def _bundle(parsed: argparse.Namespace) -> int:
    from questlib.kaggle.findings import has_failed, summarize, tabulate
    from questlib.kaggle.rehearse import check_statically

    order = _write_bundle(parsed)
    summary = summarize(list(check_statically(order, _BUNDLE)))
    sys.stdout.write(tabulate(summary, not_run="`make rehearse` runs") + "\n")
    return int(has_failed(summary))


def _write_bundle(parsed: argparse.Namespace) -> "Order":
    from questlib.encoder_parts import choose_missing, install_encoder
    from questlib.kaggle.bundle import Order, refuse_unready, write_bundle
    from questlib.kaggle.wheels import make_wheels

    overrides = {name: read_value(value) for name, value in parsed.parameter}
    order = Order(
        project=_PROJECT.resolve(),
        kernel=parsed.kernel,
        owner=parsed.owner,
        profile=parsed.profile,
        overrides={"encoder": parsed.encoder} | overrides if parsed.encoder else overrides,
        run=parsed.run,
    )
    refuse_unready(order)
    for name in choose_missing(order.name_encoders()):
        install_encoder(name)
    make_wheels(_PROJECT)
    write_bundle(order, _BUNDLE)
    sys.stdout.write(f"{_BUNDLE / parsed.kernel} and its datasets are written for {parsed.owner}\n")
    return order


def _rehearse(parsed: argparse.Namespace) -> int:
    from questlib.data import read_tables
    from questlib.kaggle.findings import has_failed, tabulate
    from questlib.kaggle.rehearse import Rehearsal, rehearse
    from questlib.kaggle.twin import find_python, list_images

    read_tables(parsed.data)  # refused before minutes pass
    order = _write_bundle(parsed)
    images = list(list_images())
    present = [image for image in images if find_python(image)] or images[:1]
    findings = rehearse(
        Rehearsal(
            order=order,
            bundle=_BUNDLE.resolve(),
            data=parsed.data,
            images=present if parsed.all else present[:1],
            folder=(_BUILD / "rehearsal" / parsed.kernel).resolve(),
        )
    )
    sys.stdout.write(tabulate(findings, not_run="because of what failed") + "\n")
    return int(has_failed(findings))


def _push(parsed: argparse.Namespace) -> int:
    name = _kernel_id(parsed)
    refuse_unrehearsed(_BUNDLE, kernel=parsed.kernel)
    same = None if parsed.again else push.find_same(_BUNDLE, kernel=parsed.kernel)
    if same:
        sys.stdout.write(
            f"{name} is there already, unchanged, as version {same.version} ({output.fetch_status(name)}): {same.url}\n"
            "nothing was pushed, because every push spends quota; ARGS=--again pushes all the same\n"
        )
        return 0
    pushed = push.push(_BUNDLE, kernel=parsed.kernel, patience=parsed.patience)
    push.remember(pushed, _BUNDLE, kernel=parsed.kernel)  # it runs, also where it cannot be read back
    push.read_back(_BUNDLE, kernel=parsed.kernel)
    sys.stdout.write(f"{name} version {pushed.version} runs: {pushed.url}\n")
    return 0


def _status(parsed: argparse.Namespace) -> int:
    name = _kernel_id(parsed)
    sys.stdout.write(f"{name}: {output.fetch_status(name)}\n")
    return 0


def _output(parsed: argparse.Namespace) -> int:
    folder = _BUILD / "output" / parsed.kernel
    state, names = output.fetch_output(_kernel_id(parsed), folder)
    sys.stdout.write(f"{folder}: {', '.join(names)}\n")
    if state != "COMPLETE":
        sys.stdout.write(f"the run did not end well ({state}): these are what it had left by then\n")
    return 0


def _submit(parsed: argparse.Namespace) -> int:
    pushed = push.recall(_BUNDLE, kernel=parsed.kernel)
    if pushed is None or not pushed.id.startswith(f"{parsed.owner}/"):
        known = f"only {pushed.id} was" if pushed else "none was from here"
        raise ValueError(f"the kernel {parsed.kernel} of {parsed.owner} must be pushed, however {known}; push it")
    if (_BUNDLE / parsed.kernel).is_dir() and hash_contents(_BUNDLE, kernel=parsed.kernel) != pushed.contents:
        logger.warning("%s was changed since version %d was pushed", _BUNDLE / parsed.kernel, pushed.version)
    try:
        submission = submit.submit(pushed, message=parsed.message, again=parsed.again)
        scored = submit.await_score(submission, patience=parsed.patience)
    except KeyboardInterrupt:
        sys.stderr.write(
            "what was submitted goes on at the site; without --again this command waits on, and submits nothing anew\n"
        )
        return 130
    sys.stdout.write(
        f"{pushed.id} version {pushed.version}: public score {scored.public_score or 'not told'}, "
        f"private score {scored.private_score or 'not told'}\n"
    )
    return 0


def _kernel_id(parsed: argparse.Namespace) -> str:
    path = _BUNDLE / parsed.kernel / KERNEL_METADATA
    name = read_json(path)["id"] if path.is_file() else ""
    if not name.startswith(f"{parsed.owner}/"):
        raise ValueError(
            f"{path} must be written for {parsed.owner}, however: {name or 'it is not there'}; rehearse it"
        )
    return name


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m questlib.kaggle", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)

    wheels = commands.add_parser("wheels", help="build and fetch what Kaggle's images lack, into wheels/")
    wheels.set_defaults(command=_wheels)

    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--owner", required=True, help="the Kaggle user")
    named.add_argument("--kernel", choices=list(KERNELS), default="train", help="train, or predict with a run (train)")

    built = argparse.ArgumentParser(add_help=False, parents=[named])
    built.add_argument("--encoder", help="a folder, all-MiniLM-L6-v2 or a hub name, for the parameter encoder")
    built.add_argument("--run", type=Path, help="a finished run's folder, for the kernel predict")
    built.add_argument("--profile", help="what overrides the notebook's defaults (kaggle, or kaggle-predict)")
    built.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="override one parameter, as `python -m questlib run` does; may be repeated",
    )  # fmt: skip

    bundle = commands.add_parser("bundle", parents=[built], help="write what is to be uploaded, into build/kaggle/")
    bundle.set_defaults(command=_bundle)

    rehearsal = commands.add_parser("rehearse", parents=[built], help="write the bundle and run it as Kaggle would")
    rehearsal.add_argument("--data", type=Path, default=Path("notebooks/sample"), help="folder of the tables")
    rehearsal.add_argument("--all", action="store_true", help="every image whose Python is here")
    rehearsal.set_defaults(command=_rehearse)

    pushing = commands.add_parser("push", parents=[named], help="upload what was rehearsed, and run it")
    pushing.add_argument("--patience", type=float, default=1800.0, help="seconds until a dataset must be ready (1800)")
    pushing.add_argument("--again", action="store_true", help="push what is there already, unchanged, too")
    pushing.set_defaults(command=_push)

    submission = commands.add_parser("submit", parents=[named], help="submit what was pushed, and wait for its scores")
    submission.add_argument("-m", "--message", default="questlib", help="what the site shows beside it (questlib)")
    submission.add_argument("--patience", type=float, default=36000.0, help="seconds until it must be scored (36000)")
    submission.add_argument("--again", action="store_true", help="submit what was submitted before, too")
    submission.set_defaults(command=_submit)

    for name, command, told in (
        ("status", _status, "tell how the latest run stands"),
        ("output", _output, "fetch the latest run's log and files, into build/output/"),
    ):
        commands.add_parser(name, parents=[named], help=told).set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
