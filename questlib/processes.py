"""Processes: which of those that a launcher started this is, and how none outlives the one that started it."""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

_SET_PARENT_DEATH_SIGNAL = 1  # of sys/prctl.h
# Looked up before any process is forked, where little may be done.
_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Of MPI's launchers: accelerate would wait for as many processes.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# What `accelerate launch` hands on, and a run's parameters decide: silently, it would train in another precision, say.
_DECIDED = ("MIXED_PRECISION", "DYNAMO_BACKEND", "USE_FSDP", "USE_DEEPSPEED", "USE_MEGATRON_LM", "TORCH_DEVICE")
_ACCELERATE = "ACCELERATE_"
_NOTHING = ("no", "n", "false", "f", "off", "0")


@dataclass(frozen=True, kw_only=True)
class Launched:
    """One of the processes that a launcher started to train each fold together; the only one where there is none."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    by_launcher: bool = False


def find_launched() -> Launched:
    """Tell which process this is, by the variables that launchers set.

    Raises:
        RuntimeError: If they do not agree, as when a few are left over in a shell, or ask for what parameters decide.
    """
    launched = _read_launched()
    left = {name: os.environ[name] for name in _SIZES if os.environ.get(name, str(launched.size)) != str(launched.size)}
    for name, value in os.environ.items():
        decides = name.removeprefix(_ACCELERATE) in _DECIDED and value.lower() not in _NOTHING
        if name.startswith(_ACCELERATE) and (decides or not value):
            left[name] = value
    if left:
        told = ", ".join(f"{name}={value!r}" for name, value in left.items())
        raise RuntimeError(
            f"a launcher's variables must not change how a run trains, which its parameters decide, however {told}; "
            "unset them"
        )
    return launched


def _read_launched() -> Launched:
    given = {name: os.environ[name] for name in _LAUNCHED if name in os.environ}
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(given):
        return Launched()
    told = ", ".join(f"{name}={value!r}" for name, value in given.items())
    missing = [name for name in _LAUNCHED if not given.get(name)]
    fault = f"{missing} are missing or empty" if missing else ""
    try:
        rank, local_rank, size = (int(given.get(name, "")) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        if not fault and not 0 <= local_rank <= rank < size:
            fault = "they contradict one another"
    except ValueError:
        fault = fault or "they are no numbers"
    if fault:
        raise RuntimeError(
            f"a launcher's variables must all be set, or none, however {told}, and {fault}; unset them, or start this "
            "with a launcher"
        )
    return Launched(rank=rank, local_rank=local_rank, size=size, by_launcher=True)


def die_with_parent() -> None:
    """Let this process be killed at once when its parent ends, however that ends; on Linux alone."""
    if _LIBRARY is not None:
        _LIBRARY.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
