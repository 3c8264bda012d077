"""Whatever stands around a prediction, it is the same to the last byte, or the command says in one line why not."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from questlib.schema import INPUT_COLUMNS

# Each takes a process of its own; `make stress` asks for more.
N_EXAMPLES = int(os.environ.get("QUEST_EXAMPLES", "3"))
# Values as shells, schedulers and containers leave them; None takes a variable away.
VARIABLES = {
    "HOME": (None, "", "/", "/nonexistent", "/dev/null", "relative"),
    "LC_ALL": (None, "C", "POSIX", "C.UTF-8", "xx_YY.ISO-8859-1"),
    "LANG": (None, "C", "de_DE"),
    "TMPDIR": (None, "/nonexistent", "/dev/null"),
    "TZ": ("Mars/Olympus", ""),
    "TERM": (None, "dumb"),
    "COLUMNS": ("1", "x"),
    "PYTHONHASHSEED": ("0", "random"),
    "PYTHONIOENCODING": ("ascii", "latin-1"),
    "PYTHONOPTIMIZE": ("2",),
    "OMP_NUM_THREADS": (None, "1", "3", "many"),
    "CUDA_VISIBLE_DEVICES": ("", "7"),
    "XDG_CACHE_HOME": ("/nonexistent", "relative"),
    "HF_HOME": ("/nonexistent", "/dev/null"),
    "HF_HUB_OFFLINE": (None, "0", "yes"),
    "JUPYTER_PATH": ("/nonexistent",),
    "MPLBACKEND": ("TkAgg",),
}
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


@dataclass(frozen=True)
class Surroundings:
    """Variables, the working folder, the output's name, and which of the standard streams is closed."""

    variables: dict[str, str | None] = field(default_factory=dict)
    working: str = "/"
    out: str = "out.csv"
    closed: str = ""


surroundings = st.builds(
    Surroundings,
    variables=st.lists(st.sampled_from([(name, value) for name, values in VARIABLES.items() for value in values])).map(
        dict
    ),
    working=st.sampled_from(["/", "/tmp", "/proc", str(Path(__file__).parent)]),
    out=NAMES.map(lambda name: f"o{name}.csv"),
    closed=st.sampled_from(["", "", "<&-", ">&-", "<&- >&-"]),
)


@pytest.fixture(scope="module")
def predicted(trained, tmp_path_factory):
    """A run with a transformer, a table, a folder to write to, and the bytes that must come of it."""
    folder = tmp_path_factory.mktemp("surroundings")
    trained.tables.test[list(INPUT_COLUMNS)].to_csv(folder / "table.csv", index=False)
    done = predict(trained.run_folder, folder, Surroundings())
    assert done.returncode == 0, done.stderr
    return trained.run_folder, folder, (folder / "out.csv").read_bytes()


def predict(run_folder: Path, folder: Path, around: Surroundings) -> subprocess.CompletedProcess:
    project = str(Path(__file__).parents[1])
    given_ = os.environ | {"PYTHONPATH": project} | around.variables
    command = [sys.executable, "-m", "questlib", "predict", run_folder, folder / "table.csv", folder / around.out]
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {around.closed}', "sh", *map(str, command), "--cache", str(folder / "cache")],
        env={name: value for name, value in given_.items() if value is not None},
        cwd=around.working, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip


@settings(max_examples=N_EXAMPLES)
@given(around=surroundings)
def test_prediction_is_the_same_whatever_stands_around_it(predicted, around):
    run_folder, folder, expected = predicted
    out = folder / around.out
    done = predict(run_folder, folder, around)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert out.read_bytes() == expected
        out.unlink()
    else:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("questlib predict: ")
        assert not out.exists()
