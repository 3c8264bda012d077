"""What a person may name to make, and what becomes of it."""

import re

import pytest
from making import PROJECT, plan

TEXT = (PROJECT / "Makefile").read_text(encoding="utf-8")
# Of each target that is listed, what its line names, and what its recipe uses.
LISTED = re.findall(r"^([a-z-]+):.*?## (.*)\n((?:\t.*\n)*)", TEXT, re.MULTILINE)
BEHIND = {"NAMED": "OWNER KERNEL", "BUILT": "ENCODER RUN PROFILE ARGS", "SWEPT": "STORAGE OUT"}
BEHIND |= {"TABLES": "DATA", "NAMED_DATA": "DATA", "SWEPT_TABLES": "DATA"}
OWN = {"VENV", "KAGGLE", "PYTHON", "IMAGE", "HELD", "CUDA", "MAKEFILE_LIST"}


@pytest.mark.parametrize("given", ["data=folder", "PROFILES=cpu", "EPOCHS=1", "UT=x"])
def test_a_misspelt_name_is_refused_and_not_taken_for_its_default(given: str) -> None:
    done = plan("run", given)
    assert done.returncode == 2
    assert re.search(rf"unknown variable: {given.split('=')[0]}; known: ARGS DATA .*WORKERS", done.stderr)
    assert "questlib" not in done.stdout


def test_what_a_command_does_nothing_with_is_told_and_what_the_environment_wants_passes() -> None:
    done = plan("sweep", "PROFILE=cpu", "HF_HUB_OFFLINE=1", "SWEEP=sweeps/learning_rates.yaml")
    assert done.returncode == 0
    assert "make sweep does nothing with PROFILE; `make help` lists what" in done.stderr
    for named in (("run", "push", "OWNER=alice", "DATA=folder"), ("test", "QUEST_DATA=folder", "PYTHON=python3")):
        assert not plan(*named).stderr


def test_each_command_lists_all_that_it_takes() -> None:
    assert len(LISTED) >= 30
    for target, told, recipe in LISTED:
        used = re.findall(r"\$\(([A-Z_]+)\)", recipe)
        taken = {each for name in used for each in BEHIND.get(name, name).split()} - OWN
        assert taken == set(re.findall(r"\b([A-Z]+)=", told)), target


def test_a_name_may_hold_an_apostrophe() -> None:
    done = plan("run", "DATA=it's here", "OUT=that's all")
    assert r"--data 'it'\''s here'" in done.stdout
    assert r"--out 'that'\''s all'" in done.stdout


def test_a_run_begins_with_the_encoder_that_is_named() -> None:
    assert "-p encoder 'some/folder'" in plan("run", "ENCODER=some/folder").stdout
    assert "encoder" not in plan("run").stdout.replace("encoder_parts", "")
