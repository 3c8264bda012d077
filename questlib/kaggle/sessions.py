"""Sessions: a kernel's text, its inputs and an environment, run in a sandbox, and what that left."""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import nbformat

from questlib.attached import WHEELS
from questlib.clock import read_sessions
from questlib.data import read_table
from questlib.kaggle.mounts import MOUNTS, Mounted, mount
from questlib.kaggle.sandbox import run_in_sandbox
from questlib.kaggle.session import NOTEBOOK
from questlib.kaggle.twin import Twin
from questlib.run_folder import SUBMISSION
from questlib.schema import ID, TARGETS
from questlib.submission import check_submission

logger = logging.getLogger(__name__)

HUB_NAME = "some-owner/some-model"
SHORT_LIMIT_SECONDS = 100
_TIMEOUT = 1800.0  # seconds
_TOLD_EVERY = 60.0  # seconds


class SessionKind(Enum):
    """What a session is run for: to submit, to fail in words, or to look at the library."""

    PUBLIC_TEST = "public test"
    HIDDEN_TEST = "hidden test"
    OLDER_WHEELS = "older wheels"
    NO_TABLES = "no tables"
    HUB_NAME = "hub name"
    LIBRARY = "library"
    SHORT_LIMIT = "short limit"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of a kernel's text."""

    text: str  # the notebook
    twin: Twin  # the environment
    owner: str  # of the datasets
    datasets: Sequence[Path]  # folders named by their slugs
    competition: Path | None  # the tables' folder, named by the competition's slug; None where it is not attached
    kind: SessionKind = SessionKind.PUBLIC_TEST
    swap: str = ""  # which hidden test
    trains: bool = False  # whether the kernel does, and should leave a submission before
    mounted: Mounted = MOUNTS[0]

    @property
    def name(self) -> str:
        """As the log and the evidence show it."""
        return f"Python {self.twin.image}, {self.mounted.layout} layout, {self.swap or self.kind.value}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a session left.

    Args:
        session: What was run.
        status: The runner's exit status; 124 after a timeout.
        seconds: How long it ran.
        first_submission: Seconds until a submission stood; None where none did.
        seen: What was watched inside: packages installed and removed, foreign connects.
        error: The notebook's error; empty where there was none.
        error_seconds: How long the failing cell took.
        is_complete: Whether the last code cell was executed.
        working: What stood at /kaggle/working.
        log: What the runner wrote.
    """

    session: Session
    status: int
    seconds: float
    first_submission: float | None
    seen: dict = field(default_factory=dict)
    error: str
    error_seconds: float
    is_complete: bool
    working: Path
    log: Path

    def find_fault(self) -> str:
        """Say what is wrong with the run or its submission; empty where all is well."""
        name, tables = self.session.name, self.session.competition
        if self.status or tables is None:
            return f"{name}: status {self.status}, {self.error or f'see {self.log}'}"
        try:
            sample = read_table(tables / "sample_submission.csv", columns=(ID, *TARGETS))
            submission = read_table(self.working / SUBMISSION, columns=(ID,))
            check_submission(submission, columns=list(sample.columns), ids=sample[ID].to_numpy())
        except (OSError, ValueError) as error:
            return f"{name}: {error}"
        return ""


def run_session(session: Session, folder: Path, *, threads: int) -> Outcome:
    """Run a kernel's text in a sandbox, with so many threads; the folder takes what it wrote, and its log."""
    shutil.rmtree(folder, ignore_errors=True)
    attached, working, log = folder / "input", folder / "working", folder / "log"
    deeper = [path.name for path in session.datasets if path.name != WHEELS] if session.mounted.is_deeper else []
    mount(
        session.datasets,
        session.competition,
        owner=session.owner,
        layout=session.mounted.layout,
        deeper=deeper,
        target=attached,
    )
    working.mkdir()
    (working / NOTEBOOK).write_text(session.text, encoding="utf-8")
    python = session.twin.folder
    logger.info("%s: started", session.name)
    start, ended = time.monotonic(), threading.Event()
    stood: list[float] = []
    watcher = threading.Thread(target=_watch, args=(session.name, working, ended, stood))
    watcher.start()
    status = run_in_sandbox(
        [str(python / "bin/python"), str(Path(__file__).with_name("session.py"))],
        attached=attached,
        working=working,
        python=python,
        environment=_list_variables(session, threads=threads),
        timeout=_TIMEOUT,
        log=log,
    )
    ended.set()
    watcher.join()
    shutil.rmtree(attached)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    error, error_seconds, is_complete = _read_notebook(working / NOTEBOOK)
    outcome = Outcome(
        session=session,
        status=status,
        seconds=time.monotonic() - start,
        first_submission=stood[0] - start if stood else None,
        seen=json.loads(lines[-1]) if lines and lines[-1].startswith('{"status"') else {},
        error=error,
        error_seconds=error_seconds,
        is_complete=is_complete,
        working=working,
        log=log,
    )
    logger.info("%s: status %d after %.0f s %s", session.name, status, outcome.seconds, error[:200])
    return outcome


def _list_variables(session: Session, *, threads: int) -> dict[str, str]:
    variables = {
        "PATH": f"{session.twin.folder}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": "/tmp/home",
        "LANG": "C.UTF-8",
        "PIP_CONFIG_FILE": os.devnull,
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "MKL_THREADING_LAYER": "GNU",
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",  # it is rehearsed without a GPU, wherever that is
    }
    return variables | ({"KAGGLE_IS_COMPETITION_RERUN": "1"} if session.kind is SessionKind.HIDDEN_TEST else {})


def _watch(name: str, working: Path, ended: threading.Event, stood: list[float]) -> None:
    # Notes when a submission stands, and then tells how far the run is.
    while not stood and not ended.wait(0.2):
        if (working / SUBMISSION).exists():
            stood.append(time.monotonic())
    while not ended.wait(_TOLD_EVERY):
        for timeline in read_sessions(working)[-1:]:
            done = [f"{each['step']} is done" for each in timeline["steps"]]
            ends = [each["plan"].rpartition("; ")[2] for each in timeline["plan"]]
            logger.info("%s: %s", name, "; ".join(done[-1:] + ends[-1:]))


def _read_notebook(path: Path) -> tuple[str, float, bool]:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        for output in cell.outputs:
            if output.output_type == "error":
                seconds = cell.metadata.get("papermill", {}).get("duration") or 0.0
                return f"{output.ename}: {output.evalue}", float(seconds), False
    return "", 0.0, cells[-1].execution_count is not None
