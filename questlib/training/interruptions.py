"""SIGINT and SIGTERM while a model is trained: the step in progress ends first, so that its state can be kept."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruptions:
    """Within it, a signal waits for the end of a step; where there is none it is raised at once. More add nothing.

    SIGINT is raised as a KeyboardInterrupt, SIGTERM as a SystemExit with its status. In a thread it does nothing,
    because Python hands signals to the main thread alone.

    Attributes:
        is_in_step: Set by the training: whether its state is that of no step.
    """

    def __init__(self) -> None:
        self.is_in_step = False
        self._waiting: int | None = None
        self._is_raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._handle) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_waiting(self) -> None:
        """Raise what came during the step that has just ended."""
        if self._waiting is not None and not self._is_raised:
            self._is_raised = True
            raise KeyboardInterrupt if self._waiting == signal.SIGINT else SystemExit(128 + self._waiting)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._waiting = number if self._waiting is None else self._waiting
        if not self.is_in_step:
            self.raise_waiting()
