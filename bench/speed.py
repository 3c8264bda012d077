"""Compare the speed of training, prediction and the metric with the baseline's, side by side.

    python bench/speed.py --data FOLDER --results FOLDER [--only training metric ...]

The baseline is the seed's loop (bench/sides.py). The sides alternate, in one process, on the same rows with the same
encoder, after a warm-up; medians of the rounds. Memory is the peak of a process of its own (Linux). On a GPU there are
bodies of a kernel's size too (bench/bodies.py).
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from affordable import BASE, measure_base, measure_busy, measure_shared
from bodies import measure_bodies, share_of_products
from memory import measure_base_memory, measure_memory
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sides import BATCH_SIZE, FULL, HEAD, N_TOKENS, SeedModel, Setting, choose_rows
from table import Row, alternate, describe_machine, rates
from transformers import set_seed

from questlib.data import assign_folds, question_of
from questlib.metrics import mean_spearman, score_predictions
from questlib.pretrained import INSTALLED
from questlib.run_folder import write_json


def measure_training(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train an epoch of 96 rows, and count what the machine could have done in that time."""
    ours, seed, rows = setting.build(), SeedModel(setting.encoder), choose_rows(setting.rows, range(96))
    warm = choose_rows(setting.rows, range(32))
    setting.train_seed(seed, warm, epochs=1)
    setting.train_ours(ours, warm, FULL, folder=folder)
    seconds = alternate(
        {
            "baseline": lambda: setting.train_seed(seed, rows, epochs=1),
            "ours": lambda: setting.train_ours(ours, rows, FULL, folder=folder),
        },
        rounds=3,
    )
    yield Row("training", seconds["baseline"] / seconds["ours"], 5, "x", rates(len(rows), seconds))
    yield share_of_products("training", setting, ours, rows.lengths, seconds["ours"])


def measure_prediction(setting: Setting, folder: Path) -> Iterator[Row]:
    """Predict 96 rows; then tokenise and predict them, beside sentence-transformers; then compare with 32 bits."""
    ours, seed = setting.build().to(setting.device), SeedModel(setting.encoder).to(setting.device)
    rows, texts = choose_rows(setting.rows, range(96)), setting.texts(96)
    theirs = SentenceTransformer(str(setting.encoder), device=setting.device.type, local_files_only=True)
    theirs.max_seq_length = N_TOKENS
    fresh = iter(folder / f"fresh-{number}" for number in range(100))

    def read_and_predict() -> None:
        setting.predict_ours(ours, setting.tokenize(next(fresh), setting.frame.iloc[:96]))

    sides = {
        "baseline": lambda: setting.predict_seed(seed, rows),
        "ours": lambda: setting.predict_ours(ours, rows),
        "sentence-transformers": lambda: theirs.encode(texts, batch_size=2 * BATCH_SIZE, show_progress_bar=False),
        "ours from text": read_and_predict,
    }
    alternate(sides, rounds=1)  # warm-up
    seconds = alternate(sides, rounds=5)
    yield Row("prediction", seconds["baseline"] / seconds["ours"], 3, "x", rates(len(rows), seconds))
    yield Row(
        "prediction, to sentence-transformers", seconds["sentence-transformers"] / seconds["ours from text"], 2, "x", {}
    )
    setting.train_ours(ours, choose_rows(setting.rows, range(400)), FULL, folder=folder)  # else its order is chance
    some = choose_rows(setting.rows, range(400, 900))
    wide, narrow = setting.predict_ours(ours, some, precision="fp32"), setting.predict_ours(ours, some)
    yield Row(
        "predictions to fp32, greatest difference", float(np.abs(wide - narrow).max()), 0.01, "", {}, at_most=True
    )
    scores = {"fp32": mean_spearman(wide, some.targets), setting.precision: mean_spearman(narrow, some.targets)}
    difference = abs(scores["fp32"] - scores[setting.precision])
    yield Row("score to fp32, difference", difference, 0.001, "", scores, at_most=True)


