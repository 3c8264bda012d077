from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from transformers import TrainerControl, TrainerState, TrainingArguments

from questlib.batches import PassCollator
from questlib.cpu.step import split_batch
from questlib.metrics import mean_spearman
from questlib.model import QuestModel
from questlib.model.losses import LOSSES
from questlib.model.prediction import predict
from questlib.recipe import TrainingSettings
from questlib.run_folder import write_json
from questlib.schema import TARGETS
from questlib.stage import Stage
from questlib.training import fit_stages
from questlib.training.average_weights import AverageWeights
from questlib.training.best_weights import BestWeights
from questlib.training.kinds.base import match_parameters
from questlib.training.optimizer import build_optimizer
from questlib.training.trainer import OneDeviceArguments, QuestTrainer

FULL = Stage(name="full", trainable=("*",), epochs=2, learning_rate=1e-3, head_learning_rate=1e-2)
HEAD = Stage(name="head", trainable=("head.*",), epochs=1, learning_rate=0.0, head_learning_rate=1e-2)
SETTINGS = TrainingSettings(batch_size=4, patience=0, precision="fp32", seed=3)
COLLATOR = PassCollator(pad_token_id=0)


def fit(model, rows, stages, tmp_path, *, stop_rows=None, **changes) -> list[dict]:  # noqa: ANN003
    return fit_stages(
        model, stages, train_rows=rows, stop_rows=stop_rows, collator=COLLATOR,
        settings=replace(SETTINGS, **changes), folder=tmp_path / "fold", cache_folder=tmp_path / "cache",
    )  # fmt: skip


def weights_of(model: QuestModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_full_stage_learns(model, rows, tmp_path):
    before = predict(model, rows, COLLATOR, batch_size=8, precision="fp32")
    history = fit(model, rows, [replace(FULL, epochs=20)], tmp_path)
    after = predict(model, rows, COLLATOR, batch_size=8, precision="fp32")
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < losses[0]
    assert mean_spearman(after, rows.targets) > max(0.6, mean_spearman(before, rows.targets))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_model_that_trained_under_autocast_goes_forward_as_it_will_once_it_is_loaded(model, rows, tmp_path, precision):
    fit(model, rows, [HEAD, FULL], tmp_path, precision=precision)
    assert getattr(model.forward, "__func__", None) is QuestModel.forward


def test_head_stage_leaves_the_body_alone(model, rows, tmp_path):
    before = weights_of(model)
    fit(model, rows, [HEAD], tmp_path)
    moved = changed(before, weights_of(model))
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_full_stage_after_a_head_stage_thaws_the_body(model, rows, tmp_path):
    before = weights_of(model)
    fit(model, rows, [HEAD, FULL], tmp_path)
    assert any(name.startswith("body.") for name in changed(before, weights_of(model)))


def test_a_pattern_can_train_one_layer(model, rows, tmp_path):
    before = weights_of(model)
    stage = replace(FULL, trainable=["body.encoder.layer.1.*", "head.*"])
    fit(model, rows, [stage], tmp_path)
    moved = {name for name in changed(before, weights_of(model)) if name.startswith("body.")}
    assert moved
    assert all(name.startswith("body.encoder.layer.1.") for name in moved)


def test_a_pattern_that_matches_nothing_is_refused_before_any_training(model, rows, tmp_path):
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"must match a parameter, however: 'head\.no\*'"):
        fit(model, rows, [FULL, replace(HEAD, trainable=("head.no*",))], tmp_path)
    assert not changed(before, weights_of(model))


def test_each_stage_has_its_own_learning_rates(model):
    stage = replace(FULL, learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.02)
    groups = build_optimizer(model, stage, SETTINGS).param_groups
    named = {id(weight): name for name, weight in model.named_parameters()}
    for group in groups:
        for weight in group["params"]:
            in_head = named[id(weight)].startswith("head.")
            assert group["lr"] == (1e-3 if in_head else 1e-5)
            assert group["weight_decay"] == (0.02 if weight.ndim > 1 else 0.0)
    assert sum(len(group["params"]) for group in groups) == len(named)


