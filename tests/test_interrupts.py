"""Real processes, ended in every way: short forms of what `make stress` does for half an hour."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import stress

from questlib.run import _forwarded_signals


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_run_that_is_killed_leaves_a_valid_submission_and_ends_as_if_nothing_had_happened(folder, encoder_folder):
    changes = {"stages.full.epochs": "2", "stages.head.epochs": "1", "folds_to_train": "1", "evaluate_every": "0"}
    results = list(stress.stress_kills(folder, encoder_folder, n_kills=1, seed=3, **changes))
    assert [result["fault"] for result in results] == [""]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143)])
def test_signal_ends_a_run_in_seconds_with_the_command_that_goes_on(folder, encoder_folder, number, status):
    out = folder / "run"
    process = subprocess.Popen(
        stress.command(out, encoder_folder, **{"stages.full.epochs": "500"}), cwd=stress.PROJECT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list((out / "checkpoints").rglob("state.safetensors")) and process.poll() is None:
        time.sleep(0.1)  # before the first step there is nothing to keep
    begun, signalled = time.monotonic(), time.time()
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status, told
    assert time.monotonic() - begun < 15
    line = told.splitlines()[-1]
    assert line.startswith(sys.executable)
    assert f"--out {out}" in line
    assert "-p stages.full.epochs 500" in line
    assert max(each.stat().st_mtime for each in (out / "checkpoints").rglob("state.safetensors")) > signalled
    assert (out / "report.html").exists()


def test_signal_is_heard_by_a_kernel_that_begins_after_it():
    with _forwarded_signals() as received, subprocess.Popen(["sleep", "0.1"]) as other:
        os.kill(os.getpid(), signal.SIGINT)  # at this moment another process is the only child
        other.wait()
        with subprocess.Popen(["sleep", "60"]) as kernel:
            assert kernel.wait(timeout=5) == -signal.SIGINT
    assert received == [signal.SIGINT]


def test_interrupt_while_the_kernel_starts_ends_the_run_with_its_status(folder, encoder_folder):
    process = subprocess.Popen(
        stress.command(folder / "run", encoder_folder), cwd=stress.PROJECT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while not psutil.Process(process.pid).children():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert f"--out {folder / 'run'}" in told.splitlines()[-1]


def test_child_is_gone_when_its_parent_is_killed():
    code = "import os, subprocess, sys, time; from questlib.processes import die_with_parent; "
    code += (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], preexec_fn=die_with_parent); "
    )
    code += "print(child.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    child.wait(timeout=2)
