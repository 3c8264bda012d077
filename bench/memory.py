"""How much memory a training holds at most, each in a process of its own (Linux).

python bench/memory.py --data FOLDER --side ours --rows 1000    prints MiB
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from affordable import BASE, LORA, N_FROZEN, QLORA, as_pairs, build_pairs
from sides import BATCH_SIZE, FULL, SeedModel, Setting, choose_rows
from table import Row

from questlib.pretrained import find_encoder
from questlib.training.states import hold_states

_N_STEPS = 24  # enough to meet a batch of the longest rows
_BASE_SIDES = {"whole": FULL, "lora": LORA, "qlora": QLORA, "frozen": FULL}


def measure_memory(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train some steps of either side."""
    peaks = {f"{side} MiB": _measure_peak(side, setting.data, n_rows=1_000) for side in ("baseline", "ours")}
    yield Row("peak memory of training", peaks["ours MiB"] / peaks["baseline MiB"], 1, "x", peaks, at_most=True)
    large = _measure_peak("ours", setting.data, n_rows=20_000)
    yield Row("peak, 20,000 rows to 1,000", large / peaks["ours MiB"], 1.1, "x", {"MiB": large}, at_most=True)


def measure_base_memory(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train some steps of a base-size encoder: whole, by low-rank additions, and above frozen layers."""
    peaks = {f"{side} GiB": _measure_peak(side, setting.data, n_rows=400) / 1024 for side in _BASE_SIDES}
    yield Row(f"{BASE}, {N_FROZEN} layers frozen, GiB", peaks["frozen GiB"], 6, "", peaks, at_most=True)
    for side in ("lora", "qlora"):
        yield Row(f"{BASE}, {side} to whole, memory", peaks[f"{side} GiB"] / peaks["whole GiB"], None, "x", {})


def _measure_peak(side: str, data: str, *, n_rows: int) -> float:
    command = [sys.executable, __file__, "--data", data, "--side", side, "--rows", str(n_rows)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _train_some_steps(side: str, data: str, *, n_rows: int, folder: Path) -> None:
    setting = Setting(data, folder, n_rows=n_rows)
    if side == "baseline":  # every batch of it is as long as can be
        setting.train_seed(SeedModel(setting.encoder), setting.rows, epochs=3 * BATCH_SIZE / n_rows)
        return
    epochs = _N_STEPS * BATCH_SIZE / n_rows
    if side == "ours":
        setting.train_ours(setting.build(), setting.rows, replace(FULL, epochs=epochs), folder=folder)
        return
    base = as_pairs(setting, folder, encoder=find_encoder(BASE))
    rows, model = choose_rows(base.rows, range(n_rows)), build_pairs(base, freeze_layers=N_FROZEN * (side == "frozen"))
    if side == "frozen":
        rows = hold_states(model, rows, base.collator, batch_size=2 * BATCH_SIZE, precision=base.precision)
    base.train_ours(model, rows, replace(_BASE_SIDES[side], epochs=epochs), folder=folder)


def _read_peak() -> float:
    # Not getrusage: a process begins with the peak of the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def main() -> None:
    """Be a process that trains, and print its peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--side", choices=("baseline", "ours", *_BASE_SIDES), required=True)
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _train_some_steps(arguments.side, arguments.data, n_rows=arguments.rows, folder=Path(folder))
    sys.stdout.write(f"{_read_peak()}\n")


if __name__ == "__main__":
    main()
