"""The command line to Kaggle: wheels, bundle, rehearse, push, status, output."""

import argparse
import logging
import sys
from pathlib import Path

from questlib.kaggle import client
from questlib.kaggle.bundle import KERNEL_METADATA, KERNELS, Order, write_bundle
from questlib.kaggle.findings import FAILED, tabulate
from questlib.kaggle.mounts import LAYOUTS
from questlib.kaggle.rehearse import Rehearsal, refuse_unrehearsed, rehearse
from questlib.kaggle.twin import find_python, list_images
from questlib.kaggle.wheels import make_wheels
from questlib.profiles import read_value
from questlib.run_folder import read_json

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
        return parsed.command(parsed)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        sys.stderr.write(f"questlib.kaggle {parsed.name}: {error}\n")
        return 1


def _wheels(parsed: argparse.Namespace) -> int:
    folder = make_wheels(_PROJECT)
    sys.stdout.write(f"{folder}: {', '.join(sorted(path.name for path in folder.glob('*.whl')))}\n")
    return 0


def _bundle(parsed: argparse.Namespace) -> int:
    make_wheels(_PROJECT)
    write_bundle(_order(parsed), _BUNDLE)
    sys.stdout.write(f"{_BUNDLE / parsed.kernel} and its datasets are written for {parsed.owner}\n")
    return 0


def _order(parsed: argparse.Namespace) -> Order:
    overrides = {name: read_value(value) for name, value in parsed.parameter}
    return Order(
        project=_PROJECT.resolve(),
        kernel=parsed.kernel,
        owner=parsed.owner,
        profile=parsed.profile,
        overrides={"encoder": parsed.encoder} | overrides if parsed.encoder else overrides,
        run=parsed.run,
    )


def _rehearse(parsed: argparse.Namespace) -> int:
    _bundle(parsed)
    images = list(list_images())
    present = [image for image in images if find_python(image)] or images[:1]
    findings = rehearse(
        Rehearsal(
            order=_order(parsed),
            bundle=_BUNDLE.resolve(),
            data=parsed.data,
            images=present if parsed.all else present[:1],
            layouts=LAYOUTS if parsed.all else LAYOUTS[-1:],
            folder=(_BUILD / "rehearsal" / parsed.kernel).resolve(),
        )
    )
    sys.stdout.write(tabulate(findings) + "\n")
    return int(any(finding.state == FAILED for finding in findings))


def _push(parsed: argparse.Namespace) -> int:
    name = _kernel_id(parsed)
    refuse_unrehearsed(_BUNDLE, kernel=parsed.kernel)
    sys.stdout.write(f"{name} runs: {client.push(_BUNDLE, kernel=parsed.kernel, patience=parsed.patience)}\n")
    return 0


def _status(parsed: argparse.Namespace) -> int:
    name = _kernel_id(parsed)
    sys.stdout.write(f"{name}: {client.fetch_status(name)}\n")
    return 0


def _output(parsed: argparse.Namespace) -> int:
    folder = _BUILD / "output" / parsed.kernel
    names = client.fetch_output(_kernel_id(parsed), folder)
    sys.stdout.write(f"{folder}: {', '.join(names)}\n")
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
    built.add_argument("--profile", default="kaggle", help="what overrides the notebook's defaults (kaggle)")
    built.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="override one parameter, as `python -m questlib run` does; may be repeated",
    )  # fmt: skip

    bundle = commands.add_parser("bundle", parents=[built], help="write what is to be uploaded, into build/kaggle/")
    bundle.set_defaults(command=_bundle)

    rehearsal = commands.add_parser("rehearse", parents=[built], help="write the bundle and run it as Kaggle would")
    rehearsal.add_argument("--data", type=Path, default=Path("notebooks/sample"), help="folder of the tables")
    rehearsal.add_argument("--all", action="store_true", help="every image whose Python is here, both mount layouts")
    rehearsal.set_defaults(command=_rehearse)

    push = commands.add_parser("push", parents=[named], help="upload what was rehearsed, and run it")
    push.add_argument("--patience", type=float, default=1800.0, help="seconds until a dataset must be ready (1800)")
    push.set_defaults(command=_push)

    for name, command, told in (
        ("status", _status, "tell how the latest run stands"),
        ("output", _output, "fetch the latest run's log and files, into build/output/"),
    ):
        commands.add_parser(name, parents=[named], help=told).set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
