"""A private PostgreSQL server: in a temporary folder, on a free port, killed and started at will."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_OWNER = "postgres"  # the server refuses to run as root


def find_programs() -> Path | None:
    """Find the folder of the server's programs: on the path, or where Debian puts them."""
    named = shutil.which("initdb")
    folders = [Path(named).parent] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


class Server:
    """A server of its own; `with` stops it and removes all of it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = _OWNER if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._call("initdb", "--auth", "trust", "--username", "quest", "--no-sync", "--pgdata", self._data)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def url(self) -> str:
        """As a sweep's STORAGE takes it."""
        return f"postgresql+psycopg://quest@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call("pg_ctl", "--pgdata", self._data, "--mode", "immediate", "stop", check=False)
        shutil.rmtree(self._folder)

    def start(self, *, seconds: float = 30.0) -> None:
        """Start, and wait until it answers; after a kill its old processes may be in the way for a moment."""
        options = f"-p {self.port} -k {self._folder} -h 127.0.0.1 -F"
        end = time.monotonic() + seconds
        while True:
            done = self._call(
                "pg_ctl", "--pgdata", self._data, "--log", self._folder / "log", "--options", options, "--wait",
                "start", check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return
            if time.monotonic() > end:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill it, as a machine that is switched off."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def _call(self, program: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self._programs / program, *map(str, arguments)], user=self._user, cwd=self._folder, check=check,
            stdout=subprocess.DEVNULL, env=os.environ | {"USER": self._user or getpass.getuser()},
        )  # fmt: skip
