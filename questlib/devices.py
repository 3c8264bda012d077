"""Which device computes, and in which precision, decided by running a real operation on it."""

import logging
import platform
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import islice

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from questlib.checks import refuse_unknown
from questlib.processes import find_launched
from questlib.recipe import PRECISIONS

logger = logging.getLogger(__name__)


def pick_device() -> torch.device:
    """Pick the first GPU that really computes, else the CPU; of the processes of a launcher, each picks its own.

    A GPU whose architecture this torch has no kernels for is passed over with a warning.
    """
    own = find_launched().local_rank
    return next(islice(_find_gpus(), own, None), torch.device("cpu"))


def pick_devices() -> list[torch.device]:
    """Pick all GPUs that really compute, else the CPU."""
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
    """Decide what to train in: what is requested if the device can; for "auto" native "bf16", else a GPU's "fp16"."""
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


@cache  # one answer for a process
def _cpu_has_bf16() -> bool:
    # By what the processor says, not by timing it: the answer must not hang on what else it does. A format that is only
    # emulated is slower than 32 bits. torch has no public name for these yet.
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_precision(trained: str, device: torch.device) -> str:
    """Decide what a trained model predicts in: what it was trained in or, and that is said, what the device has."""
    if trained == "fp32":
        return trained
    own = pick_precision("auto", device)
    # A GPU that has bf16 has fp16 too; no CPU computes in fp16.
    if trained == own or (trained == "fp16" and device.type == "cuda"):
        return trained
    logger.warning(
        "trained in %s, which %s does not have: predicts in %s, and may differ a little", trained, device, own
    )
    return own


def attention_of_any_shape(device: torch.device) -> AbstractContextManager[None]:
    """Within it, a GPU's attention takes a batch of a new shape as fast as one of a shape it has met.

    The newest GPUs are given cuDNN's by torch, which plans a tenth of a second for every new shape, and almost every
    batch has one. On an H200, 960 rows of two passes took MPNet 12 to 21 s with it and 3.7 s without; the same rows
    once more, 2.4 and 2.8 s.
    """
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(others) if device.type == "cuda" else nullcontext()


@contextmanager
def narrowed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let 32-bit parameters be bf16 for a while: they are turned into it once, and not by each part of a batch."""
    kept = [(parameter, parameter.data) for parameter in parameters]
    try:
        for parameter, data in kept:
            parameter.data = data.to(torch.bfloat16)
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
