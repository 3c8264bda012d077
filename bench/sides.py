"""The two sides that are compared: the seed's loop, written from its description, and the library.

The seed pads every row to 512 tokens, computes in 32 bits on a CPU and in fp16 on a GPU, and runs the body in every
epoch of a head-only stage. Both sides train on the same rows, from the same encoder, with the same learning rates.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import AutoModel, PrinterCallback, Trainer, TrainingArguments, get_linear_schedule_with_warmup

from questlib.batches import PassCollator, QuestRows
from questlib.data import read_tables
from questlib.devices import pick_device, pick_precision
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.pretrained import find_encoder
from questlib.recipe import TextLayout, TrainingSettings
from questlib.schema import TARGETS, TEXT_COLUMNS
from questlib.stage import Stage
from questlib.text import encode_passes, load_tokenizer
from questlib.training import fit_stages

N_TOKENS, BATCH_SIZE, N_METADATA = 512, 16, 8
FULL = Stage(name="full", trainable=("*",), epochs=1, learning_rate=4e-5, head_learning_rate=1e-3)
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

    def __init__(self, data: str, folder: Path, *, n_rows: int, encoder: Path | None = None) -> None:
        self.data, self.folder, self.encoder = data, folder, encoder or find_encoder("all-MiniLM-L6-v2")
        self.tables = read_tables(data)
        self.frame = self.tables.train.sample(n_rows, random_state=0, replace=n_rows > len(self.tables.train))
        self.tokenizer = load_tokenizer(self.encoder)
        self.layout = TextLayout(layout="joint", max_length=N_TOKENS)
        self.rows = self.tokenize(folder, self.frame)
        self.collator = PassCollator(pad_token_id=self.tokenizer.pad_token_id)
        self.device = pick_device()
        self.precision = pick_precision("auto", self.device)

    @property
    def is_cpu(self) -> bool:
        """Whether a CPU computes."""
        return self.device.type == "cpu"

    def tokenize(self, folder: Path, frame: pd.DataFrame) -> QuestRows:
        """Tokenise, or find the passes again."""
        passes = encode_passes(frame, self.tokenizer, self.layout, cache_folder=folder)
        return QuestRows(
            passes, np.zeros((len(frame), N_METADATA), np.float32), targets=frame[list(TARGETS)].to_numpy()
        )

    def texts(self, n_rows: int) -> list[str]:
        """Join title, body and answer of the first rows."""
        return self.frame[list(TEXT_COLUMNS)].iloc[:n_rows].agg(" ".join, axis=1).tolist()

    def build(self) -> QuestModel:
        """Begin with the pretrained body."""
        return QuestModel.from_encoder(self.encoder, metadata_width=N_METADATA, attention_dropout=0.0)

    def pad(self, items: list[dict]) -> dict[str, Tensor]:
        """Pad every row to the full length, as the seed does."""
        batch = self.collator(items)
        n_missing = N_TOKENS - batch["input_ids"].shape[1]
        padded = {
            name: nn.functional.pad(batch[name], (0, n_missing), value=value)
            for name, value in (("input_ids", self.tokenizer.pad_token_id), ("attention_mask", 0))
        }
        return padded | {name: batch[name] for name in ("metadata", "labels")}

    def train_seed(self, model: SeedModel, rows: QuestRows, *, epochs: float) -> None:
        """Train as the seed."""
        arguments = TrainingArguments(
            output_dir=str(self.folder), num_train_epochs=epochs, per_device_train_batch_size=BATCH_SIZE,
            save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False, logging_steps=10_000,
            use_cpu=self.is_cpu, fp16=not self.is_cpu, dataloader_pin_memory=False,
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
        """Predict as the seed."""
        model.eval()
        predictions = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.float16, enabled=not self.is_cpu):
            for start in range(0, len(rows), BATCH_SIZE):
                batch = self.pad([rows[row] for row in range(start, min(start + BATCH_SIZE, len(rows)))])
                given = {name: tensor.to(self.device) for name, tensor in batch.items() if name != "labels"}
                predictions.append(torch.sigmoid(model(**given)["logits"].double()).cpu().numpy())
        return np.concatenate(predictions)

    def predict_ours(self, model: QuestModel, rows: QuestRows, *, precision: str | None = None) -> np.ndarray:
        """Predict as the library."""
        return predict(model, rows, self.collator, batch_size=2 * BATCH_SIZE, precision=precision or self.precision)


def choose_rows(rows: QuestRows, chosen: np.ndarray | range) -> QuestRows:
    """Take some rows of a table's."""
    chosen = np.asarray(chosen)
    return QuestRows(rows.passes, rows.metadata[chosen], targets=rows.targets[chosen], rows=chosen)
