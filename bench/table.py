"""A table of what was measured, with targets; and the machine it was measured on."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from questlib.devices import pick_device, pick_precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Row:
    """A line of the table; one without a target is shown for itself."""

    what: str
    value: float
    target: float | None
    unit: str
    details: dict[str, float]
    at_most: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the target is met."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """Show it."""
        bound = "" if self.target is None else f"{'at most' if self.at_most else 'at least'} {self.target:g}"
        verdict = {True: "holds", False: "MISSED", None: ""}[self.holds]
        told = ", ".join(f"{name} {number:.4g}" for name, number in self.details.items())
        return f"{self.what:<42} {self.value:9.4g} {self.unit:<2} {bound:<14} {verdict:<7} {told}"


def alternate(sides: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Time the sides in turn, and give the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
            sys.stderr.write(f"  {name}, round {number + 1}: {seconds[name][-1]:.4f} s\n")
    return {name: float(np.median(values)) for name, values in seconds.items()}


def rates(n_rows: int, seconds: dict[str, float]) -> dict[str, float]:
    """Turn seconds into rows a second."""
    return {f"{name} rows/s": n_rows / each for name, each in seconds.items()}


def measure_products(precision: str, device: torch.device) -> float:
    """Measure the machine's best FLOP/s in matrix products of one precision."""
    best = 0.0
    for width in (512, 1024, 2048) if device.type == "cpu" else (4096, 8192):
        left, right = (torch.randn(width, width, device=device).to(_DTYPES[precision]) for _ in range(2))
        for _ in range(8):
            start = time.perf_counter()
            product = left @ right
            float(product[0, 0])  # waits for a GPU
            best = max(best, 2 * width**3 / (time.perf_counter() - start))
    return best


def name_device(device: torch.device) -> str:
    """Name the GPU, or say that it is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def describe_machine() -> dict:
    """Say what the figures were measured on (Linux)."""
    device = pick_device()
    precision = pick_precision("auto", device)
    processors = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "device": name_device(device),
        "processor": processors[0] if processors else "unknown",
        "threads": torch.get_num_threads(),
        "memory GiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "precision": precision,
        "GFLOP/s of products": {each: round(measure_products(each, device) / 1e9) for each in ("fp32", precision)},
        "torch": torch.__version__,
    }
