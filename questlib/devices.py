"""Which device computes, and in which precision, decided by running a real operation on it."""

import logging
import os
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice

import torch

from questlib.config import refuse_unknown

logger = logging.getLogger(__name__)

PRECISIONS: tuple[str, ...] = ("auto", "bf16", "fp16", "fp32")
_PROBE_WIDTH = 512
# A format the processor has natively is 1.5 to 4 times faster; one it emulates is slower than 32 bits.
_NATIVE_SPEEDUP = 1.2


def pick_device() -> torch.device:
    """Pick the first GPU that really computes, else the CPU; of the processes of a launcher, each picks its own.

    Returns:
        A device on which a matrix product has just succeeded. A GPU whose architecture this torch has no kernels for is
        passed over with a warning.
    """
    own = int(os.environ.get("LOCAL_RANK", "0"))
    return next(islice(_find_gpus(), own, None), torch.device("cpu"))


def pick_devices() -> list[torch.device]:
    """Pick all GPUs that really compute, else the CPU.

    Returns:
        At least one device, as `pick_device`.
    """
    return list(_find_gpus()) or [torch.device("cpu")]


def _find_gpus() -> Iterator[torch.device]:
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        try:
            probe = torch.ones(64, 64, device=device)
            computes = float((probe @ probe).sum()) == 64.0**3
        # torch raises the first, and its subclasses, for every fault of a device, the second where it is built without.
        except (RuntimeError, AssertionError) as error:
            logger.warning("GPU %d does not compute and is left out: %s", index, error)
            continue
        if computes:
            yield device


def pick_precision(requested: str, device: torch.device) -> str:
    """Decide what to compute in.

    Args:
        requested: "auto", or what to use if the device can train in it.
        device: Where the model will run.

    Returns:
        "bf16" where it is native, else "fp16" on a GPU, else "fp32".

    Raises:
        ValueError: If the request is unknown.
    """
    refuse_unknown([requested], known=PRECISIONS, what="precision")
    if device.type == "cuda":
        best = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    else:
        best = "bf16" if _cpu_has_bf16() else "fp32"
    if requested == "auto":
        return best
    if requested == "fp16" and device.type != "cuda":
        logger.warning("fp16 was asked for, but a CPU cannot train in it: %s is used", best)
        return best
    return requested


@cache  # one answer for a process: training and prediction must not differ because a probe was disturbed
def _cpu_has_bf16() -> bool:
    return _product_seconds(torch.bfloat16) * _NATIVE_SPEEDUP < _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=dtype)
    matrix @ matrix
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return min(seconds)
