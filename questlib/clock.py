"""One clock for a run: when its session began, what each step took, what is left, and what the limit cost."""

import logging
import math
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from questlib.checks import refuse_outside
from questlib.processes import find_launched
from questlib.run_folder import TIMELINE, read_json, write_json

logger = logging.getLogger(__name__)

# Seconds since the epoch; set by what starts a kernel, so that the session counts from there.
SESSION_START = "QUESTLIB_SESSION_START"
_LONGEST_START = 600.0


def find_session_start() -> float:
    """Tell when the session began, in seconds since the epoch.

    It is when the command was given that runs the notebook, on Kaggle when the runner or its container started; else
    when this process did.
    """
    import psutil

    if SESSION_START in os.environ:
        return float(os.environ[SESSION_START])
    process = psutil.Process()
    start = process.create_time()
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch":
        # A container that had waited for longer than a runner takes to start a kernel is older than its session.
        times = (each.create_time() for each in process.parents())
        return min((each for each in times if start - each < _LONGEST_START), default=start)
    return start


def check_limit(minutes: float) -> None:
    """Refuse a limit that no session can keep: all but what is quick would be left out."""
    refuse_outside(minutes, low=0, high=math.inf, what="time_limit_minutes")
    if minutes and find_launched().size > 1:
        raise ValueError(
            "processes that train one model together must all end at the same step, however by a limit each would end "
            "by its own clock; give time_limit_minutes 0"
        )


class Clock:
    """Time the steps of a run, know what is left of its limit, and keep the timeline on disk.

    Args:
        run_folder: Takes `timeline.json`; a session that stands there already is kept in it as an earlier one.
        limit_minutes: From the start of the session; 0 sets none.
        session_start: When the session began, in seconds since the epoch; now where None.
    """

    def __init__(self, run_folder: str | Path, *, limit_minutes: float = 0, session_start: float | None = None) -> None:
        check_limit(limit_minutes)
        folder = Path(run_folder).expanduser()
        self._path = folder / TIMELINE
        self._made = self._last = time.monotonic()
        self._start = self._made - (0 if session_start is None else max(0.0, time.time() - session_start))
        self._began = datetime.fromtimestamp(time.time() - self.elapsed, UTC).isoformat(timespec="seconds")
        self._limit = 60 * limit_minutes if limit_minutes else math.inf
        self._steps: list[dict] = []
        if session_start is not None:
            self._steps.append({"step": "start and install", "start": 0.0, "seconds": self._made - self._start})
        self._plan: list[dict] = []
        self._notes: list[dict] = []
        self._earlier = read_sessions(folder)

    @property
    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self._start

    @property
    def limit(self) -> float:
        """When the limit is reached, as `time.monotonic` tells it; infinite where there is none."""
        return self._start + self._limit

    @property
    def opening_seconds(self) -> float:
        """Seconds since the clock was made: asked before training begins, what reading and pictures took."""
        return time.monotonic() - self._made

    def finish_step(self, name: str) -> None:
        """Book the time since the last finished step under a name."""
        now = time.monotonic()
        self._steps.append({"step": name, "start": self._last - self._start, "seconds": now - self._last})
        logger.info("%s: %.1f s (%.1f s since the start)", name, now - self._last, now - self._start)
        self._last = now
        self._write()

    def plan(self, text: str) -> None:
        """Show what is planned, and keep it."""
        if not self._plan or self._plan[-1]["plan"] != text:
            logger.info("%s", text)
            self._plan.append({"seconds": self.elapsed, "plan": text})
            self._write()

    def note(self, text: str) -> None:
        """Show what did not go as asked, and keep it for the report: shortened, left out, resumed, tried again."""
        logger.warning("%s", text)
        # Where the run folder lies is nobody's business who is given it.
        text = text.replace(f"{self._path.parent.resolve()}", ".")
        self._notes.append({"seconds": self.elapsed, "note": text})
        self._write()

    def _write(self) -> None:
        limit = {} if math.isinf(self._limit) else {"limit_seconds": self._limit}
        session = {
            "began": self._began, "seconds": self.elapsed, **limit, "steps": self._steps, "plan": self._plan,
            "notes": self._notes,
        }  # fmt: skip
        write_json(self._path, session | ({"earlier": self._earlier} if self._earlier else {}))


def read_sessions(run_folder: Path) -> list[dict]:
    """Read the sessions of a run from its timeline, the first one first; none where there is no timeline."""
    if not (run_folder / TIMELINE).is_file():
        return []
    last = read_json(run_folder / TIMELINE)
    return [*last.pop("earlier", []), last]
