"""The wheels that Kaggle's images lack: questlib's own, built alike each time, and the few others, pinned by hash."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from questlib.attached import REQUIREMENTS
from questlib.checkout import find_commit
from questlib.kaggle.manifest import hash_source, write_manifest
from questlib.marks import hash_file

LOCK = "requirements.lock"
# What the lock pins must run in Kaggle's images, whatever machine fetches it.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64")


def make_wheels(project: Path) -> Path:
    """Build questlib's wheel, fetch the locked ones where they are missing, and write the manifest of them all.

    Args:
        project: The project's root; its folder wheels/ takes the files.

    Returns:
        The folder.

    Raises:
        RuntimeError: If the build fails, or a wheel cannot be fetched with the hash it is locked to.
    """
    folder = project / "wheels"
    locked = read_lock(folder / LOCK)
    wheel = _build_wheel(project)
    fetched = [path for path in folder.glob("*.whl") if hash_file(path) in locked.values()]
    if len(fetched) < len(locked):
        _fetch(folder)
        fetched = [path for path in folder.glob("*.whl") if hash_file(path) in locked.values()]
    for path in folder.glob("*.whl"):
        if path not in (wheel, *fetched):
            path.unlink()  # of an older version: it would be shipped too
    lines = [f"{name} --hash=sha256:{digest}" for name, digest in locked.items()]
    name, version = wheel.name.split("-")[:2]
    lines.append(f"{name}=={version} --hash=sha256:{hash_file(wheel)}")
    (folder / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_manifest(folder, source=hash_source(project), commit=find_commit(project / "questlib"))
    return folder


def read_lock(path: Path) -> dict[str, str]:
    """Read the locked wheels.

    Args:
        path: Lines of `name==version --hash=sha256:digest`; comments start with #.

    Returns:
        The hash of each `name==version`.

    Raises:
        ValueError: If a line is of another form.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    locked = {}
    for line in (line for line in lines if line and not line.startswith("#")):
        match = re.fullmatch(r"(\S+==\S+) --hash=sha256:([0-9a-f]{64})", line)
        if match is None:
            raise ValueError(f"{path} must hold lines of name==version --hash=sha256:digest, however: {line!r}")
        locked[match[1]] = match[2]
    return locked


def _build_wheel(project: Path) -> Path:
    with tempfile.TemporaryDirectory() as temporary:
        _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", temporary], cwd=project)
        [built] = Path(temporary).glob("*.whl")
        return Path(shutil.move(built, project / "wheels" / built.name))


def _fetch(folder: Path) -> None:
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    _run([*pip, *platforms, "--dest", ".", "--requirement", LOCK], cwd=folder)


def _run(command: list[str], *, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:5])} must succeed, however: {(done.stderr or done.stdout).strip()}")
