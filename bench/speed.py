"""Compare the speed of training, prediction and the metric with the baseline's, side by side.

    python bench/speed.py --data FOLDER --results FOLDER

The baseline is the seed's loop, written from its description: every row padded to 512 tokens, 32 bits on a CPU and fp16
on a GPU, the body run in every epoch of a head-only stage. Both sides alternate, in one process, on the
same rows with the same encoder; medians of the rounds. Memory is the peak of a process of its own (Linux).
"""

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import (
    AutoModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)

from questlib.artifacts import write_json
from questlib.batches import PassCollator, QuestRows
from questlib.data import assign_folds, question_of, read_tables
from questlib.devices import pick_device, pick_precision
from questlib.inference import predict
from questlib.metrics import mean_spearman, score_predictions
from questlib.model import QuestModel
from questlib.pretrained import find_encoder
from questlib.schema import TARGETS, TEXT_COLUMNS
from questlib.text import TextLayout, encode_passes, load_tokenizer
from questlib.training import Stage, TrainingSettings, fit_stages

N_TOKENS, BATCH_SIZE, N_METADATA = 512, 16, 8
# Rows of the epoch after which both are scored: the baseline takes 23 minutes for them on 2 cores, an hour for all.
SCORED_AFTER = 1_600
FULL = Stage(name="full", trainable=("*",), epochs=1, learning_rate=4e-5, head_learning_rate=1e-3)
HEAD = replace(FULL, name="head", trainable=("head.*",), epochs=20)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: float
    target: float
    unit: str
    details: dict[str, float]
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """Show it."""
        bound, verdict = "at most" if self.at_most else "at least", "holds" if self.holds else "MISSED"
        told = ", ".join(f"{name} {number:.4g}" for name, number in self.details.items())
        return f"{self.what:<42} {self.value:9.4g} {self.unit:<2} {bound:<8} {self.target:<6g} {verdict:<7} {told}"


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
        self.data, self.folder, self.encoder = data, folder, find_encoder("all-MiniLM-L6-v2")
        self.tables = read_tables(data)
        self.frame = self.tables.train.sample(n_rows, random_state=0, replace=n_rows > len(self.tables.train))
        self.tokenizer = load_tokenizer(self.encoder)
        self.layout = TextLayout(layout="joint", max_length=N_TOKENS)
        self.rows = self.tokenize(folder, self.frame)
        self.collator = PassCollator(pad_token_id=self.tokenizer.pad_token_id)
        self.device = pick_device()
        self.precision = pick_precision("auto", self.device)

    def tokenize(self, folder: Path, frame: pd.DataFrame) -> QuestRows:
        """Tokenise, or find the passes again."""
        passes = encode_passes(frame, self.tokenizer, self.layout, cache_folder=folder)
        return QuestRows(
            passes, np.zeros((len(frame), N_METADATA), np.float32), targets=frame[list(TARGETS)].to_numpy()
        )

    def texts(self, n_rows: int) -> list[str]:
        """Join title, body and answer of the first rows."""
        return self.frame[list(TEXT_COLUMNS)].iloc[:n_rows].agg(" ".join, axis=1).tolist()

    def choose(self, n_rows: int, *, start: int = 0) -> QuestRows:
        """Take some rows."""
        chosen = np.arange(start, start + n_rows)
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
        optimizer = torch.optim.AdamW(
            [
                {"params": model.body.parameters(), "lr": FULL.learning_rate},
                {"params": model.head.parameters(), "lr": FULL.head_learning_rate},
            ]
        )
        n_steps = max(1, round(len(rows) * epochs / BATCH_SIZE))
        schedule = get_linear_schedule_with_warmup(optimizer, 0, n_steps)
        trainer = Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=self.pad, optimizers=(optimizer, schedule)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def train_ours(self, model: QuestModel, rows: QuestRows, stage: Stage, *, folder: Path) -> None:
        """Train as the library."""
        fit_stages(
            model, [stage], train_rows=rows, stop_rows=None, collator=self.collator, folder=folder, cache_folder=folder,
            settings=TrainingSettings(batch_size=BATCH_SIZE),
        )  # fmt: skip

    def predict_seed(self, model: SeedModel, rows: QuestRows) -> np.ndarray:
        """Predict as the baseline."""
        model.eval()
        predictions = []
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH_SIZE):
                batch = self.pad([rows[row] for row in range(start, min(start + BATCH_SIZE, len(rows)))])
                given = {name: tensor.to(self.device) for name, tensor in batch.items() if name != "labels"}
                predictions.append(torch.sigmoid(model(**given)["logits"].double()).cpu().numpy())
        return np.concatenate(predictions)


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
    """Count what one forward pass computes: the layers' matrices over every token, attention over every pair of tokens.

    The last layer reads every token, for the first alone: of its matrices, those of query, key and value meet them all.
    """
    layers = model.body.encoder.layer
    *others, last = (sum(each.numel() for each in layer.parameters() if each.ndim == 2) for layer in layers)
    width = model.body.config.hidden_size
    reading = 3 * width**2
    matrices = (sum(others) + reading) * lengths + last - reading
    pairs = len(others) * lengths**2 + lengths
    return float((2 * matrices + 4 * width * pairs).sum())