def measure_head(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train the head alone for 20 epochs of 32 rows, nothing cached before."""
    ours, seed, rows = setting.build(), SeedModel(setting.encoder), choose_rows(setting.rows, range(32))
    for parameter in seed.body.parameters():
        parameter.requires_grad_(False)
    fresh = iter(folder / f"cache-{number}" for number in range(3))
    setting.train_seed(seed, rows, epochs=1)  # warm-up
    setting.train_ours(ours, rows, replace(HEAD, epochs=1), folder=next(fresh))
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

    sides = {"baseline": loop, "ours": lambda: mean_spearman(predictions, targets)}
    alternate(sides, rounds=1)  # warm-up
    seconds = alternate(sides, rounds=25)
    yield Row("mean_spearman, 6,079 x 30", seconds["baseline"] / seconds["ours"], 10, "x", seconds)
    difference = abs(loop() - mean_spearman(predictions, targets))
    yield Row("mean_spearman to scipy, difference", difference, 1e-12, "", {}, at_most=True)


def measure_tokenising(setting: Setting, folder: Path) -> Iterator[Row]:
    """Tokenise every labelled row, then find them again."""
    frame, fresh = setting.tables.train, folder / "again"
    first = alternate({"first": lambda: setting.tokenize(fresh, frame)}, rounds=1)["first"]
    second = alternate({"second": lambda: setting.tokenize(fresh, frame)}, rounds=3)["second"]
    yield Row(f"tokenising {len(frame):,} rows again", first / second, 20, "x", {"first": first, "second": second})


def measure_score(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train both for an epoch of four folds of five, from the same weights, and score the fifth.

    Longest of all: the baseline takes three quarters of an hour on 2 cores. Another seed moves either score too.
    """
    frame = setting.tables.train
    questions = question_of(frame)
    fold_of_row = assign_folds(questions, split="question", folds=5, seed=0)
    trained, scored = np.flatnonzero(fold_of_row != 0), np.flatnonzero(fold_of_row == 0)
    rows = setting.tokenize(folder, frame)
    known, unseen = choose_rows(rows, trained), choose_rows(rows, scored)
    set_seed(0)
    seed, ours = SeedModel(setting.encoder), setting.build()
    with torch.no_grad():
        ours.head.outputs[0][1].weight.copy_(seed.head[1].weight)
        ours.head.outputs[0][1].bias.copy_(seed.head[1].bias)
    setting.train_ours(ours, known, FULL, folder=folder)
    setting.train_seed(seed, known, epochs=1)
    predictions = {"ours": setting.predict_ours(ours, unseen), "baseline": setting.predict_seed(seed, unseen)}
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
    "shared": measure_shared,
    "busy": measure_busy,
    "base": measure_base,
    "base-memory": measure_base_memory,
    "bodies": measure_bodies,
    "score": measure_score,
}


def print_line(line: str) -> None:
    """Show a line at once, for the whole takes long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and show; the file has every row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--results", type=Path, required=True, help="folder for <device>.json")
    parser.add_argument("--only", choices=MEASURES, nargs="+", help="measure these again; bodies on a CPU only so")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    machine = describe_machine()
    for name, figure in machine.items():
        print_line(f"{name:<42} {figure}")
    path = arguments.results / f"{machine['device'].replace(' ', '-').lower()}.json"
    table = json.loads(path.read_text(encoding="utf-8"))["table"] if path.exists() else {}
    left_out = {"bodies"} if machine["device"] == "cpu" else {"busy", "base", "base-memory"}
    if not (INSTALLED / BASE).is_dir():
        left_out |= {"base", "base-memory"}
    for name in arguments.only or [name for name in MEASURES if name not in left_out]:
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(arguments.data, Path(folder), n_rows=1_000)
            rows = []
            for row in MEASURES[name](setting, Path(folder)):
                print_line(row.line())
                rows.append(asdict(row) | {"holds": row.holds})
        table[name] = {"machine": machine, "rows": rows}
        write_json(path, {"table": table})
    verdicts = [row["holds"] for measured in table.values() for row in measured["rows"] if row["holds"] is not None]
    print_line(f"{sum(verdicts)} of {len(verdicts)} targets hold; {path}")


if __name__ == "__main__":
    main()
