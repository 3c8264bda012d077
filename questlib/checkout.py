"""Which state of its source this questlib is."""

import subprocess
from pathlib import Path

from questlib.attached import MANIFEST, WHEELS
from questlib.inputs import find_folder
from questlib.run_folder import read_json

PACKAGE = Path(__file__).parent


def find_commit(package: Path = PACKAGE) -> str | None:
    """Name the git commit that a package's folder is checked out at, "-dirty" behind it where files were changed.

    Where it is no checkout, it is the commit that the attached wheels were built from; None where there are none.
    """
    try:
        # A package that was installed into a folder of some other project is no part of that.
        for command in (["ls-files", "--error-unmatch", "__init__.py"], ["describe", *_ALWAYS_WHOLE]):
            done = subprocess.run(["git", "-C", package, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        folder = find_folder(WHEELS, marker=MANIFEST)
    return None if folder is None else read_json(folder / MANIFEST).get("commit")


_ALWAYS_WHOLE = ("--always", "--dirty", "--abbrev=40", "--exclude=*")
