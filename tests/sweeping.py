"""A cheap notebook to sweep, and workers of it in processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

SOURCE = """
import json, os, time
from pathlib import Path
folder = Path(out)
with (folder.parent / "begun.txt").open("a") as stream:
    stream.write(f"{folder.name} {os.environ.get('OMP_NUM_THREADS')}\\n")
time.sleep(seconds)
if x == fails_at:
    raise ValueError("this one fails")
if x == dies_at:
    os.kill(os.getpid(), 9)
for number in range(n_evaluations):
    path = folder / "logs" / "any-fold-0" / "evaluations.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps({"spearman": x + number / 100}) + "\\n")
    time.sleep(pause)
value = x - (y - 0.3) ** 2 + seed / 1000
score = {"mean": value, "mean_without_rare": value}
(folder / "recipe.json").write_text(json.dumps({"x": x, "y": y, "seed": seed}))
(folder / "timeline.json").write_text(json.dumps({"seconds": seconds}))
(folder / "scores.json").write_text(json.dumps({"nested": {"scores": {"tied": score}}}))
"""
PARAMETERS = """data: str = "nothing"
out: str = "/nowhere"
x: float = 0.0
y: float = 0.0
kind: str = "plain"
options: dict = {"width": 8, "decay": 0.1}
seed: int = 0
seconds: float = 0.0
fails_at: float = -1.0
dies_at: float = -1.0
n_evaluations: int = 0
pause: float = 0.0
"""
# A worker whose trials are no notebooks, so that many of them are cheap.
CHEAP = """
import json, sys, time
from pathlib import Path
from questlib.sweeps.definition import read_sweep
from questlib.sweeps.study import open_study
from questlib.sweeps.worker import Worker

class Cheap(Worker):
    def _run_notebook(self, out, overrides):
        out.mkdir(parents=True, exist_ok=True)
        with (self.folder / "begun.txt").open("a") as stream:
            stream.write(out.name + "\\n")
        time.sleep(overrides.get("seconds", 0.0))
        value = overrides["x"]
        (out / "timeline.json").write_text("{}")
        (out / "scores.json").write_text(json.dumps({"nested": {"scores": {"tied": {"mean_without_rare": value}}}}))

file, folder, storage = sys.argv[1:]
sweep, folder = read_sweep(Path(file)), Path(folder)
Cheap(sweep, open_study(sweep, folder=folder, storage=storage or None), folder=folder, data=None).work()
"""


def write_notebook(folder: Path) -> Path:
    """Write the cheap notebook, and an empty profile beside it."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "sample.yaml").write_text("")
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(SOURCE)]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / "cheap.ipynb")
    return folder / "cheap.ipynb"


def write_sweep(folder: Path, text: str, *, name: str = "cheap") -> Path:
    """Write a sweep over the cheap notebook."""
    path = folder / f"{name}.yaml"
    path.write_text(f"notebook: {write_notebook(folder)}\n{text}")
    return path


def start_cheap(file: Path, folder: Path, storage: str = "") -> subprocess.Popen:
    """Start a worker of cheap trials."""
    return subprocess.Popen([sys.executable, "-c", CHEAP, str(file), str(folder), storage], stderr=subprocess.PIPE)


def run_command(*arguments: object) -> subprocess.Popen:
    """Start the command line of sweeps."""
    return subprocess.Popen(
        [sys.executable, "-m", "questlib.sweeps", *map(str, arguments)], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def wait_until(condition, seconds: float = 60.0) -> None:  # noqa: ANN001
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition)
        time.sleep(0.1)


def read_lines(path: Path) -> list[str]:
    """Read what trials noted as they began."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def read_scores(run_folder: Path) -> dict:
    """Read what a cheap trial left."""
    return json.loads((run_folder / "scores.json").read_text())
