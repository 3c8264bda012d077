"""Independent work on several devices at once: a process for each piece of it, all log lines in one place."""

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import torch

from questlib.devices import pick_device
from questlib.processes import die_with_parent

# What a device, or a process on it, is lost by. Everything else is a mistake, which another try would only repeat.
FAULTS = (RuntimeError, MemoryError)
_SECONDS_TO_END = 10.0  # for a process that is interrupted


class Workers:
    """Calls of functions, as many at once as there are devices.

    A call has a process of its own, which sees its device alone, so that `questlib.devices.pick_device` finds it there;
    several CPUs share the threads. On one device, the first of its kind, calls are made in this process, one after the
    other: a library that is asked for a GPU may take the first, whichever was picked.

    Args:
        devices: A call each; a device may be named twice.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._devices = list(devices)
        self._is_alone = len(devices) == 1 and not devices[0].index
        self._free = list(devices)
        self._results: list[tuple[str, Any]] = []
        self._running: dict[Connection, tuple[str, BaseProcess, torch.device]] = {}
        self._context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU

    def __enter__(self) -> Self:
        if not self._is_alone:
            self._lines = self._context.Queue()
            self._listener = QueueListener(self._lines, _Relay())
            self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process, _ in self._running.values():
            if kind is not None and process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)  # it keeps its state
        for _, process, _ in self._running.values():
            process.join(_SECONDS_TO_END)
            process.kill()
        if not self._is_alone:
            self._listener.stop()

    @property
    def n_devices(self) -> int:
        """How many devices there are, without those that were lost."""
        return len(self._devices)

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once, and what ended before has been waited for."""
        return bool(self._free) and not self._results

    def start(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401
        """Call a function of an importable module on a free device; the name begins the call's log lines."""
        device = self._free.pop(0)
        if self._is_alone:
            try:
                self._results.append((name, function(*arguments)))
            except FAULTS as error:
                self._results.append((name, error))
            self._free.append(device)
            return
        mine, theirs = self._context.Pipe(duplex=False)
        threads = max(1, torch.get_num_threads() // len(self._devices))
        level = logging.getLogger("questlib").getEffectiveLevel()
        about = (theirs, self._lines, name, level, _visible_name(device), device.type, threads)
        process = self._context.Process(target=_work, args=(*about, function, arguments))
        process.start()
        theirs.close()
        self._running[mine] = (name, process, device)

    def wait(self) -> tuple[str, Any]:
        """Wait for the next call to end: its name, and what it returned or the fault that ended it.

        An error that is no fault of a device is raised.
        """
        if self._results:
            return self._results.pop(0)
        (ready, *_) = wait(list(self._running))
        assert isinstance(ready, Connection)
        name, process, device = self._running.pop(ready)
        try:
            result = ready.recv()
        except EOFError:
            process.join()
            result = RuntimeError(f"its process ended with status {process.exitcode}")
        process.join()
        if isinstance(result, DeviceLost) and len(self._devices) > 1:
            self._devices.remove(device)
        else:
            self._free.append(device)
        if isinstance(result, BaseException) and not isinstance(result, FAULTS):
            raise result
        return name, result


class DeviceLost(RuntimeError):
    """A GPU that computed before does not any more."""


class _Relay(logging.Handler):
    """Give a record to the logger of its name in this process, with whatever handlers stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


class _Named(QueueHandler):
    """Send records that begin with the name of the call."""

    def __init__(self, lines: Any, name: str) -> None:  # noqa: ANN401  a queue of multiprocessing
        super().__init__(lines)
        self._name_of_call = name

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        prepared = super().prepare(record)
        prepared.msg = prepared.message = f"{self._name_of_call}: {prepared.msg}"
        return prepared


def _visible_name(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[device.index] if names else str(device.index)


def _work(
    results: Connection,
    lines: Any,  # noqa: ANN401  a queue of multiprocessing
    name: str,
    level: int,
    visible: str,
    kind: str,
    threads: int,
    function: Callable[..., Any],
    arguments: tuple,
) -> None:
    die_with_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = visible  # read when the first GPU is asked for, which is later
    torch.set_num_threads(threads)
    logger = logging.getLogger("questlib")
    logger.addHandler(_Named(lines, name))
    logger.setLevel(level)
    logger.propagate = False
    try:
        if pick_device().type != kind:
            raise DeviceLost(f"GPU {visible} has disappeared, or does not compute any more")
        result = function(*arguments)
    except KeyboardInterrupt:  # told to the parent too
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # whatever it is, it is told where the call was made
        error.add_note(traceback.format_exc())
        result = error
    results.send(result)
    results.close()
