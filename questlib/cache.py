"""The cache: what can be computed again, such as tokenised text, written once by whoever needs it first."""

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from questlib.marks import hash_once
from questlib.run_folder import LOCK, UNFINISHED, told_when_full, write_text, written_whole

logger = logging.getLogger(__name__)

Content = TypeVar("Content")
CACHE = Path("~/.cache/questlib")


def keep_once(
    path: Path, write: Callable[[Path], None], read: Callable[[Path], Content], *, size: int | None = None
) -> Content:
    """Read a file of a cache, which is written where it is not there, and anew where it is not what was written.

    `write` is given a temporary path; `read` raises a ValueError where the file is not whole. `size` is what will be
    written, in bytes, where that is known.
    """
    _write_once(path, write, size=size)
    try:
        _refuse_changed(path)
        return read(path)
    except (ValueError, EOFError, OSError) as error:
        logger.warning("%s was damaged and is made anew: %s", path, error)
        path.unlink(missing_ok=True)
    _write_once(path, write, size=size)
    return read(path)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _refuse_changed(path: Path) -> None:
    if hash_once(path) != _mark(path).read_text(encoding="utf-8"):
        raise ValueError("its content was changed")


def find_cache(wanted: Path) -> Path:
    """Give the folder of a cache, or one of this user's own where that cannot be written."""
    with suppress(RuntimeError):  # a user without a home has the other one
        wanted = wanted.expanduser()
    others = Path(tempfile.gettempdir()) / f"questlib-{os.getuid() if hasattr(os, 'getuid') else 'of-user'}"
    for folder in (wanted, others) if wanted.parts[0] != "~" else (others,):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED):
                pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a full disk is told where something is written
                return folder
            logger.warning("the cache %s cannot be written: %s", folder, error)
        else:
            return folder
    raise PermissionError(f"a cache must be written to, however neither {wanted} nor {others} can be; name another")


def _write_once(path: Path, write: Callable[[Path], None], *, size: int | None = None) -> None:
    # One of all processes that want it does, the others wait and find it.
    if path.exists() and _mark(path).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path):
        lock = FileLock(path.with_name(f"{path.name}{LOCK}"))
        lock.acquire()
    try:
        if path.exists() and _mark(path).exists():
            return
        for leftover in path.parent.glob(f"{UNFINISHED}{path.name}-*"):  # of one that was killed
            leftover.unlink()
        _mark(path).unlink(missing_ok=True)  # until its own is there, a file is taken for unfinished
        with written_whole(path, size=size) as temporary:
            write(temporary)
        write_text(_mark(path), hash_once(path))
    finally:
        lock.release()
