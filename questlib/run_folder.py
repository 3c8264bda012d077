"""The run folder: where a run's files lie, each whole or not there."""

import errno
import itertools
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError

logger = logging.getLogger(__name__)

RUNS = Path("runs")  # takes the folders of runs that nobody named
KAGGLE = Path("/kaggle/working")  # what a kernel writes there is its output

# At the top of the run folder.
RECIPE = "recipe.json"
INPUTS = "inputs.json"
MEMBERS = "members"
ENSEMBLE = "ensemble.json"
SCORES = "scores.json"
TIMELINE = "timeline.json"
RUN = "run.json"  # what the run was and what came of it, at its end
BLENDED = "blended_out_of_fold.csv"
TIED = "tied_out_of_fold.csv"
SUBMISSION = "submission.csv"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"  # is made anew from the others at any time
LOCK, SESSION_LOCK = ".lock", ".session.lock"  # of who trains, and of who executes the notebook
LOGS = "logs"
EVALUATIONS = "evaluations.jsonl"  # in it, of each fold, a line for each evaluation while it is trained
DONE = "done.json"  # hashes of what is predicted with
OUTPUTS = "outputs.json"  # hashes of all that a kernel left, so that what is fetched of it can be told to be whole
NAMES = {
    RECIPE,
    INPUTS,
    MEMBERS,
    ENSEMBLE,
    SCORES,
    TIMELINE,
    RUN,
    BLENDED,
    TIED,
    SUBMISSION,
    CHECKPOINTS,
    LOGS,
    DONE,
    OUTPUTS,
    LOCK,
    SESSION_LOCK,
}
# In a fold's folder, members/<name>/fold-<k>; RECIPE there is the member's, beside whatever its kind saves.
OUT_OF_FOLD = "out_of_fold.csv"
TEST_PREDICTIONS = "test_predictions.csv"
HISTORY = "history.json"
# What is being written begins with it; after a kill such files are left over.
UNFINISHED = ".unfinished-"


def fold_folder(run_folder: Path, member: str, fold: int) -> Path:
    """Name the folder of a member's fold."""
    return run_folder / MEMBERS / member / f"fold-{fold}"


def checkpoint_folder(run_folder: Path, member: str, fold: int, *, cache_folder: Path) -> Path:
    """Name the folder of the checkpoints of a member's fold: on Kaggle in the cache, out of the kernel's output."""
    return (cache_folder if is_on_kaggle() else run_folder) / CHECKPOINTS / f"{member}-fold-{fold}"


def is_on_kaggle() -> bool:
    """Tell whether this is a Kaggle session."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def choose_run_folder(out: str) -> Path:
    """Give the folder that a notebook's parameter `out` names; where empty, Kaggle's own, or else a new one."""
    if out:
        return Path(out).expanduser()
    return KAGGLE if is_on_kaggle() else make_run_folder()


def make_run_folder(title: str = "") -> Path:
    """Make a new folder `runs/<time>-<title>` in the current one."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}" + (f"-{title}" if title else "")
    for number in itertools.count(1):
        out = RUNS / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):  # of two that start in one second, each has its own
            out.mkdir(parents=True)
            return out
    raise AssertionError


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Keep every other process that trains out of a run folder, and remove what a killed one left half-written."""
    with held_alone(run_folder, name=LOCK):
        for path in run_folder.rglob(f"{UNFINISHED}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield


@contextmanager
def held_alone(run_folder: Path, *, name: str) -> Iterator[None]:
    """Hold a lock in a run folder, which is made; one that another process holds is refused at once."""
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_folder / name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RuntimeError(
            f"the run folder {run_folder} must have one process at work, however another one is; wait or name another"
        ) from None
    try:
        yield
    finally:
        (run_folder / name).unlink(missing_ok=True)
        lock.release()


class DiskFull(OSError):
    """A file that there was no room for."""


@contextmanager
def told_when_full(path: Path, *, size: int | None = None) -> Iterator[None]:
    """Say which file a full disk did not take, and how much was missing, whichever library met it.

    `size` is what the file needs, in bytes, where that is known.
    """
    free = shutil.disk_usage(path.parent).free
    try:
        yield
    except DiskFull:
        raise
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        if number not in (errno.ENOSPC, errno.EDQUOT) and "os error 28" not in str(error):
            raise
        sizes = "" if size is None else f"{size} bytes were to be written, {max(size - free, 0)} more than were free; "
        raise DiskFull(
            errno.ENOSPC,
            f"the disk must have room for {path.name}, however it is full: {sizes}what stood there before still "
            "does; make room and go on",
            str(path),
        ) from error


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that could not be written, before what it is to hold is computed."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} must be a file to write, however it is a folder; name a file in it")
    if is_stream(path):
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path), tempfile.NamedTemporaryFile(dir=path.parent, prefix=UNFINISHED):
        pass


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe or a device, such as /dev/stdout: written to, and never replaced by a file."""
    # Standard output may lead to a file, which whoever led it there reads on.
    is_descriptor = path in (Path("/dev/stdout"), Path("/dev/stderr")) or path.parent in (
        Path("/dev/fd"),
        Path("/proc/self/fd"),
    )
    return path.exists() and (is_descriptor or not (path.is_file() or path.is_dir()))


@contextmanager
def written_whole(path: Path, *, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside the wanted one and rename it at the end, so that readers never see half a file.

    The folder is created. On an error nothing is left behind, and what lay at `path` before stays. A link stays one,
    and so do the rights of a file that is replaced; a pipe or device is written to at the end. `size` is what will be
    written, in bytes, where that is known.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            with (Path(folder) / path.name).open("rb") as content, path.open("wb") as stream:
                shutil.copyfileobj(content, stream)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path, size=size):
        temporary = name_unfinished(path)
        temporary.touch(exist_ok=False)
    mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
    try:
        with told_when_full(path, size=size):
            yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def name_unfinished(path: Path) -> Path:
    """Name a file or folder to write before it takes the place of the wanted one."""
    # Short, because a file system takes no more than 255 bytes, and the wanted name may have as many.
    begin = path.name.encode()[:64].decode(errors="ignore")
    return path.with_name(f"{UNFINISHED}{begin}-{secrets.token_hex(4)}")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8 whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes whole or not at all."""
    with written_whole(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; NaN is refused, because readers outside Python cannot parse it."""
    write_text(path, as_json(content))


def as_json(content: object) -> str:
    """Give JSON as it is written in a run folder."""
    return json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, np.generic):  # a parameter out of np.linspace is as good a number as one typed in
        return value.item()
    raise TypeError(f"a run folder must hold JSON types only, however: {value!r}")


def read_json(path: Path, *, of: type = dict) -> Any:  # noqa: ANN401  what a file holds
    """Read JSON that is `of` a kind, a mapping or a list; a file that is half-written is refused by name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, of):
            raise ValueError(f"it is no {of.__name__}")
    except ValueError as error:
        raise ValueError(f"{path} must be whole JSON, however it is damaged: {error}; copy it anew") from error
    return content
