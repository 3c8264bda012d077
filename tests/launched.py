"""Train a toy without dropout and write losses and predictions; started alone, or by a launcher as several processes.

python tests/launched.py ENCODER_FOLDER OUT_FOLDER
"""

import json
import os
import sys
from pathlib import Path

import conftest
import numpy as np
import torch
import toy

from questlib.batches import PassCollator, QuestRows
from questlib.data import fill_nulls
from questlib.inference import predict
from questlib.model import QuestModel
from questlib.text import TextLayout, encode_passes, load_tokenizer
from questlib.training import Stage, TrainingSettings, fit_stages

encoder_folder, out = Path(sys.argv[1]), Path(sys.argv[2])
rank = os.environ.get("RANK", "0")
frame = fill_nulls(conftest.make_frame(conftest.QUESTION_OF_ROW, first_id=10, seed=1)).iloc[:16]
frame, targets = toy.give_easy_texts(frame)
layout = TextLayout(layout="pair", max_length=32, title_tokens=8)
passes = encode_passes(frame, load_tokenizer(encoder_folder), layout, cache_folder=out / "cache")
rows = QuestRows(passes, np.zeros((len(frame), 1), dtype=np.float32), targets=targets)
torch.manual_seed(0)
model = QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=1)
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
collator = PassCollator(pad_token_id=0)
history = fit_stages(
    model,
    [
        Stage(name="full", trainable=("*",), epochs=2, learning_rate=1e-3, head_learning_rate=1e-2),
        Stage(name="head", trainable=("head.*",), epochs=2, learning_rate=0.0, head_learning_rate=1e-2),
    ],
    train_rows=rows,
    stop_rows=rows,
    collator=collator,
    settings=TrainingSettings(batch_size=4, precision="fp32", patience=0),
    folder=out / "fold",
    cache_folder=out / "cache",
)
result = {
    "n_processes": int(os.environ.get("WORLD_SIZE", "1")),
    "joined": torch.distributed.is_available() and torch.distributed.is_initialized(),
    "losses": [record["loss"] for record in history if "loss" in record],
    "steps": [record["step"] for record in history if "loss" in record],
    "predictions": predict(model, rows, collator, batch_size=8, precision="fp32").tolist(),
}
(out / f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