def test_lower_layers_learn_at_a_share_of_the_rate_of_the_next(model):
    stage = replace(FULL, learning_rate=1e-4, layer_decay=0.5)
    groups = build_optimizer(model, stage, SETTINGS).param_groups
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    named = {name: rates[id(weight)] for name, weight in model.named_parameters()}
    assert len(rates) == len(named)
    for name, rate in named.items():
        if name.startswith("head."):
            assert rate == FULL.head_learning_rate
        elif name.startswith("body.encoder.layer."):
            assert rate == pytest.approx(1e-4 * 0.5 ** (1 - int(name.split(".")[3])))
        else:
            assert rate == pytest.approx(1e-4 * 0.25)


def test_weights_of_the_last_steps_are_averaged(model, rows, tmp_path, monkeypatch):
    seen = []
    original = AverageWeights.on_step_end

    def on_step_end(self, args, state, control, **event):  # noqa: ANN003, ANN202
        seen.append(event["model"].head.outputs[0][1].bias.detach().clone())
        original(self, args, state, control, **event)

    monkeypatch.setattr(AverageWeights, "on_step_end", on_step_end)
    stage = replace(FULL, epochs=2, average_share=0.4)
    fit(model, rows, [stage], tmp_path)
    assert len(seen) == 10
    torch.testing.assert_close(model.head.outputs[0][1].bias.detach(), torch.stack(seen[-5:]).mean(dim=0))


def test_average_forgets_what_was_the_last_stretch_until_there_was_more_time(model):
    average, counted = AverageWeights(0.5), []
    for step, n_steps in ((3, 4), (4, 10), (5, 10)):
        state = TrainerState(global_step=step, max_steps=n_steps)
        average.on_step_end(None, state, None, model=model)
        counted.append(average.n_averaged)
    assert counted == [1, 0, 1]


@pytest.mark.parametrize(("warmup_share", "schedule"), [(0.5, "linear"), (0.0, "linear"), (0.0, "constant")])
def test_schedule_and_warmup_shape_the_learning_rate(warmup_share, schedule, model, rows, tmp_path):
    stage = replace(FULL, epochs=4, warmup_share=warmup_share, schedule=schedule)
    rates = [record["learning_rate"] for record in fit(model, rows, [stage], tmp_path) if "learning_rate" in record]
    peak = int(np.argmax(rates))
    assert (0.3 < peak / len(rates) < 0.7) if warmup_share else peak == 0
    assert (rates[-1] < 0.2 * max(rates)) == (schedule == "linear")


def test_cycles_alternate_the_stages(model, rows, tmp_path):
    history = fit(model, rows, [replace(FULL, epochs=1), HEAD] * 2, tmp_path)
    order = [record["number"] for record in history]
    assert order == sorted(order)
    names = {record["number"]: record["stage"] for record in history}
    assert names == {0: "full", 1: "head", 2: "full", 3: "head"}
    steps = [record["step"] for record in history]
    assert steps == sorted(steps)
    assert steps[-1] == 4 * 5


def test_best_weights_are_restored_where_training_harms(model, rows, tmp_path):
    fit(model, rows, [replace(FULL, epochs=10)], tmp_path, stop_rows=rows)
    good = mean_spearman(predict(model, rows, COLLATOR, batch_size=8, precision="fp32"), rows.targets)
    harmful = replace(FULL, learning_rate=1.0, head_learning_rate=1.0, schedule="constant", epochs=1)
    history = fit(model, rows, [harmful], tmp_path, stop_rows=rows)
    kept = mean_spearman(predict(model, rows, COLLATOR, batch_size=8, precision="fp32"), rows.targets)
    scores = [record["eval_spearman"] for record in history if "eval_spearman" in record]
    assert min(scores) < good - 0.1
    assert kept == pytest.approx(max(scores)) == pytest.approx(good)


