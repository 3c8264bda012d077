"""A place like a Kaggle session: no network, /kaggle/input read-only, only /kaggle/working and /tmp writable.

`run_in_sandbox` starts this file inside new namespaces; there it builds a root of bind mounts and enters it. Nothing of
it is left afterwards, and no right of an administrator is needed.
"""

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD, _ATTR_RDONLY = 442, 0x8000, -100, 1
_MINE = {"tmp", "kaggle", "proc", "dev"}  # what a session has of its own, or needs writable
_TMP_SIZE = "8g"


def why_not() -> str | None:
    """Say why there can be no sandbox here; None where there can be one."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "namespaces need Linux and util-linux's unshare"
    done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True)
    return f"unshare is not permitted here: {done.stderr.strip()}" if done.returncode else None


def run_in_sandbox(
    command: Sequence[str],
    *,
    attached: Path,
    working: Path,
    python: Path,
    environment: Mapping[str, str],
    timeout: float,
    log: Path,
) -> int:
    """Run a command as a Kaggle session would.

    Args:
        command: Run in /kaggle/working. Of this machine's /tmp it sees nothing but the library.
        attached: What stands at /kaggle/input.
        working: What stands at /kaggle/working; what the command writes there stays.
        python: The root of a virtual environment; changes to it are seen by the command only.
        environment: The command's environment; nothing of this process's gets in.
        timeout: Seconds after which the command is killed.
        log: Takes what the command writes to standard output and error.

    Returns:
        The exit status; 124 after a timeout.
    """
    with tempfile.TemporaryDirectory() as root, log.open("w", encoding="utf-8") as stream:
        folders = {"--root": root, "--attached": attached, "--working": working, "--python": python}
        arguments = [str(word) for pair in folders.items() for word in pair]
        inner = [*_unshare(), sys.executable, __file__, *arguments, "--", *command]
        try:
            return subprocess.run(
                inner, env=dict(environment), stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            stream.write(f"\nkilled after {timeout:.0f} s\n")
            return 124


def _unshare() -> list[str]:
    # The command dies with unshare: a killed rehearsal leaves no training behind.
    return ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]


def _mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = source.encode(), str(target).encode(), kind.encode() or None, flags, options.encode() or None
    if libc.mount(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: mount {source} on {target}")


def _make_read_only(target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY, 0, 0, 0)
    if libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, str(target).encode(), _AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
    ):
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: make {target} read-only")


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount(str(source), target, flags=_MS_BIND | _MS_REC)


def _build_root(root: Path, *, attached: Path, working: Path, python: Path) -> None:
    _mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", options=f"size={_TMP_SIZE}")
    scratch = root / ".scratch"
    for name in ("upper", "work", "tmp"):
        (scratch / name).mkdir(parents=True)
    for path in sorted(Path("/").iterdir()):
        if path.is_symlink():
            (root / path.name).symlink_to(path.readlink())
        elif path.is_dir() and path.name not in _MINE:
            _bind(path, root / path.name)
            _make_read_only(root / path.name)
    _bind(Path("/dev"), root / "dev")
    (root / "proc").mkdir()
    _mount("proc", root / "proc", "proc")
    _bind(attached, root / "kaggle/input")
    _make_read_only(root / "kaggle/input")
    _bind(working, root / "kaggle/working")
    _bind(scratch / "tmp", root / "tmp")
    (root / "tmp/home").mkdir()
    library = Path(__file__).resolve().parents[1]
    if library.is_relative_to("/tmp"):  # a clone there is hidden by the session's own, and yet runs it
        _bind(library, root / library.relative_to("/"))
        _make_read_only(root / library.relative_to("/"))
    # pip may install into the environment, as it may on Kaggle, but nothing of that outlives the session.
    layers = f"lowerdir={python},upperdir={scratch}/upper,workdir={scratch}/work"
    target = root / python.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    _mount("overlay", target, "overlay", options=layers)


def _enter() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--root", "--attached", "--working", "--python"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("command", nargs="+")
    parsed = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # the runner talks to its kernel over loopback
    root, attached, working, python = (
        path.resolve() for path in (parsed.root, parsed.attached, parsed.working, parsed.python)
    )
    _build_root(root, attached=attached, working=working, python=python)
    os.chroot(root)
    os.chdir("/kaggle/working")
    os.execvp(parsed.command[0], parsed.command)


if __name__ == "__main__":
    _enter()
