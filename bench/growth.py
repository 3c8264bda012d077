"""Measure how cost grows with rows, tokens and folds, and fit the exponent of each.

    python bench/growth.py --data FOLDER --results FOLDER [--most 1000000]

Synthetic rows have text lengths drawn from the real table's and words of its own; everything else is a real row's.
The exponent is the slope of log seconds over log size for the upper half of the sizes, where fixed costs count least: 1
doubles the cost with the size. A pass grows faster, because every token reads every other.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from transformers import BertConfig

from questlib.clock import Clock
from questlib.data import fill_nulls, read_table, read_tables
from questlib.devices import pick_device, pick_precision
from questlib.folds import train_members
from questlib.metadata import MetadataEncoder
from questlib.metrics import mean_spearman
from questlib.model import QuestConfig, QuestModel
from questlib.pretrained import find_encoder
from questlib.recipe import Recipe, TextLayout, TransformerRecipe
from questlib.run_folder import write_json
from questlib.schema import ID, INPUT_COLUMNS, QUESTION, TARGETS, TEXT_COLUMNS
from questlib.stage import Stage
from questlib.text import encode_passes, load_tokenizer
from questlib.ties import RankTies

LIMIT = 1.1
STAGE = Stage(name="full", trainable=("*",), epochs=1, learning_rate=4e-5, head_learning_rate=1e-3)


def draw_rows(train: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """Draw rows with replacement, each text replaced by words of the same column, as many as some real text has."""
    generator = np.random.default_rng(n_rows)
    frame = train.iloc[generator.integers(0, len(train), n_rows)].reset_index(drop=True)
    frame[ID] = np.arange(n_rows)
    for name in TEXT_COLUMNS:
        texts = [text.split(" ") for text in train[name]]
        words = [word for text in texts for word in text]
        lengths = np.array([len(text) for text in texts])[generator.integers(0, len(texts), n_rows)]
        starts = (generator.random(n_rows) * (len(words) - lengths)).astype(int)
        frame[name] = [" ".join(words[at : at + length]) for at, length in zip(starts, lengths, strict=True)]
    return frame


def timed(function: Callable[..., object], *arguments: object, repeats: int = 3) -> float:
    """Give the least seconds of several calls, or of one that takes long."""
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < 10:
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read(path: Path) -> pd.DataFrame:
    """Read and check a table as a run does."""
    return fill_nulls(read_table(path, columns=(*INPUT_COLUMNS, QUESTION, *TARGETS)))


def tokenise(frame: pd.DataFrame, folder: Path) -> None:
    """Tokenise a table that was not tokenised before."""
    layout = TextLayout(layout="joint", max_length=512)
    encode_passes(frame, load_tokenizer(find_encoder("all-MiniLM-L6-v2")), layout, cache_folder=folder)


def encode_metadata(frame: pd.DataFrame) -> None:
    """Fit the metadata's encoder and use it."""
    MetadataEncoder(use_text_statistics=True).fit(frame).transform(frame)


def tie(predictions: np.ndarray, targets: np.ndarray) -> None:
    """Fit ties and apply them."""
    RankTies().fit(predictions, targets).transform(predictions)


def measure_rows(data: str, sizes: list[int]) -> Iterator[tuple[str, int, float]]:
    """Read and check, encode metadata, tokenise, score and tie tables of several sizes."""
    train = read_tables(data).train
    generator = np.random.default_rng(0)
    for n_rows in sizes:
        frame = draw_rows(train, n_rows)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.csv"
            frame.to_csv(path, index=False)
            yield "reading and checking", n_rows, timed(read, path)
            yield "tokenising", n_rows, timed(tokenise, frame, Path(folder), repeats=1)
        yield "metadata", n_rows, timed(encode_metadata, frame)
        targets = frame[list(TARGETS)].to_numpy(dtype=np.float64)
        predictions = np.clip(targets + generator.normal(0, 0.3, targets.shape), 0, 1)
        yield "mean_spearman", n_rows, timed(mean_spearman, predictions, targets)
        yield "ties", n_rows, timed(tie, predictions, targets, repeats=1)


