import numpy as np
import pytest
import torch
import toy

from questlib.batches import PassCollator, QuestRows
from questlib.data import fill_nulls
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.recipe import TextLayout, TrainingSettings
from questlib.stage import Stage
from questlib.text import encode_passes, load_tokenizer
from questlib.training import fit_stages

STAGES = [
    Stage(name="full", trainable=("*",), epochs=6, learning_rate=2e-3, head_learning_rate=1e-2),
    Stage(name="head", trainable=("head.*",), epochs=1, learning_rate=0.0, head_learning_rate=1e-3),
]


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_family_trains_predicts_and_comes_back_from_disk(family, toy_frame, tmp_path):
    folder = toy.write_encoder(tmp_path / "encoder", family=family)
    frame, targets = toy.give_easy_texts(fill_nulls(toy_frame))
    tokenizer = load_tokenizer(folder)
    layout = TextLayout(layout="pair", max_length=32, title_tokens=8)
    passes = encode_passes(frame, tokenizer, layout, cache_folder=tmp_path)
    rows = QuestRows(passes, np.zeros((len(frame), 1), dtype=np.float32), targets=targets)
    model = QuestModel.from_encoder(folder, n_kinds=2, metadata_width=1, n_mixed_layers=2, pooling="cls_mean")
    collator = PassCollator(pad_token_id=tokenizer.pad_token_id)
    history = fit_stages(
        model, STAGES, train_rows=rows, stop_rows=None, collator=collator,
        settings=TrainingSettings(batch_size=4, precision="fp32"), cache_folder=tmp_path, folder=tmp_path / "fold",
    )  # fmt: skip
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < losses[0]
    predictions = predict(model, rows, collator, batch_size=8, precision="fp32")
    assert np.unique(predictions[:, 0]).size > 1
    narrow = predict(model, rows, collator, batch_size=8, precision="bf16")
    assert 0 < np.abs(narrow - predictions).max() < 0.02  # toy weights are large
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "saved")
    loaded = QuestModel.from_pretrained(tmp_path / "saved")
    assert np.array_equal(predict(loaded, rows, collator, batch_size=8, precision="fp32"), predictions)
