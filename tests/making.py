"""What `make` would run, asked apart from the make that may run the tests and from what its user has set."""

import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def plan(*named: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask make what it would run for targets and variables that are `named`, under environment `variables`."""
    # An outer make hands on its flags and what was said to it (MAKEFLAGS, MAKELEVEL, DATA=...), which change the plan.
    return subprocess.run(
        ["make", "--dry-run", "--assume-old=install", *named],
        cwd=PROJECT, env={"PATH": os.environ["PATH"]} | variables, capture_output=True, text=True,
    )  # fmt: skip
