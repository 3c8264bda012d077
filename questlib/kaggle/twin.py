"""Environments like Kaggle's images: the same Python minor, runner and packages, made once and kept in the cache."""

import hashlib
import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from questlib.cache import CACHE

logger = logging.getLogger(__name__)

_IMAGES = Path(__file__).parent / "images"
_READY = "ready"


@dataclass(frozen=True, kw_only=True)
class Twin:
    """An environment like one of the images.

    Args:
        image: The image's Python minor.
        folder: The root of the virtual environment.
        versions: What it runs, for a reader.
        stands_in: What of it is not the image's own; empty where nothing is.
    """

    image: str
    folder: Path
    versions: str
    stands_in: str


def list_images() -> dict[str, dict[str, str]]:
    """List the images that are known.

    Returns:
        By Python minor, oldest first: the version of each package that the image's list pins.
    """
    by_image = {}
    for path in sorted(_IMAGES.glob("*.txt")):
        lines = [line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
        by_image[path.stem] = {name: version for name, version in lines}
    return by_image


def find_python(minor: str) -> str | None:
    """Find an interpreter.

    Args:
        minor: Such as "3.12".

    Returns:
        Its path; None where there is none.
    """
    installed = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{minor}.*/bin/python"))
    on_path = shutil.which(f"python{minor}")
    for candidate in ([on_path] if on_path else []) + [str(path) for path in installed]:
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == minor:  # a shim may answer for a version that is not active
            return candidate
    return None


def make_twin(image: str) -> Twin:
    """Make the environment of an image, or take the one that was made from the same list before.

    Args:
        image: Its Python minor.

    Returns:
        The environment.

    Raises:
        RuntimeError: If a package cannot be installed.
    """
    python = find_python(image) or sys.executable
    described = (_IMAGES / f"{image}.txt").read_bytes() + python.encode()
    folder = CACHE.expanduser() / f"image-{image}-{hashlib.sha256(described).hexdigest()[:12]}"
    if not (folder / _READY).is_file():
        logger.info("making an environment like the image of Python %s in %s: some minutes, once", image, folder)
        shutil.rmtree(folder, ignore_errors=True)
        _run([python, "-m", "venv", str(folder)])
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "pip==24.1.2"])
        _run([*pip, "--requirement", str(_IMAGES / f"{image}.txt")])
        (folder / _READY).touch()
    code = (
        "import platform, nbclient, nbconvert, torch, transformers; print('Python', platform.python_version(), "
        "'torch', torch.__version__, 'transformers', transformers.__version__, 'nbclient', nbclient.__version__, "
        "'nbconvert', nbconvert.__version__)"
    )
    versions = _run([str(folder / "bin/python"), "-c", code])
    here = versions.split(" torch")[0]
    stands_in = "" if here.startswith(f"Python {image}.") else f"no Python {image} here: {here} stands in"
    return Twin(image=image, folder=folder, versions=versions, stands_in=stands_in)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} must succeed, however: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()
