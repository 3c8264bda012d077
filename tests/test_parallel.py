import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from questlib import parallel
from questlib.parallel import Workers
from questlib.predictions import read_member

CPU = torch.device("cpu")


@pytest.fixture
def half_the_threads():
    """What each of two processes has: how many cores share a batch decides what dropout draws."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads // 2))
    yield
    torch.set_num_threads(n_threads)


def test_members_and_folds_side_by_side_predict_what_they_predict_one_by_one(train_toy, toy_recipe, caplog, request):
    caplog.set_level(logging.INFO, "questlib")
    first, second = toy_recipe.members
    other = replace(first, name="other", folds_to_train=1)
    recipe = replace(toy_recipe, members=(first, other, second))

    def read(trained):
        return [
            read_member(trained.run_folder, each.name, folds=range(each.folds_to_train), tables=trained.tables)
            for each in recipe.members
        ]

    together, lines = read(train_toy(recipe, devices=[CPU, CPU])), list(caplog.messages)
    request.getfixturevalue("half_the_threads")
    alone = read(train_toy(recipe, devices=[CPU]))
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.out_of_fold, other.out_of_fold, atol=1e-5)
        np.testing.assert_allclose(one.test, other.test, atol=1e-5)
    for name in ("toy, fold 0", "toy, fold 1", "other, fold 0"):
        assert any(line.startswith(f"{name}: stage 1 of 1, full: ") for line in lines)


def test_an_error_in_a_process_is_raised_here():
    with Workers([CPU, CPU]) as workers:
        workers.start("bad", math.sqrt, -1.0)
        with pytest.raises(ValueError, match="math domain error|nonnegative"):
            workers.wait()


def test_one_gpu_that_is_not_the_first_has_a_process_of_its_own():
    # Here there is none, so that process finds that its device is gone.
    with Workers([torch.device("cuda", 1)]) as workers:
        workers.start("call", os.getpid)
        name, result = workers.wait()
    assert (name, type(result)) == ("call", parallel.DeviceLost)
    for first in (CPU, torch.device("cuda", 0)):
        with Workers([first]) as workers:
            workers.start("call", os.getpid)
            assert workers.wait() == ("call", os.getpid())


@pytest.mark.parametrize(
    ("visible", "device", "expected"), [(None, "cuda:1", "1"), ("3,5", "cuda:1", "5"), ("3,5", "cpu", "")]
)
def test_a_process_sees_its_device_alone(visible, device, expected, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert parallel._visible_name(torch.device(device)) == expected


# One row or three are left for the last batch of four, which comes at any place.
@pytest.mark.parametrize(("loss", "n_rows"), [("binary_cross_entropy", 13), ("soft_spearman", 15)])
def test_one_fold_over_two_launched_processes_has_the_losses_of_one_process(loss, n_rows, encoder_folder, tmp_path):
    script = [str(Path(__file__).with_name("launched.py")), str(encoder_folder), loss, str(n_rows)]
    launch = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ]  # fmt: skip
    results = {}
    for name, command in (("one", []), ("two", launch)):
        out = tmp_path / name
        out.mkdir()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [sys.executable, *command, *script, str(out)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[name] = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    (one,), (first, second) = results["one"], results["two"]
    assert (one["joined"], first["joined"], second["n_processes"]) == (False, True, 2)
    assert first["steps"] == one["steps"]
    np.testing.assert_allclose(first["losses"], one["losses"], atol=2e-4)
    np.testing.assert_allclose(first["predictions"], one["predictions"], atol=2e-3)
    np.testing.assert_allclose(second["predictions"], first["predictions"], atol=1e-6)
    assert one["losses"][-1] < one["losses"][0]
