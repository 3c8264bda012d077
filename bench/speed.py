"""Compare the speed of training, prediction and the metric with the baseline's, side by side.

    python bench/speed.py --data FOLDER --json FILE

The baseline is the seed's loop, written from its description: every row padded to 512 tokens, 32 bits on a CPU and fp16
on a GPU, the body run in every epoch of a head-only stage. Both sides alternate, in one process, on the
same rows with the same encoder; medians of the rounds. Memory is the peak of a process of its own.
"""

import argparse
import json
import logging
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import AutoModel, PrinterCallback, Trainer, TrainingArguments

from questlib.artifacts import write_json
from questlib.batches import PassCollator, QuestRows
from questlib.data import read_tables
from questlib.devices import pick_device, pick_precision
from questlib.inference import predict
from questlib.metrics import mean_spearman
from questlib.model import QuestModel
from questlib.pretrained import find_encoder
from questlib.schema import TARGETS
from questlib.text import TextLayout, encode_passes, load_tokenizer
from questlib.training import Stage, TrainingSettings, fit_stages

N_TOKENS, BATCH_SIZE, N_METADATA = 512, 16, 8
FULL = Stage(name="full", trainable=("*",), epochs=1, learning_rate=3e-5, head_learning_rate=1e-3)
HEAD = replace(FULL, name="head", trainable=("head.*",), epochs=20)


class SeedModel(nn.Module):
    """Body, first token ++ metadata, dropout, one linear layer."""

    def __init__(self, encoder: Path) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(encoder, dtype=torch.float32)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(self.body.config.hidden_size + N_METADATA, len(TARGETS)))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, metadata: Tensor, labels: Tensor | None = None
    ) -> dict:
        """Predict a batch."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.head(torch.cat([states[:, 0], metadata], dim=-1))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}


class Setting:
    """Real rows with one encoder, and what both sides do with them."""

    def __init__(self, data: str, folder: Path, *, n_rows: int) -> None:
        self.folder, self.encoder = folder, find_encoder("all-MiniLM-L6-v2")
        self.frame = read_tables(data).train.sample(n_rows, random_state=0, replace=n_rows > 3000)
        self.tokenizer = load_tokenizer(self.encoder)
        self.layout = TextLayout(layout="joint", max_length=N_TOKENS)
        self.rows = self.tokenize(folder)
        self.collator = PassCollator(pad_token_id=self.tokenizer.pad_token_id)
        self.device = pick_device()
        self.precision = pick_precision("auto", self.device)

    def tokenize(self, folder: Path) -> QuestRows:
        """Tokenise, or find the passes again."""
        passes = encode_passes(self.frame, self.tokenizer, self.layout, cache_folder=folder)
        targets = self.frame[list(TARGETS)].to_numpy()
        return QuestRows(passes, np.zeros((len(self.frame), N_METADATA), np.float32), targets=targets)

    def choose(self, n_rows: int) -> QuestRows:
        """Take the first rows."""
        chosen = np.arange(n_rows)
        return QuestRows(self.rows.passes, self.rows.metadata[chosen], targets=self.rows.targets[chosen], rows=chosen)

    def build(self) -> QuestModel:
        """Begin with the pretrained body."""
        return QuestModel.from_encoder(self.encoder, metadata_width=N_METADATA, attention_dropout=0.0)

    def pad(self, items: list[dict]) -> dict[str, Tensor]:
        """Pad every row to the full length, as the baseline does."""
        batch = self.collator(items)
        n_missing = N_TOKENS - batch["input_ids"].shape[1]
        padded = {
            name: nn.functional.pad(batch[name], (0, n_missing), value=value)
            for name, value in (("input_ids", self.tokenizer.pad_token_id), ("attention_mask", 0))
        }
        return padded | {name: batch[name] for name in ("metadata", "labels")}

    def train_seed(self, model: SeedModel, rows: QuestRows, *, epochs: float) -> None:
        """Train as the baseline."""
        arguments = TrainingArguments(
            output_dir=str(self.folder), num_train_epochs=epochs, per_device_train_batch_size=BATCH_SIZE,
            save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False, logging_steps=10_000,
            use_cpu=self.device.type == "cpu", fp16=self.device.type == "cuda", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=self.pad)
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def train_ours(self, model: QuestModel, rows: QuestRows, stage: Stage, *, folder: Path) -> None:
        """Train as the library."""
        fit_stages(
            model, [stage], train_rows=rows, stop_rows=None, collator=self.collator, folder=folder, cache_folder=folder,
            settings=TrainingSettings(batch_size=BATCH_SIZE),
        )  # fmt: skip

    def predict_seed(self, model: SeedModel, rows: QuestRows) -> None:
        """Predict as the baseline."""
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH_SIZE):
                batch = self.pad([rows[row] for row in range(start, min(start + BATCH_SIZE, len(rows)))])
                model(**{name: tensor.to(self.device) for name, tensor in batch.items() if name != "labels"})


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


def measure_products(precision: str, device: torch.device) -> float:
    """Measure the machine's best FLOP/s in matrix products of one precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    best = 0.0
    for width in (512, 1024, 2048):
        left, right = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
        for _ in range(8):
            start = time.perf_counter()
            product = left @ right
            float(product[0, 0])  # waits for a GPU
            best = max(best, 2 * width**3 / (time.perf_counter() - start))
    return best


def count_flops(model: QuestModel, lengths: np.ndarray) -> float:
    """Count one forward pass: the layers' matrices over every token, and attention over every pair of tokens."""
    config = model.body.config
    matrices = sum(each.numel() for name, each in model.body.encoder.named_parameters() if each.ndim == 2)
    pairs = 4 * config.hidden_size * config.num_hidden_layers
    return float((2 * matrices * lengths + pairs * lengths**2).sum())


