"""All workers of this machine: started with a share of its cores or a GPU each, replaced when killed, told to end."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

from questlib.devices import pick_devices
from questlib.processes import die_with_parent
from questlib.sweeps import study as studies
from questlib.sweeps.study import take_back

logger = logging.getLogger(__name__)

# A worker that dies as often as this has something wrong that another one will not mend.
_MOST_STARTS = 5
_SECONDS_BETWEEN_LOOKS = 0.5


def environment_of(number: int, *, n_workers: int, devices: Sequence[torch.device]) -> dict[str, str]:
    """Give a worker's environment: a GPU of its own, or its share of the cores."""
    if devices[0].type == "cpu":
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, n_cores // n_workers)
        return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = devices[number % len(devices)].index
    return {"CUDA_VISIBLE_DEVICES": visible[index] if len(visible) > index and visible[0] else str(index)}


class Parent:
    """Keeps workers at work until a sweep is finished.

    Args:
        command: Starts a worker; its number is appended.
        n_workers: How many; as many as there are GPUs, or one, where 0.
        log_folder: Takes what workers' libraries and kernels say beside their own lines.
    """

    def __init__(self, command: Sequence[str], *, n_workers: int, log_folder: Path) -> None:
        self._devices = pick_devices()
        self.n_workers = n_workers or len(self._devices)
        self._command = list(command)
        self._log_folder = log_folder
        self._running: dict[int, subprocess.Popen] = {}
        self._n_starts = 0
        self._is_finished = False
        self.received: int | None = None

    def work(self, study: "studies.optuna.Study") -> int:
        """Start the workers and wait; give 0, 128 + the signal that ended them, or 1 where they died too often."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        self._log_folder.mkdir(parents=True, exist_ok=True)
        try:
            for number in range(self.n_workers):
                self._start(number)
            while self._running:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                self._look(study)
        finally:
            for process in self._running.values():
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received is not None:
            return 128 + self.received
        return int(not self._is_finished)

    def _start(self, number: int) -> None:
        self._n_starts += 1
        environment = os.environ | environment_of(number, n_workers=self.n_workers, devices=self._devices)
        with (self._log_folder / f"worker-{number + 1}.txt").open("a", encoding="utf-8") as log:
            # A session of its own: a terminal's Ctrl-C comes to this process alone, which passes it on.
            self._running[number] = subprocess.Popen(
                [*self._command, str(number + 1)], env=environment, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def _look(self, study: "studies.optuna.Study") -> None:
        for number, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            del self._running[number]
            self._is_finished |= status == 0  # a worker ends well only when nothing is left to do
            if status == 0 or self.received is not None:
                continue
            n_taken = take_back(study)
            logger.warning(
                "worker %d ended with status %d, see %s; %d trials of it are queued again",
                number + 1, status, self._log_folder / f"worker-{number + 1}.txt", n_taken,
            )  # fmt: skip
            if self._n_starts < _MOST_STARTS * self.n_workers:
                self._start(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            logger.info("the workers are told to end; they keep what they have")
        self.received = number
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