def measure_peak(side: str, data: str, *, n_rows: int) -> float:
    """Train some steps in a process of its own and give its peak memory in MiB."""
    command = [sys.executable, __file__, "--data", data, "--peak", side, "--rows", str(n_rows), "--results", ""]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def train_some_steps(side: str, data: str, *, n_rows: int) -> float:
    """Be that process."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(data, Path(folder), n_rows=n_rows)
        # Every batch of the baseline is as long as can be; ours needs a few steps to meet such a batch.
        epochs = (3 if side == "baseline" else 24) * BATCH_SIZE / n_rows
        if side == "baseline":
            setting.train_seed(SeedModel(setting.encoder), setting.rows, epochs=epochs)
        else:
            setting.train_ours(setting.build(), setting.rows, replace(FULL, epochs=epochs), folder=Path(folder))
    # Not getrusage: a process begins with the peak of the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measure_training(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train an epoch of 96 rows, and count what the machine could have done in that time."""
    ours, seed, rows = setting.build(), SeedModel(setting.encoder), setting.choose(96)
    setting.train_seed(seed, setting.choose(32), epochs=1)  # warm-up
    setting.train_ours(ours, setting.choose(32), FULL, folder=folder)
    seconds = alternate(
        {
            "baseline": lambda: setting.train_seed(seed, rows, epochs=1),
            "ours": lambda: setting.train_ours(ours, rows, FULL, folder=folder),
        },
        rounds=3,
    )
    rates = {f"{name} rows/s": len(rows) / each for name, each in seconds.items()}
    yield Row("training", seconds["baseline"] / seconds["ours"], 5, "x", rates)
    machine = measure_products(setting.precision, setting.device)
    reached = 3 * count_flops(ours, rows.lengths) / seconds["ours"]
    share = {"model GFLOP/s": reached / 1e9, "products GFLOP/s": machine / 1e9}
    yield Row("FLOP/s of training to products", 100 * reached / machine, 55 if is_cpu(setting) else 50, "%", share)


def measure_prediction(setting: Setting, folder: Path) -> Iterator[Row]:
    """Predict 96 rows; then tokenise and predict them, beside sentence-transformers; then compare with 32 bits."""
    ours, seed = setting.build().to(setting.device), SeedModel(setting.encoder).to(setting.device)
    rows, texts = setting.choose(96), setting.texts(96)
    theirs = SentenceTransformer(str(setting.encoder), device=setting.device.type, local_files_only=True)
    theirs.max_seq_length = N_TOKENS
    fresh = iter(folder / f"fresh-{number}" for number in range(100))

    def predict_ours(rows: QuestRows = rows, precision: str = setting.precision) -> np.ndarray:
        return predict(ours, rows, setting.collator, batch_size=2 * BATCH_SIZE, precision=precision)

    def read_and_predict() -> None:
        predict_ours(setting.tokenize(next(fresh), setting.frame.iloc[:96]))

    sides = {
        "baseline": lambda: setting.predict_seed(seed, rows),
        "ours": predict_ours,
        "sentence-transformers": lambda: theirs.encode(texts, batch_size=2 * BATCH_SIZE, show_progress_bar=False),
        "ours from text": read_and_predict,
    }
    alternate(sides, rounds=1)  # warm-up
    seconds = alternate(sides, rounds=5)
    rates = {f"{name} rows/s": len(rows) / each for name, each in seconds.items()}
    yield Row("prediction", seconds["baseline"] / seconds["ours"], 3, "x", rates)
    yield Row(
        "prediction, to sentence-transformers", seconds["sentence-transformers"] / seconds["ours from text"], 2, "x", {}
    )
    setting.train_ours(ours, setting.choose(400), FULL, folder=folder)  # an untrained head's order is chance
    some = setting.choose(500, start=400)
    wide, narrow = (predict_ours(some, precision) for precision in ("fp32", setting.precision))
    yield Row(
        "predictions to fp32, greatest difference", float(np.abs(wide - narrow).max()), 0.01, "", {}, at_most=True
    )
    scores = {"fp32": mean_spearman(wide, some.targets), setting.precision: mean_spearman(narrow, some.targets)}
    difference = abs(scores["fp32"] - scores[setting.precision])
    yield Row("score to fp32, difference", difference, 0.001, "", scores, at_most=True)


