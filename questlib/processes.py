"""Processes that must not outlive the one that started them."""

import ctypes
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # of sys/prctl.h
# Looked up before any process is forked, where little may be done.
_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Let this process be killed at once when its parent ends, however that ends; on Linux alone."""
    if _LIBRARY is not None:
        _LIBRARY.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
