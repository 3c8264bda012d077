"""The cache: what can be computed again, such as tokenised text, written once by whoever needs it first.

It keeps within a budget of bytes: what was not read for longest makes room for what is written.
"""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from questlib.marks import hash_once
from questlib.run_folder import LOCK, UNFINISHED, told_when_full, write_text, written_whole

logger = logging.getLogger(__name__)

Content = TypeVar("Content")
CACHE = Path("~/.cache/questlib")
_BUDGET = 20 * 1000**3  # states of a base-size body take 3 GB for 5,000 pairs of 512 tokens
_ROOM_TO_LEAVE = 10**9  # of the disk
_MARK = ".sha256"
# What makes room, by its mark: a cache may lie in a folder where other files have theirs beside them.
_OWN = re.compile(rf"(passes|states|vectors)-[0-9a-f]{{32}}\.(arrow|npy){re.escape(_MARK)}")


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
        with suppress(OSError):  # another user's file
            os.utime(_mark(path))  # tells when it was read last
        return read(path)
    except (ValueError, EOFError, OSError) as error:
        logger.warning("%s was damaged and is made anew: %s", path, error)
        path.unlink(missing_ok=True)
    _write_once(path, write, size=size)
    return read(path)


def is_kept(path: Path) -> bool:
    """Tell whether a cache holds a file, whole."""
    return path.exists() and _mark(path).exists()


def make_room(folder: Path, size: int) -> bool:
    """Remove what a cache did not read for longest until `size` more bytes fit into its budget and on the disk.

    Where that cannot be reached nothing is removed, and the answer is False.
    """
    kept = sorted(_list_kept(folder))
    total = sum(bytes_kept for _, bytes_kept, _ in kept)
    excess = max(total + size - _BUDGET, size + _ROOM_TO_LEAVE - shutil.disk_usage(folder).free)
    if excess > total:
        return False
    for _, bytes_kept, file in kept:
        if excess <= 0:
            break
        logger.info("%s makes room in the cache: it was not read for longest", file.name)
        with suppress(PermissionError):  # another user's file, or on Windows one that is mapped
            file.unlink(missing_ok=True)
            _mark(file).unlink(missing_ok=True)
            excess -= bytes_kept
    return excess <= 0


def _list_kept(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for mark in (each for each in folder.iterdir() if _OWN.fullmatch(each.name)):
        path = mark.with_name(mark.name.removesuffix(_MARK))
        with suppress(FileNotFoundError):  # another process has removed it just now
            yield mark.stat().st_mtime, path.stat().st_size, path


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}{_MARK}")


def _refuse_changed(path: Path) -> None:
    if hash_once(path) != _mark(path).read_text(encoding="utf-8"):
        raise ValueError("its content was changed")


def find_cache(wanted: Path) -> Path:
    """Give the folder of a cache, or one of this user's own where that cannot be written."""
    with suppress(RuntimeError):  # a user without a home has the other one
        wanted = wanted.expanduser()
    others = Path(tempfile.gettempdir()) / f"questlib-{os.getuid() if hasattr(os, 'getuid') else 'of-user'}"
    for folder in (wanted, others) if wanted.parts[:1] != ("~",) else (others,):
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
    if is_kept(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_when_full(path):
        lock = FileLock(path.with_name(f"{path.name}{LOCK}"))
        lock.acquire()
    try:
        if is_kept(path):
            return
        for leftover in path.parent.glob(f"{UNFINISHED}{path.name}-*"):  # of one that was killed
            leftover.unlink()
        _mark(path).unlink(missing_ok=True)  # until its own is there, a file is taken for unfinished
        make_room(path.parent, size or 0)
        with written_whole(path, size=size) as temporary:
            write(temporary)
        write_text(_mark(path), hash_once(path))
    finally:
        lock.release()
