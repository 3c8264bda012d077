"""The manifest of a dataset: what every file in it is, and one fingerprint of them all."""

from pathlib import Path
from typing import Any

from hatchling.builders.wheel import WheelBuilder

from questlib.attached import MANIFEST
from questlib.marks import fingerprint_of, hash_file
from questlib.run_folder import read_json, write_json

DATASET_METADATA = "dataset-metadata.json"


def write_manifest(folder: Path, *, source: str = "", commit: str | None = None) -> str:
    """Write manifest.json over everything else in a dataset's folder.

    Args:
        folder: The dataset.
        source: The hash of the source that the dataset was built from.
        commit: The git commit that this source was checked out at, if there is one.

    Returns:
        The fingerprint: the SHA-256 of the names and hashes of all files.
    """
    files = hash_files(folder)
    fingerprint = fingerprint_of(files)
    write_json(folder / MANIFEST, {"fingerprint": fingerprint, "source": source, "commit": commit, "files": files})
    return fingerprint


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a dataset's manifest; what is none is refused by a ValueError."""
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest.get("fingerprint"), str) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{folder / MANIFEST} must tell files and fingerprint, however not so; write the bundle again")
    return manifest


def read_fingerprint(folder: Path) -> str:
    """Read the fingerprint out of a dataset's manifest."""
    return read_manifest(folder)["fingerprint"]


def hash_files(folder: Path) -> dict[str, str]:
    """Hash every file of a dataset, but not what describes it.

    Args:
        folder: The dataset.

    Returns:
        SHA-256 by path relative to the folder, sorted.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: hash_file(path) for name, path in names.items() if name not in (MANIFEST, DATASET_METADATA)}


def hash_source(project: Path) -> str:
    """Hash the source that the wheel is built from.

    Args:
        project: The project's root.

    Returns:
        One SHA-256 over every file that the build puts into the wheel, and those that it describes the wheel by.
    """
    # The build itself says which: a list of our own would let a new folder slip through.
    included = [Path(file.path) for file in WheelBuilder(str(project)).recurse_included_files()]
    described = [project / name for name in ("pyproject.toml", "LICENSE", "README.md")]
    paths = [path.resolve() for path in (*included, *described)]
    return fingerprint_of({path.relative_to(project.resolve()).as_posix(): hash_file(path) for path in paths})