def measure_tokens(sizes: list[int]) -> Iterator[tuple[str, int, float]]:
    """Train and read 8 passes of one length with a body of MiniLM's shape, random weights."""
    body = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=max(sizes), attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = QuestModel(QuestConfig(body=body.to_diff_dict() | {"model_type": "bert"}))
    device = pick_device()
    model.to(device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(pick_precision("auto", device))
    for n_tokens in sizes:
        ids = torch.randint(5, 20_000, (8, n_tokens), device=device)
        batch = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids),
            "rows": torch.arange(8, device=device), "kinds": torch.zeros(8, dtype=torch.long, device=device),
            "metadata": torch.zeros(8, 0, device=device), "labels": torch.full((8, len(TARGETS)), 0.5, device=device),
        }  # fmt: skip

        train_step(model, batch, dtype)
        yield "training step, tokens of a pass", n_tokens, timed(train_step, model, batch, dtype, repeats=5)


def train_step(model: QuestModel, batch: dict[str, torch.Tensor], dtype: torch.dtype | None) -> None:
    """Go forward and back once."""
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not None):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    loss.item()  # waits for a GPU


def measure_folds(data: str, sizes: list[int]) -> Iterator[tuple[str, int, float]]:
    """Train several folds of few rows, on one device."""
    tables = read_tables(data)
    few = [frame.iloc[:200].reset_index(drop=True) for frame in (tables.train, tables.test, tables.sample_submission)]
    tables = type(tables)(train=few[0], test=few[1], sample_submission=few[2], nulls=tables.nulls)
    for folds in sizes:
        member = TransformerRecipe(
            encoder="all-MiniLM-L6-v2", layout=TextLayout(layout="joint", max_length=128), stages=(STAGE,),
            folds_to_train=folds,
        )  # fmt: skip
        recipe = Recipe(members=(member,), folds=max(sizes))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            train = partial(
                train_members, tables, recipe, run_folder=folder, cache_folder=folder / "cache", clock=Clock(folder),
                devices=[pick_device()],
            )  # fmt: skip
            yield "folds", folds, timed(train, repeats=1)


def fit_exponent(seconds: dict[int, float]) -> float:
    """Fit the slope of log seconds over log size for the upper half of the sizes."""
    sizes = np.array(list(seconds))[-max(2, -(-len(seconds) // 2)) :]
    return float(np.polyfit(np.log(sizes), np.log([seconds[size] for size in sizes]), 1)[0])


def plot(costs: dict[str, dict[int, float]], path: Path) -> None:
    """Draw seconds over size, one line per cost."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, seconds in costs.items():
        axes.loglog(list(seconds), list(seconds.values()), "o-", label=f"{name}: {fit_exponent(seconds):.2f}")
    axes.set(xlabel="rows, tokens or folds", ylabel="seconds", title="How cost grows, and its exponent")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, show, plot and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--results", type=Path, required=True, help="folder for growth.json and growth.png")
    parser.add_argument("--most", type=int, default=1_000_000, help="most rows; a million takes an hour and 16 GB")
    arguments = parser.parse_args()
    mpl.use("agg")
    rows = [size for size in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000) if size <= arguments.most]
    costs: dict[str, dict[int, float]] = {}
    for measured in (
        measure_tokens([128, 256, 512, 1024]),
        measure_folds(arguments.data, [1, 2, 3, 4, 5]),
        measure_rows(arguments.data, rows),
    ):
        for name, size, seconds in measured:
            costs.setdefault(name, {})[size] = seconds
            sys.stdout.write(f"{name:<34} {size:>9,} {seconds:10.4f} s\n")
            sys.stdout.flush()
    arguments.results.mkdir(parents=True, exist_ok=True)
    summary = {name: {"seconds": each, "exponent": fit_exponent(each)} for name, each in costs.items()}
    for name, each in summary.items():
        verdict = "above" if each["exponent"] > LIMIT else "within"
        sys.stdout.write(f"{name:<34} exponent {each['exponent']:.2f}, {verdict} {LIMIT}\n")
    write_json(arguments.results / "growth.json", json.loads(json.dumps(summary)))
    plot(costs, arguments.results / "growth.png")


if __name__ == "__main__":
    main()
