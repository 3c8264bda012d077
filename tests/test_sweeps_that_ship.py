"""The sweeps that ship: all are whole, and the small ones run on the sample."""

from pathlib import Path

import pytest
import yaml
from conftest import train_tables
from sweeping import run_command

from questlib.run_folder import read_json
from questlib.schema import TARGETS
from questlib.sweeps.definition import look_up, read_sweep

PROJECT = Path(__file__).parents[1]
SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))
SMALL = [path for path in SWEEPS if path.stem.endswith("_small")]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(PROJECT)


def test_every_sweep_has_a_small_version_of_itself():
    names = {path.stem for path in SWEEPS}
    assert {name for name in names if not name.endswith("_small")} == {path.stem[: -len("_small")] for path in SMALL}
    for path in SMALL:
        large = read_sweep(path.with_stem(path.stem[: -len("_small")]))
        assert [each.name for each in read_sweep(path).space] == [each.name for each in large.space]


def write_tiny(path: Path, encoder_folder: Path, folder: Path) -> Path:
    """Write a small sweep that has one trial, of a toy encoder."""
    content = yaml.safe_load(path.read_text())
    tiny = {"encoder": str(encoder_folder), "max_length": 64, "evaluate_every": 0, "patience": 0}
    given = {name: value for name, value in tiny.items() if name not in content["space"]}
    if "max_length" in content["space"]:
        content["space"]["max_length"] = {"low": 32, "high": 64, "step": 32}  # a toy reads no more
    first = {"trials": 1} | ({"seeds": content["seeds"][:1]} if "seeds" in content else {})
    content |= {"parameters": content.get("parameters", {}) | given} | first
    file = folder / path.name
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_first_trial_of_a_small_sweep_is_trained_on_the_sample(path, encoder_folder, tmp_path):
    sweep = read_sweep(write_tiny(path, encoder_folder, tmp_path))
    recipe = sweep.recipe(next(sweep.single_changes()), seed=next(iter(sweep.seeds), None))
    trained = train_tables(Path("notebooks/sample"), tmp_path, recipe)
    assert trained.submission[list(TARGETS)].notna().all(axis=None)
    assert look_up(read_json(trained.run_folder / "scores.json"), sweep.objective) > 0


def test_small_sweep_runs_by_its_command(encoder_folder, tmp_path):
    file = write_tiny(PROJECT / "sweeps" / "seeds_small.yaml", encoder_folder, tmp_path)
    process = run_command("run", file, "--data", "notebooks/sample", "--out", tmp_path / "sweep")
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, out + told
    assert "1 trials finished, 0 failed" in out
    [scores] = (tmp_path / "sweep").glob("trials/*/scores.json")
    assert scores.is_file()


def test_trials_that_the_encoder_cannot_read_are_refused_before_the_first_one(encoder_folder, tmp_path):
    content = {"profile": "sample", "parameters": {"encoder": str(encoder_folder)}, "space": {"max_length": [64, 128]}}
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump(content))
    process = run_command("run", file, "--data", "notebooks/sample", "--out", tmp_path / "sweep")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "must not exceed what the encoder" in told
    assert not (tmp_path / "sweep").exists()
