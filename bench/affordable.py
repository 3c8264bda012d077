"""What makes a base-size encoder affordable on a CPU: frozen layers, a question read once, and other work beside it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from sides import BATCH_SIZE, FULL, Setting, choose_rows
from table import Row, alternate, rates

from questlib.model import QuestModel
from questlib.pretrained import find_encoder
from questlib.recipe import TextLayout
from questlib.stage import LoraStage
from questlib.training.states import hold_states

BASE, N_FROZEN, N_LABELLED = "all-mpnet-base-v2", 6, 4_863
LORA = LoraStage(name="lora", trainable=("head.*",), epochs=1, learning_rate=4e-4, head_learning_rate=1e-3)
QLORA = replace(LORA, name="qlora", quantize=True)
_BUSY = "while True: pass"


def measure_base(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train 48 rows of pairs of 256 tokens: whole, above frozen layers, and by low-rank additions."""
    base = as_pairs(setting, folder, encoder=find_encoder(BASE))
    rows = choose_rows(base.rows, range(48))
    whole, upper = build_pairs(base), build_pairs(base, freeze_layers=N_FROZEN)
    states = hold_states(upper, rows, base.collator, batch_size=2 * BATCH_SIZE, precision=base.precision)
    sides = {
        "whole": lambda: base.train_ours(whole, rows, FULL, folder=folder),
        "frozen": lambda: base.train_ours(upper, states, FULL, folder=folder),
        "lora": lambda: base.train_ours(whole, rows, LORA, folder=folder),
        "qlora": lambda: base.train_ours(whole, rows, QLORA, folder=folder),
        "lower half, read once": lambda: hold_states(
            upper, rows, base.collator, batch_size=2 * BATCH_SIZE, precision=base.precision
        ),
    }
    alternate(sides, rounds=1)  # warm-up
    seconds = alternate(sides, rounds=3)
    yield Row(f"{BASE}, {N_FROZEN} layers frozen", seconds["whole"] / seconds["frozen"], 2, "x", rates(48, seconds))
    for side in ("lora", "qlora"):
        yield Row(f"{BASE}, {side} to whole, rows/s", seconds["whole"] / seconds[side], None, "x", {})
    minutes = {name: N_LABELLED * each / len(rows) / 60 for name, each in seconds.items()}
    yield Row(
        f"a fold-epoch of {N_LABELLED:,} rows, minutes", minutes["frozen"], 16, "", {"whole": minutes["whole"]},
        at_most=True,
    )  # fmt: skip


def measure_shared(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train the answers of some questions, each question's pass read once and anew for every answer."""
    pairs = as_pairs(setting, folder, encoder=setting.encoder)
    asked, counts = np.unique(pairs.rows.first_texts, return_counts=True)
    several = np.flatnonzero(np.isin(pairs.rows.first_texts, asked[counts > 1]))[:96]
    rows = choose_rows(pairs.rows, several)
    anew = choose_rows(pairs.rows, several)
    names = np.arange(2 * len(several)).reshape(-1, 2).tolist()
    anew.passes = anew.passes.remove_columns("texts").add_column("texts", names)
    anew.first_texts = np.arange(len(several))
    model = build_pairs(pairs)
    sides = {
        "anew": lambda: pairs.train_ours(model, anew, FULL, folder=folder),
        "once": lambda: pairs.train_ours(model, rows, FULL, folder=folder),
    }
    alternate(sides, rounds=1)
    seconds = alternate(sides, rounds=3)
    yield Row(
        "questions with several answers, read once", seconds["anew"] / seconds["once"], 1.15, "x", rates(96, seconds)
    )


def measure_busy(setting: Setting, folder: Path) -> Iterator[Row]:
    """Train 96 rows, undisturbed and with one core busy."""
    model, rows = setting.build(), choose_rows(setting.rows, range(96))

    def train_beside() -> None:
        with subprocess.Popen([sys.executable, "-c", _BUSY]) as other:
            try:
                setting.train_ours(model, rows, FULL, folder=folder)
            finally:
                other.kill()

    sides = {"alone": lambda: setting.train_ours(model, rows, FULL, folder=folder), "one core busy": train_beside}
    alternate(sides, rounds=1)
    seconds = alternate(sides, rounds=3)
    yield Row("with one core busy, to alone", seconds["alone"] / seconds["one core busy"], 0.4, "x", rates(96, seconds))


def as_pairs(setting: Setting, folder: Path, *, encoder: Path) -> Setting:
    """Lay the same tables out in pairs of 256 tokens, for another encoder."""
    pairs = Setting(setting.data, folder, n_rows=N_LABELLED, encoder=encoder)
    pairs.layout = TextLayout(layout="pair", max_length=256, head_share=0.67)
    pairs.frame = pairs.tables.train
    pairs.rows = pairs.tokenize(folder, pairs.frame)
    return pairs


def build_pairs(setting: Setting, **options: int) -> QuestModel:
    """Begin with the pretrained body, for pairs."""
    width = setting.rows.metadata.shape[1]
    return QuestModel.from_encoder(setting.encoder, n_kinds=2, metadata_width=width, attention_dropout=0.0, **options)
