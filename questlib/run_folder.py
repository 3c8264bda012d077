"""The run folder: where a run's files lie, each whole or not there, and the marks that say what is finished."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# At the top of the run folder.
RECIPE = "recipe.json"
MEMBERS = "members"
ENSEMBLE = "ensemble.json"
SCORES = "scores.json"
TIMELINE = "timeline.json"
BLENDED = "blended_out_of_fold.csv"
SUBMISSION = "submission.csv"
# In a fold's folder, members/<name>/fold-<k>; RECIPE there is the member's, beside whatever its kind saves.
OUT_OF_FOLD = "out_of_fold.csv"
TEST_PREDICTIONS = "test_predictions.csv"
HISTORY = "history.json"
DONE = "done.json"
# For what can be computed again: tokenised text, pooled passes.
CACHE = Path("/tmp/questlib")


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fold_folder(run_folder: Path, member: str, fold: int) -> Path:
    """Name the folder of a member's fold."""
    return run_folder / MEMBERS / member / f"fold-{fold}"


@contextmanager
def finished_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; at the end mark it as done, with hashes of its files, and rename it to the wanted one.

    On an error it is removed, and what lay at `folder` before stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        write_json(temporary / DONE, {"files": {name: hash_file(temporary / name) for name in names}})
        temporary.chmod(0o755)  # mkdtemp makes it private, yet a run folder is to be read
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_finished(folder: Path, *names: str) -> None:
    """Refuse a folder that `finished_whole` did not finish, or of which a file was changed: those named, or any."""
    if not (folder / DONE).is_file():
        raise FileNotFoundError(f"{folder} must be finished ({DONE} marks it), however it is not; run it to its end")
    files = read_json(folder / DONE)["files"]
    changed = list_changed(folder, {name: files[name] for name in names or files})
    if changed:
        raise ValueError(f"{folder} must hold what its run wrote, however missing or changed: {changed}; copy it anew")


def list_changed(folder: Path, files: Mapping[str, str]) -> list[str]:
    """List the files of a folder that are missing or not what they were, by their SHA-256."""
    return [
        name for name, digest in files.items() if not (folder / name).is_file() or hash_file(folder / name) != digest
    ]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the wanted one and rename it at the end, so that readers never see half a file.

    The folder is created. On an error nothing is left behind, and what lay at `path` before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private, yet a run folder is to be read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; NaN is refused, because readers outside Python cannot parse it."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):  # a parameter out of np.linspace is as good a number as one typed in
        return value.item()
    raise TypeError(f"a run folder must hold JSON types only, however: {value!r}")


def read_json(path: Path) -> dict:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))