def test_what_the_best_stage_did_not_train_is_restored_too_where_a_later_one_harms_it(encoder_folder, rows, tmp_path):
    trained, kept = (toy.build_model(encoder_folder, rows) for _ in range(2))
    harmful = replace(FULL, learning_rate=1.0, head_learning_rate=1.0, schedule="constant", epochs=1)
    fit(trained, rows, [replace(HEAD, epochs=10)], tmp_path / "one", stop_rows=rows)
    history = fit(kept, rows, [replace(HEAD, epochs=10), harmful], tmp_path / "two", stop_rows=rows)
    scores = [record["eval_spearman"] for record in history if "eval_spearman" in record]
    assert scores[-1] < max(scores) - 0.1
    assert not changed(weights_of(trained), weights_of(kept))


def test_patience_ends_a_stage_early(model, rows, tmp_path):
    stage = replace(FULL, learning_rate=0.0, head_learning_rate=0.0, epochs=9)
    history = fit(model, rows, [stage], tmp_path, stop_rows=rows, patience=2, evaluate_every=2)
    assert history[-1]["step"] == 4


@pytest.mark.parametrize(("threshold", "stops"), [(0.0, False), (0.5, True)])
def test_threshold_says_what_counts_as_a_gain(threshold, stops, model):
    best = BestWeights(patience=2, threshold=threshold)
    arguments, state, control = TrainingArguments(output_dir="unused"), TrainerState(), TrainerControl()
    for score in (0.1, 0.2, 0.3):
        best.on_evaluate(arguments, state, control, model=model, metrics={"eval_spearman": score})
    assert control.should_training_stop == stops
    assert best.best_score == 0.3


def test_evaluations_come_every_so_many_steps_and_after_the_last(model, rows, tmp_path):
    history = fit(model, rows, [FULL], tmp_path, stop_rows=rows, evaluate_every=3)
    assert [record["step"] for record in history if "eval_spearman" in record] == [0, 3, 6, 9, 10]


def test_accumulation_makes_fewer_steps(model, rows, tmp_path):
    assert fit(model, rows, [FULL], tmp_path)[-1]["step"] == 10
    assert fit(model, rows, [FULL], tmp_path, accumulation=5)[-1]["step"] == 2


