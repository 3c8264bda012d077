"""What `make bench` and `make stress` stand on is still there: an hour's work must not find that out."""

import ast
import importlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import slowed

from questlib import marks
from questlib.training.trainer import QuestTrainer

BENCH = Path(slowed.__file__).parent


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_what_a_bench_imports_is_there(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # `make stress` has the hostile tables' folder there
    importlib.import_module(name)
    for node in ast.walk(ast.parse((BENCH / f"{name}.py").read_text(encoding="utf-8"))):  # in functions too
        if isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), {})


def test_slow_disk_takes_its_time_for_every_hash(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(marks, "hash_file", marks.hash_file)  # put back at the end
    monkeypatch.setattr(slowed.time, "sleep", waited.append)
    slowed.slow_down("disk", 0.3)
    (tmp_path / "file").write_text("x")
    marks.mark_done(tmp_path, ["file"])
    marks.check_finished(tmp_path)
    assert waited == [0.3, 0.3]
    assert json.loads((tmp_path / marks.DONE).read_text())["files"]["file"]


def test_slow_steps_and_installation_take_their_time(monkeypatch):
    waited = []
    monkeypatch.setattr(QuestTrainer, "_differentiate", lambda *_: "gradients")
    monkeypatch.setattr(slowed.time, "sleep", waited.append)
    slowed.slow_down("install", 2)
    slowed.slow_down("steps", 0.1)
    assert QuestTrainer._differentiate(None, None, {}) == "gradients"
    assert waited == [2, 0.1]
    slowed.slow_down("test", 5)
    assert waited == [2, 0.1]