def measure_head(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train the head alone for 20 epochs of 32 rows, nothing cached before."""
    ours, seed, rows = setting.build(), SeedModel(setting.encoder), setting.choose(32)
    for parameter in seed.body.parameters():
        parameter.requires_grad_(False)
    fresh = iter(folder / f"cache-{number}" for number in range(2))
    seconds = alternate(
        {
            "baseline": lambda: setting.train_seed(seed, rows, epochs=20),
            "ours": lambda: setting.train_ours(ours, rows, HEAD, folder=next(fresh)),
        },
        rounds=2,
    )
    yield Row("head-only stage, 20 epochs", seconds["baseline"] / seconds["ours"], 10, "x", seconds)


def measure_metric(setting: Setting, folder: Path) -> Iterator[Row]:
    """Score a table of the competition's size."""
    generator = np.random.default_rng(0)
    predictions, targets = generator.random((6_079, 30)), generator.integers(0, 9, (6_079, 30)) / 8

    def loop() -> float:
        return float(np.mean([spearmanr(predictions[:, i], targets[:, i]).statistic for i in range(30)]))

    seconds = alternate({"baseline": loop, "ours": lambda: mean_spearman(predictions, targets)}, rounds=9)
    yield Row("mean_spearman, 6,079 x 30", seconds["baseline"] / seconds["ours"], 10, "x", seconds)
    difference = abs(loop() - mean_spearman(predictions, targets))
    yield Row("mean_spearman to scipy, difference", difference, 1e-12, "", {}, at_most=True)


def measure_tokenising(setting: Setting, folder: Path) -> Iterator[Row]:
    """Tokenise every labelled row, then find them again."""
    frame, fresh = setting.tables.train, folder / "again"
    first = alternate({"first": lambda: setting.tokenize(fresh, frame)}, rounds=1)["first"]
    second = alternate({"second": lambda: setting.tokenize(fresh, frame)}, rounds=3)["second"]
    yield Row(f"tokenising {len(frame):,} rows again", first / second, 20, "x", {"first": first, "second": second})


def measure_memory(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train some steps in processes of their own."""
    peaks = {f"{side} MiB": measure_peak(side, setting.data, n_rows=1_000) for side in ("baseline", "ours")}
    yield Row("peak memory of training", peaks["ours MiB"] / peaks["baseline MiB"], 1, "x", peaks, at_most=True)
    large = measure_peak("ours", setting.data, n_rows=20_000)
    yield Row("peak, 20,000 rows to 1,000", large / peaks["ours MiB"], 1.1, "x", {"MiB": large}, at_most=True)


def measure_score(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train both for an epoch of rows from four folds of five with the same learning rates, and score the fifth."""
    frame = setting.tables.train
    questions = question_of(frame)
    fold_of_row = assign_folds(questions, split="question", folds=5, seed=0)
    trained, scored = np.flatnonzero(fold_of_row != 0)[:SCORED_AFTER], np.flatnonzero(fold_of_row == 0)
    rows = setting.tokenize(folder, frame)
    known, unseen = (
        QuestRows(rows.passes, rows.metadata[each], targets=rows.targets[each], rows=each) for each in (trained, scored)
    )
    set_seed(0)
    seed, ours = SeedModel(setting.encoder), setting.build()
    with torch.no_grad():  # both begin with the same head
        ours.head.outputs[0][1].weight.copy_(seed.head[1].weight)
        ours.head.outputs[0][1].bias.copy_(seed.head[1].bias)
    setting.train_ours(ours, known, FULL, folder=folder)
    setting.train_seed(seed, known, epochs=1)
    predictions = {
        "ours": predict(ours, unseen, setting.collator, batch_size=2 * BATCH_SIZE, precision=setting.precision),
        "baseline": setting.predict_seed(seed, unseen),
    }
    scores = {
        name: score_predictions(each, unseen.targets, questions=questions[scored])["mean_without_rare"]
        for name, each in predictions.items()
    }
    lost = scores["baseline"] - scores["ours"]
    yield Row(f"score lost, an epoch of {len(known):,} rows", lost, 0.003, "", scores, at_most=True)


MEASURES = {
    "training": measure_training,
    "prediction": measure_prediction,
    "head": measure_head,
    "metric": measure_metric,
    "tokenising": measure_tokenising,
    "memory": measure_memory,
    "score": measure_score,
}


def is_cpu(setting: Setting) -> bool:
    """Tell whether a CPU computes."""
    return setting.device.type == "cpu"


def print_line(line: str) -> None:
    """Show a line at once, for the whole takes long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def describe_machine() -> dict:
    """Say what the figures were measured on."""
    device = pick_device()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": pick_precision("auto", device),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure and show; the file has every row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--results", type=Path, required=True, help="folder for <device>.json")
    parser.add_argument("--only", choices=MEASURES, nargs="+", default=list(MEASURES), help="measure these again")
    parser.add_argument("--peak", choices=("baseline", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if arguments.peak:
        print_line(str(train_some_steps(arguments.peak, arguments.data, n_rows=arguments.rows)))
        return
    machine = describe_machine()
    print_line(json.dumps(machine))
    path = arguments.results / f"{machine['device'].replace(' ', '-').lower()}.json"
    table = json.loads(path.read_text(encoding="utf-8"))["table"] if path.exists() else {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(arguments.data, Path(folder), n_rows=1_000)
            rows = []
            for row in MEASURES[name](setting, Path(folder)):
                print_line(row.line())
                rows.append(asdict(row) | {"holds": row.holds})
        table[name] = {"machine": machine, "rows": rows}
        write_json(path, {"table": table})


if __name__ == "__main__":
    main()
