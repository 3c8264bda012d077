"""On a CPU, every core computes rows of its own, so that none waits for another after each operation."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

Part = TypeVar("Part")
Result = TypeVar("Result")


def count_cores(device: torch.device) -> int:
    """Tell how many parts a device computes side by side: the threads torch may use on a CPU, else 1."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def map_on_cores(work: Callable[[Part], Result], parts: Sequence[Part], *, device: torch.device) -> Iterator[Result]:
    """Do some work on each part, as many at once as the device has cores, with one thread each.

    Modes that torch keeps per thread, such as `inference_mode` and `autocast`, must be entered in the work itself.

    Yields:
        The results in order, each as soon as it and those before it are there.
    """
    n_cores = count_cores(device)
    if n_cores == 1:
        yield from map(work, parts)
        return

    def compute(part: Part) -> Result:
        torch.set_num_threads(1)  # anew for each part: some of what it sets holds for all threads
        return work(part)

    try:
        torch.set_num_threads(1)  # for whoever takes the results while others are computed
        yield from _start_threads(n_cores).map(compute, parts)
    finally:
        torch.set_num_threads(n_cores)


@cache  # threads that stay keep the memory that they have allocated, and take it faster the next time
def _start_threads(n_cores: int) -> ThreadPoolExecutor:
    _keep_freed_memory()
    return ThreadPoolExecutor(n_cores)


def _keep_freed_memory() -> None:
    # Every step asks for as much again. Given back in between, it comes in pages that the system clears one by one.
    set_option = _find_in_libc("mallopt")
    if set_option is not None:
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
        set_option(_M_MMAP_THRESHOLD, 2**25)  # the greatest it takes


def give_freed_memory_back() -> None:
    """Give back what map_on_cores keeps: batches differ, and what is left between them grows from one to the next."""
    trim = _find_in_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _find_in_libc(name: str) -> Callable[..., int] | None:
    # glibc has it; others keep their own ways, and elsewhere there may be no C library to ask.
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


class OwnDropout(TorchFunctionMode):
    """Within it, dropout draws from a generator of its own: what one thread drops does not hang on the others.

    It draws four numbers at a time, in half the time that torch takes for one. Dropout inside a fused kernel is left as
    it is.

    Args:
        seed: Seeds the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = np.random.PCG64DXSM(seed)

    def __torch_function__(
        self, function: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever the function returns
        """Take dropout's place and let all else pass."""
        if function is functional.dropout:
            return self._drop(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _drop(self, states: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        if not training or not p:
            return states
        draws = torch.from_numpy(self._generator.random_raw(-(-states.numel() // 4)).view(np.int16))
        n_dropped = round(p * 2**16)  # of the values that 16 bits take
        # In place and in 16 bits: torch turns truth values into numbers five times as slowly.
        kept = draws[: states.numel()].ge_(n_dropped - 2**15).view(states.shape).to(states.dtype)
        return states * kept.mul_(2**16 / (2**16 - n_dropped))
