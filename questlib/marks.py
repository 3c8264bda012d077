"""Marks of what is finished: hashes of files, by which they are what was written, or refused by name."""

import functools
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from questlib.run_folder import DONE, OUTPUTS, TIMELINE, as_json, name_unfinished, read_json, told_when_full, write_json


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """Give the same, once for as long as a file stays as it is: of gigabytes it takes seconds."""
    content = path.stat()
    return _hash_known(path, content.st_mtime_ns, content.st_size)


@functools.cache
def _hash_known(path: Path, changed: int, size: int) -> str:
    return hash_file(path)


def hash_text(text: str) -> str:
    """Give the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_of(files: Mapping[str, str]) -> str:
    """Hash names and hashes of files into one fingerprint."""
    return hash_text("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))


@contextmanager
def finished_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; at the end mark it as done, with hashes of its files, and rename it to the wanted one.

    On an error it is removed, and what lay at `folder` before stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(folder):
        temporary = name_unfinished(folder)
        temporary.mkdir()
    try:
        with told_when_full(folder):
            yield temporary
        mark_done(temporary, _list_names(temporary))
        before = temporary.with_name(f"{temporary.name}-before")
        if folder.exists():
            folder.replace(before)
        try:
            temporary.replace(folder)
        except OSError:
            if before.exists():
                before.replace(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mark_done(folder: Path, names: Iterable[str]) -> None:
    """Write the mark of a folder, with hashes of the files that are named."""
    write_json(folder / DONE, {"files": {name: hash_file(folder / name) for name in sorted(names)}})


def list_outputs(folder: Path) -> None:
    """Write down what a run left in its folder, with hashes, as its last word; but notebooks, as one is being run."""
    names = [
        name
        for name in _list_names(folder)
        if name != OUTPUTS and not name.endswith(".ipynb") and not name.split("/")[-1].startswith(".")
    ]
    write_json(folder / OUTPUTS, {"files": {name: hash_file(folder / name) for name in names}})


def check_outputs(folder: Path, *names: str) -> None:
    """Refuse a folder that does not hold what its run left, as its last word tells: files named, or all but weights."""
    if not (folder / OUTPUTS).is_file():
        raise FileNotFoundError(f"{folder}: no {OUTPUTS}, the run did not come to its end")
    files = _read_mark(folder / OUTPUTS)
    # A session that was refused there, before it had changed anything else, stands in the timeline all the same.
    told = [name for name in files if name.endswith((".json", ".csv")) and name != TIMELINE]
    _refuse_changed(folder, files, names or told)


def check_finished(folder: Path, *names: str) -> None:
    """Refuse a folder that is not marked as done, or of which a file was changed or lost: those named, or any."""
    if not (folder / DONE).is_file():
        raise FileNotFoundError(f"{folder} must be finished ({DONE} marks it), however it is not; run it to its end")
    files = _read_mark(folder / DONE)
    _refuse_changed(folder, files, names or files)


def _refuse_changed(folder: Path, files: Mapping[str, str], names: Iterable[str]) -> None:
    changed = list_changed(folder, {name: files.get(name, "") for name in names})
    if changed:
        raise ValueError(f"{folder} must hold what its run wrote, however missing or changed: {changed}; copy it anew")


def _read_mark(path: Path) -> dict[str, str]:
    # Written in one way, so that no byte of it can differ unseen.
    try:
        content = read_json(path)
        files = content["files"]
        if as_json(content) != path.read_text(encoding="utf-8") or any(len(digest) != 64 for digest in files.values()):
            raise ValueError("no run writes so")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"{path} must be as its run wrote it, however it was changed: {error}; copy it anew"
        raise ValueError(told) from error
    return files


def _list_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refuse_added(folder: Path) -> None:
    """Refuse a finished folder that holds a file which its run did not write, and which may be read all the same."""
    known = {DONE, *_read_mark(folder / DONE)}
    added = [name for name in _list_names(folder) if name not in known and not Path(name).name.startswith(".")]
    if added:
        raise ValueError(f"{folder} must hold what its run wrote, however it holds more: {added[:5]}; remove them")


def list_changed(folder: Path, files: Mapping[str, str]) -> list[str]:
    """List the files of a folder that are missing or not what they were, by their SHA-256."""
    return [
        name for name, digest in files.items() if not (folder / name).is_file() or hash_file(folder / name) != digest
    ]
