"""Train a toy without dropout and write losses and predictions; started alone, or by a launcher as several processes.

python tests/launched.py ENCODER_FOLDER LOSS N_ROWS OUT_FOLDER
"""

import json
import os
import sys
from pathlib import Path

import conftest
import torch
import toy

from questlib.batches import PassCollator
from questlib.model.prediction import predict
from questlib.recipe import TrainingSettings
from questlib.stage import Stage
from questlib.training import fit_stages

encoder_folder, loss, n_rows, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
rank = os.environ.get("RANK", "0")
frame = conftest.make_frame(conftest.QUESTION_OF_ROW, first_id=10, seed=1).iloc[:n_rows]
rows = toy.build_easy_rows(frame, encoder_folder, cache_folder=out / "cache")
model = toy.build_model(encoder_folder, rows, loss=loss)
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
