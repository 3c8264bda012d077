import numpy as np
import pytest
import torch
from test_training import COLLATOR, HEAD, fit

from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.training.kinds import fine_tune
from questlib.training.kinds.base import match_parameters
from questlib.training.vectors import cache_vectors, can_cache


def cache(model, rows, folder):
    return cache_vectors(model, rows, COLLATOR, folder=folder, batch_size=4, precision="fp32")


def test_predictions_from_cached_vectors_are_those_of_the_whole_model(model, rows, tmp_path):
    whole = predict(model, rows, COLLATOR, batch_size=4, precision="fp32")
    cached = predict(model, cache(model, rows, tmp_path), COLLATOR, batch_size=4, precision="fp32")
    assert np.abs(whole - cached).max() < 1e-5


def test_head_stage_on_cached_vectors_ends_where_the_uncached_one_ends(model, rows, tmp_path, monkeypatch):
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    fit(model, rows, [HEAD], tmp_path)
    cached = predict(model, rows, COLLATOR, batch_size=4, precision="fp32")
    model.load_state_dict(start)
    untrained = predict(model, rows, COLLATOR, batch_size=4, precision="fp32")
    monkeypatch.setattr(fine_tune, "can_cache", lambda model: False)
    fit(model, rows, [HEAD], tmp_path)
    uncached = predict(model, rows, COLLATOR, batch_size=4, precision="fp32")
    assert np.abs(cached - uncached).max() < 1e-4
    assert np.abs(cached - untrained).max() > 1e-3


def test_head_stage_runs_the_body_once(model, rows, tmp_path, monkeypatch):
    seen, pool = [], QuestModel.pool_passes
    monkeypatch.setattr(
        QuestModel,
        "pool_passes",
        lambda self, **tokens: seen.append(len(tokens["input_ids"])) or pool(self, **tokens),
    )
    fit(model, rows, [HEAD, HEAD, HEAD], tmp_path)
    assert sum(seen) == sum(len(kinds) for kinds in rows.passes["kinds"])


@pytest.mark.parametrize("change", ["weight", "text", "precision"])
def test_a_changed_body_text_or_precision_is_read_anew(model, rows, tmp_path, change):
    cache(model, rows, tmp_path)
    if change == "weight":
        with torch.no_grad():
            next(iter(model.body.parameters())).add_(0.1)
    if change == "text":
        rows.passes = rows.passes.select(range(len(rows) - 1, -1, -1))
    precision = "bf16" if change == "precision" else "fp32"
    cache_vectors(model, rows, COLLATOR, folder=tmp_path, batch_size=4, precision=precision)
    assert len(list(tmp_path.glob("vectors-*.npy"))) == 2


def test_the_same_content_is_found_again(model, rows, tmp_path):
    cache(model, rows, tmp_path)
    (path,) = tmp_path.glob("vectors-*.npy")
    written = path.stat().st_mtime_ns
    with torch.no_grad():
        model.head.outputs[0][1].weight.add_(1)  # the outputs do not decide what the body makes of text
    cache(model, rows, tmp_path)
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["another shape", "cut", "empty"])
def test_a_damaged_file_is_made_anew_with_a_warning(model, rows, tmp_path, damage, caplog):
    whole = np.array(cache(model, rows, tmp_path).vectors)
    (path,) = tmp_path.glob("vectors-*.npy")
    if damage == "another shape":
        np.save(path, np.zeros((3, 2), dtype=np.float32))
    else:
        path.write_bytes(path.read_bytes()[: 200 if damage == "cut" else 0])
    np.testing.assert_array_equal(cache(model, rows, tmp_path).vectors, whole)
    assert f"{path} was damaged and is made anew" in caplog.text


def test_only_a_stage_that_trains_the_outputs_alone_is_cached(model):
    assert not can_cache(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in match_parameters(model, HEAD.trainable))
    assert can_cache(model)
    next(iter(model.head.pooling.parameters()), next(iter(model.body.parameters()))).requires_grad_(True)
    assert not can_cache(model)