def measure_peak(side: str, data: str, *, n_rows: int) -> float:
    """Train six steps in a process of its own and give its peak memory in MiB."""
    command = [sys.executable, __file__, "--data", data, "--peak", side, "--rows", str(n_rows)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def train_six_steps(side: str, data: str, *, n_rows: int) -> float:
    """Be that process."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(data, Path(folder), n_rows=n_rows)
        epochs = 6 * BATCH_SIZE / n_rows
        if side == "seed":
            setting.train_seed(SeedModel(setting.encoder), setting.rows, epochs=epochs)
        else:
            setting.train_ours(setting.build(), setting.rows, replace(FULL, epochs=epochs), folder=Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(data: str, folder: Path) -> list[dict]:
    """Measure every row of the table."""
    setting = Setting(data, folder, n_rows=1_000)
    ours, seed = setting.build().to(setting.device), SeedModel(setting.encoder).to(setting.device)
    few, more = setting.choose(32), setting.choose(96)
    table = []

    def add(what: str, value: float, target: float, unit: str, **details: float) -> None:
        holds = value <= target if unit == "of the baseline" else value >= target
        table.append({"what": what, "value": value, "target": target, "unit": unit, "holds": holds} | details)
        bound = "at most" if unit == "of the baseline" else "at least"
        told = ", ".join(f"{name} {number:.4g}" for name, number in details.items())
        print_line(
            f"{what:<34} {value:8.2f} {unit:<16} {bound} {target:<5g} {'holds' if holds else 'MISSED':<7} {told}"
        )

    setting.train_seed(seed, few, epochs=1)  # warm-up
    setting.train_ours(ours, few, FULL, folder=folder)
    seconds = alternate(
        {
            "baseline": lambda: setting.train_seed(seed, more, epochs=1),
            "ours": lambda: setting.train_ours(ours, more, FULL, folder=folder),
        },
        rounds=3,
    )
    rates = {f"{name} rows/s": len(more) / each for name, each in seconds.items()}
    add("training", seconds["baseline"] / seconds["ours"], 5, "x", **rates)
    machine = measure_products(setting.precision, setting.device)
    reached = 3 * count_flops(ours, more.lengths) / seconds["ours"]
    share = {"model GFLOP/s": reached / 1e9, "products GFLOP/s": machine / 1e9}
    add("FLOP/s of training to products", 100 * reached / machine, 55, "%", **share)

    seconds = alternate(
        {
            "baseline": lambda: setting.predict_seed(seed, more),
            "ours": lambda: predict(ours, more, setting.collator, batch_size=32, precision=setting.precision),
        },
        rounds=3,
    )
    rates = {f"{name} rows/s": len(more) / each for name, each in seconds.items()}
    add("prediction", seconds["baseline"] / seconds["ours"], 3, "x", **rates)
    wide, narrow = (
        predict(ours, setting.choose(200), setting.collator, batch_size=32, precision=each)
        for each in ("fp32", setting.precision)
    )
    add("predictions against fp32", float(np.abs(wide - narrow).max()), 0.01, "of the baseline")

    for parameter in seed.body.parameters():
        parameter.requires_grad_(False)
    folders = iter(folder / f"cache-{number}" for number in range(2))
    seconds = alternate(
        {
            "baseline": lambda: setting.train_seed(seed, few, epochs=20),
            "ours": lambda: setting.train_ours(ours, few, HEAD, folder=next(folders)),
        },
        rounds=2,
    )
    add("head-only stage, 20 epochs", seconds["baseline"] / seconds["ours"], 10, "x", **seconds)

    generator = np.random.default_rng(0)
    predictions, targets = generator.random((6_079, 30)), generator.integers(0, 9, (6_079, 30)) / 8

    def loop() -> float:
        return float(np.mean([spearmanr(predictions[:, i], targets[:, i]).statistic for i in range(30)]))

    seconds = alternate({"baseline": loop, "ours": lambda: mean_spearman(predictions, targets)}, rounds=9)
    add("mean_spearman, 6,079 x 30", seconds["baseline"] / seconds["ours"], 10, "x", **seconds)

    whole = Setting(data, folder / "whole", n_rows=3_000)
    fresh = folder / "again"
    first = alternate({"first": lambda: whole.tokenize(fresh)}, rounds=1)["first"]
    second = alternate({"second": lambda: whole.tokenize(fresh)}, rounds=3)["second"]
    add("tokenising 3,000 rows again", first / second, 20, "x", first=first, second=second)

    peaks = {name: measure_peak(name, data, n_rows=1_000) for name in ("seed", "ours")}
    add("peak memory of training", peaks["ours"] / peaks["seed"], 1, "of the baseline", **peaks)
    large = measure_peak("ours", data, n_rows=20_000)
    add("peak, 20,000 rows to 1,000", large / peaks["ours"], 1.1, "of the baseline", MiB=large)
    return table


def print_line(line: str) -> None:
    """Show a line at once, for the whole takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--peak", choices=("seed", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if arguments.peak:
        print_line(str(train_six_steps(arguments.peak, arguments.data, n_rows=arguments.rows)))
        return
    device = pick_device()
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": pick_precision("auto", device),
        "torch": torch.__version__,
    }
    print_line(json.dumps(machine))
    with tempfile.TemporaryDirectory() as folder:
        table = measure(arguments.data, Path(folder))
    if arguments.json:
        write_json(arguments.json, {"machine": machine, "table": table})


if __name__ == "__main__":
    main()
