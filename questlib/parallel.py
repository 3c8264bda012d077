"""Independent work on several devices at once: one process per device, all log lines in one place."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.queues import Queue
from typing import Any

import torch


def run_on_devices(
    function: Callable[..., Any], arguments: Mapping[str, tuple], *, devices: Sequence[torch.device]
) -> Iterator[Any]:
    """Call a function several times, as many calls at once as there are devices; results come in order.

    A process sees one device alone, so `questlib.devices.pick_device` finds it there. Several CPUs share the threads.

    Args:
        function: Of an importable module, because processes start afresh.
        arguments: What it is called with, by the name that begins the call's log lines.
        devices: One process each; a device may be named twice.
    """
    if min(len(devices), len(arguments)) == 1:
        yield from (function(*each) for each in arguments.values())
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    lines, free = context.Queue(), context.Queue()
    for device in devices:
        free.put(_visible_name(device))
    threads = max(1, torch.get_num_threads() // len(devices))
    listener = QueueListener(lines, _Relay())
    listener.start()
    try:
        with ProcessPoolExecutor(
            max_workers=min(len(devices), len(arguments)),
            mp_context=context,
            initializer=_start_process,
            initargs=(free, lines, logging.getLogger("questlib").getEffectiveLevel(), threads),
        ) as pool:
            calls = [pool.submit(_call, name, function, each) for name, each in arguments.items()]
            try:
                yield from (call.result() for call in calls)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what has begun ends; what waits is not begun
                raise
    finally:
        listener.stop()


class _Relay(logging.Handler):
    """Give a record to the logger of its name in this process, with whatever handlers stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


class _Named(QueueHandler):
    """Send records that begin with the name of the call."""

    name_of_call = ""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        prepared = super().prepare(record)
        prepared.msg = prepared.message = f"{self.name_of_call}: {prepared.msg}"
        return prepared


def _visible_name(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[device.index] if names else str(device.index)


def _start_process(free: "Queue[str]", lines: "Queue[logging.LogRecord]", level: int, threads: int) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = free.get()  # read when the first GPU is asked for, which is later
    torch.set_num_threads(threads)
    logger = logging.getLogger("questlib")
    logger.addHandler(_Named(lines))
    logger.setLevel(level)
    logger.propagate = False


def _call(name: str, function: Callable[..., Any], arguments: tuple) -> Any:  # noqa: ANN401  whatever it returns
    (handler,) = logging.getLogger("questlib").handlers
    assert isinstance(handler, _Named)
    handler.name_of_call = name
    return function(*arguments)
