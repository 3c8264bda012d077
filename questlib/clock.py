"""One clock for a run: what each step of the flow took."""

import logging
import time
from pathlib import Path

from questlib.run_folder import TIMELINE, write_json

logger = logging.getLogger(__name__)


class Clock:
    """Time the steps of a run and keep the timeline on disk."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._start = self._last = time.monotonic()
        self._steps: list[dict] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def finish_step(self, name: str) -> None:
        """Book the time since the last finished step under a name."""
        now = time.monotonic()
        self._steps.append({"step": name, "start": self._last - self._start, "seconds": now - self._last})
        logger.info("%s: %.1f s (%.1f s since the start)", name, now - self._last, now - self._start)
        self._last = now
        write_json(self._run_folder / TIMELINE, {"seconds": now - self._start, "steps": self._steps})