def test_seed_decides_the_result(encoder_folder, rows, tmp_path):
    def train(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        model = QuestModel.from_encoder(
            encoder_folder, n_kinds=2, pooling="mean", metadata_width=rows.metadata.shape[1]
        )
        fit(model, rows, [FULL], tmp_path, seed=seed)
        return predict(model, rows, COLLATOR, batch_size=8, precision="fp32")

    assert np.array_equal(train(1), train(1))
    assert not np.array_equal(train(1), train(2))


def test_eight_bit_optimizer_trains_and_is_told_to_be_slow_on_a_cpu(model, rows, tmp_path, caplog):
    optimizer = build_optimizer(model, FULL, replace(SETTINGS, optimizer="adamw_8bit"))
    assert type(optimizer).__module__.startswith("bitsandbytes")
    assert "optimizer adamw is quicker here" in caplog.text
    history = fit(model, rows, [replace(FULL, epochs=10)], tmp_path, optimizer="adamw_8bit")
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < losses[0]


def test_tensorboard_logs_are_written_on_request_only(model, rows, tmp_path):
    fit(model, rows, [HEAD], tmp_path)
    assert not list(tmp_path.rglob("events.out.tfevents*"))
    fit(model, rows, [HEAD], tmp_path, use_tensorboard=True)
    assert list((tmp_path / "fold" / "0-head").rglob("events.out.tfevents*"))


def test_two_gpus_are_never_wrapped_in_data_parallel(monkeypatch, tmp_path):
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    assert OneDeviceArguments(output_dir=str(tmp_path)).n_gpu == 1


def test_match_parameters_unites_patterns(model):
    assert match_parameters(model, ["*"]) == {name for name, _ in model.named_parameters()}
    assert match_parameters(model, ["*.bias", "head.*"]) > match_parameters(model, ["head.*"])


def test_training_leaves_no_pickle(model, rows, tmp_path: Path):
    fit(model, rows, [FULL, HEAD], tmp_path, stop_rows=rows)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_a_logit_far_out_leaves_a_finite_loss(model, rows, tmp_path):
    with torch.no_grad():
        model.head.outputs[0][1].bias += 60.0  # a sigmoid in 64 bits is 1 from 37 on
    still = replace(FULL, learning_rate=0.0, head_learning_rate=0.0, epochs=1)
    history = fit(model, rows, [still], tmp_path, stop_rows=rows)
    losses = [record["eval_loss"] for record in history if "eval_loss" in record]
    assert np.isfinite(losses).all()
    logits = torch.full((len(rows), 30), 60.0)
    expected = model.loss(logits, torch.from_numpy(rows.targets)).item()
    assert losses[0] == pytest.approx(expected, rel=0.05)
    write_json(tmp_path / "history.json", history)  # which refuses what is not finite


def test_evaluation_weighs_targets_as_training_does(model, rows, tmp_path):
    model.loss = LOSSES["binary_cross_entropy"]({name: 0.0 for name in TARGETS[1:]})
    still = replace(FULL, learning_rate=0.0, head_learning_rate=0.0, epochs=1)
    history = fit(model, rows, [still], tmp_path, stop_rows=rows)
    predicted = predict(model, rows, COLLATOR, batch_size=8, precision="fp32")[:, 0]
    entropy = rows.targets[:, 0] * np.log(predicted) + (1 - rows.targets[:, 0]) * np.log1p(-predicted)
    assert history[0]["eval_loss"] == pytest.approx(-entropy.mean(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_parts", [2, 16])
def test_a_batch_that_a_gpu_takes_in_parts_has_the_loss_and_gradients_of_the_whole(
    n_parts, loss, encoder_folder, rows, tmp_path, monkeypatch
):
    model = QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=rows.metadata.shape[1], loss=loss)
    compared = []

    def gradients_of(differentiate):  # noqa: ANN001, ANN202
        model.zero_grad()
        torch.manual_seed(7)
        value = differentiate()
        return value.item(), {name: each.grad.clone() for name, each in model.named_parameters()}

    def assert_same(one, other):  # noqa: ANN001, ANN202
        assert one[0] == pytest.approx(other[0], abs=1e-6)
        for name, gradient in one[1].items():
            np.testing.assert_allclose(gradient, other[1][name], atol=5e-6, err_msg=name)

    def step(self, model, inputs):  # noqa: ANN001, ANN202
        def take_parts_and_keep_them():  # noqa: ANN202
            parts = split_batch(inputs, n_parts)
            logits, labels = zip(*((model(**part).logits, part["labels"]) for part in parts), strict=True)
            whole = model.loss(torch.cat(logits), torch.cat(labels).float())
            whole.backward()
            return whole

        def take_whole():  # noqa: ANN202
            whole = model(**inputs).loss
            whole.backward()
            return whole

        self._n_parts = n_parts
        found = gradients_of(lambda: self._differentiate_in_parts(model, inputs))
        assert_same(found, gradients_of(take_parts_and_keep_them))  # with dropout: a part drops the same each time
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found = gradients_of(lambda: self._differentiate_in_parts(model, inputs))
        assert_same(found, gradients_of(take_whole))
        compared.append(found)
        return torch.tensor(found[0])

    monkeypatch.setattr(QuestTrainer, "_differentiate_on_cores", step)
    fit(model, rows, [replace(FULL, epochs=1)], tmp_path, batch_size=len(rows))
    assert len(compared) == 1


def test_head_keeps_its_rate_under_an_adapters_names(model):
    wrapped = torch.nn.Module()
    wrapped.base_model = model  # as peft does: every name gains a prefix
    model.named_parameters = wrapped.named_parameters
    assert all(name.startswith("base_model.") for name, _ in model.named_parameters())
    rates = {
        id(each): group["lr"]
        for group in build_optimizer(model, FULL, SETTINGS).param_groups
        for each in group["params"]
    }
    in_head = {id(each) for each in model.head.parameters()}
    assert {rate for key, rate in rates.items() if key in in_head} == {FULL.head_learning_rate}
    assert {rate for key, rate in rates.items() if key not in in_head} == {FULL.learning_rate}
