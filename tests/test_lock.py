import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WANTED = [
    *PROJECT["project"]["dependencies"],
    *sum(PROJECT["project"]["optional-dependencies"].values(), []),
    *PROJECT["dependency-groups"]["dev"],
]
PINS = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
PYTHONS = [name.removeprefix("Programming Language :: Python :: ") for name in PROJECT["project"]["classifiers"]]


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_has_one_version_of_each_package_that_the_project_asks_for_on_every_python(python):
    surroundings = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pinned = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(surroundings)]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned}
    assert len(versions) == len(pinned)
    for wanted in map(Requirement, WANTED):
        version = versions[canonicalize_name(wanted.name)]
        assert version in wanted.specifier, f"{wanted} is asked for, and {version} locked: make lock"


def test_lock_leaves_it_to_torch_whether_cuda_comes_along():
    assert not [pin.name for pin in PINS if pin.name.startswith(("cuda", "nvidia", "triton"))]


def test_lock_has_nothing_that_builds_a_grammar_at_every_start():
    # jsonschema imports it where it is, and it takes longer than all else that a command imports.
    assert "rfc3987-syntax" not in {canonicalize_name(pin.name) for pin in PINS}


def test_everybody_is_told_the_same_pythons():
    minors = [int(python.removeprefix("3.")) for python in PYTHONS]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == PYTHONS[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"if not (3, {minors[0]}) <= sys.version_info < (3, {minors[-1] + 1})" in makefile
    assert f"--python-version {PYTHONS[0]} " in makefile
    told = re.findall(r"Python must be (.*), however", makefile)
    assert set(told) == {f"{', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}"}
