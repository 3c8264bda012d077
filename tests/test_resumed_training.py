"""An interrupted training, gone on with, is the training that was not interrupted."""

import itertools
import logging
import math
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from accelerate import Accelerator
from transformers import Trainer, TrainerCallback

from questlib.batches import PassCollator
from questlib.model import QuestModel
from questlib.recipe import TrainingSettings
from questlib.run_folder import write_json
from questlib.stage import Stage
from questlib.training import fit_stages
from questlib.training.checkpoint import Checkpoint, Checkpoints, optimizer_state, put_optimizer_state
from questlib.training.keeper import Keeper
from questlib.training.trainer import QuestTrainer

FULL = Stage(
    name="full", trainable=("*",), epochs=3, learning_rate=1e-3, head_learning_rate=1e-2, warmup_share=0.2,
    average_share=0.6, layer_decay=0.9,
)  # fmt: skip
HEAD = Stage(name="head", trainable=("head.*",), epochs=2, learning_rate=0.0, head_learning_rate=1e-2)
STAGES = [FULL, HEAD]
SETTINGS = TrainingSettings(batch_size=4, patience=0, precision="fp32", seed=3)
COLLATOR = PassCollator(pad_token_id=0)
N_STEPS = 15 + 10  # of both stages: five batches an epoch


class Training:
    """The same training as often as it is wanted, from the same weights."""

    def __init__(self, encoder_folder, rows, tmp_path, **settings) -> None:  # noqa: ANN003
        self.encoder_folder, self.rows, self.folder = encoder_folder, rows, tmp_path
        self.settings, self.dropout = replace(SETTINGS, **settings), {"head_dropout": 0.2}

    def run(self, checkpoints: Checkpoints | None = None, **options):  # noqa: ANN003, ANN202
        torch.manual_seed(0)
        model = QuestModel.from_encoder(
            self.encoder_folder, n_kinds=2, pooling="mean", metadata_width=self.rows.metadata.shape[1],
            **self.dropout,
        )  # fmt: skip
        notes: list[str] = []
        history = fit_stages(
            model, STAGES, train_rows=self.rows, stop_rows=self.rows, collator=COLLATOR, settings=self.settings,
            folder=self.folder / "fold", cache_folder=self.folder / "cache", checkpoints=checkpoints, notes=notes,
            **options,
        )  # fmt: skip
        return model, history, notes


@pytest.fixture
def training(encoder_folder, rows, tmp_path):
    return Training(encoder_folder, rows, tmp_path)


def assert_same(one: QuestModel, other: QuestModel) -> None:
    for (name, first), second in zip(one.named_parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(first.detach(), second.detach(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("n_steps", [1, 8, 15, 16, 25])
def test_training_that_is_interrupted_at_any_step_ends_as_if_it_was_not(training, tmp_path, monkeypatch, n_steps):
    expected, history, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    model, resumed, notes = training.run(checkpoints)
    assert notes == []
    assert_same(expected, model)
    assert len(resumed) == len(history)
    for one, other in zip(resumed, history, strict=True):
        for name in ("stage", "number", "step", "epoch", "loss", "eval_spearman", "eval_loss", "learning_rate"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-6), (name, one, other)


@pytest.mark.parametrize(
    "settings",
    [{"evaluate_every": 2}, {"accumulation": 2}, {"evaluate_every": 3, "patience": 2}, {"optimizer": "adamw_8bit"}],
)
def test_evaluations_accumulation_patience_and_8_bits_are_gone_on_with(
    encoder_folder, rows, tmp_path, monkeypatch, settings
):
    training = Training(encoder_folder, rows, tmp_path, **settings)
    expected, history, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    model, resumed, _ = training.run(checkpoints)
    assert_same(expected, model)
    assert [each.get("eval_spearman") for each in resumed] == [each.get("eval_spearman") for each in history]


def test_training_may_be_interrupted_again_and_again(training, tmp_path, monkeypatch):
    expected, _, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    for _ in range(3):
        with monkeypatch.context() as patch:
            toy.interrupt_after(patch, 4)
            with pytest.raises(KeyboardInterrupt):
                training.run(checkpoints)
    model, _, _ = training.run(checkpoints)
    assert_same(expected, model)


def test_finished_steps_are_not_computed_again(training, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "kept")
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, 18)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    computed = []
    original = QuestTrainer._differentiate
    monkeypatch.setattr(QuestTrainer, "_differentiate", lambda *given: computed.append(1) or original(*given))
    training.run(checkpoints)
    assert len(computed) == N_STEPS - 18
    computed.clear()
    training.run(checkpoints)  # all is done: only the predictions of the fold were missing
    assert computed == []


def test_process_that_is_killed_goes_on_from_its_last_checkpoint(training, tmp_path, monkeypatch):
    expected, _, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    monkeypatch.setattr("questlib.training.keeper._SECONDS_PER_SECOND", 0)  # one after every step
    with monkeypatch.context() as patch:
        original, seen = QuestTrainer._differentiate, []

        def die(self, model, inputs):
            seen.append(1)
            if len(seen) == 9:
                raise MemoryError  # nothing is kept on the way out
            return original(self, model, inputs)

        patch.setattr(QuestTrainer, "_differentiate", die)
        with pytest.raises(MemoryError):
            training.run(checkpoints)
    kept, _ = checkpoints.read()
    assert len(kept.state["tape"]["losses"]) == 8
    model, _, _ = training.run(checkpoints)
    assert_same(expected, model)


def test_damaged_checkpoint_is_named_and_the_one_before_it_leads_to_the_same_end(training, tmp_path, monkeypatch):
    expected, _, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    monkeypatch.setattr("questlib.training.keeper._SECONDS_PER_SECOND", 0)
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    number = checkpoints.read()[0].state["number"]
    (newest,) = (
        each for each in (tmp_path / "kept").iterdir() if f'"number": {number}' in (each / "state.json").read_text()
    )
    with (newest / "state.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"damage")
    model, _, notes = training.run(checkpoints)
    assert len(notes) == 1
    assert f"the checkpoint kept/{newest.name} is damaged and not used" in notes[0]
    assert_same(expected, model)


def test_sigterm_is_kept_and_ends_the_process_with_its_status(training, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "kept")
    toy.interrupt_after(monkeypatch, 3, number=signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        training.run(checkpoints)
    assert ended.value.code == 128 + signal.SIGTERM
    assert len(checkpoints.read()[0].state["tape"]["losses"]) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_interruption_of_an_evaluation_keeps_the_step_before_it(training, tmp_path, monkeypatch):
    expected, _, _ = training.run()
    checkpoints = Checkpoints(tmp_path / "kept")
    original, seen = QuestTrainer._score, []

    def score(self, rows):
        seen.append(1)
        if len(seen) == 3:  # after the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(QuestTrainer, "_score", score)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    assert len(checkpoints.read()[0].state["tape"]["losses"]) == 10
    model, _, _ = training.run(checkpoints)
    assert_same(expected, model)


def test_checkpoints_cost_little(training, tmp_path, monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr("questlib.training.keeper.time.monotonic", lambda: clock[0])

    def write(self, checkpoint):
        written.append(clock[0])
        clock[0] += 2.0

    class Second(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):  # noqa: ANN003
            clock[0] += 30.0

    monkeypatch.setattr(Checkpoints, "write", write)
    original = QuestTrainer.__init__
    monkeypatch.setattr(
        QuestTrainer, "__init__",
        lambda self, *, callbacks, **options: original(self, callbacks=[Second(), *callbacks], **options),
    )  # fmt: skip
    training.run(Checkpoints(tmp_path / "kept"))
    assert len(written) >= 4
    assert 2.0 * len(written) / clock[0] < 0.03  # the stages' own beginnings among them


def test_checkpoint_that_finds_no_room_is_told_and_the_training_goes_on(training, tmp_path, monkeypatch, caplog):
    def fail(tensors, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("questlib.training.checkpoint.save_file", fail)
    monkeypatch.setattr("questlib.training.keeper._SECONDS_PER_SECOND", 0)
    with caplog.at_level(logging.WARNING, logger="questlib"):
        _, history, _ = training.run(Checkpoints(tmp_path / "kept"))
    assert history
    assert "no checkpoint was kept" in caplog.text
    assert "the disk must have room for state.safetensors, however it is full" in caplog.text


def change_batch(monkeypatch, number, change) -> None:  # noqa: ANN001
    """Let the loss of one batch, from 1, be what is made of the model, with its gradients, and that loss."""
    original, batches = QuestTrainer._differentiate, itertools.count(1)

    def differentiate(self, model, inputs):
        loss = original(self, model, inputs)
        return change(model, loss) if next(batches) == number else loss

    monkeypatch.setattr(QuestTrainer, "_differentiate", differentiate)


@pytest.fixture
def scaled_loss(monkeypatch):
    """What a GPU's fp16 makes of a step: the Trainer's own, with a loss that is scaled."""
    original = QuestTrainer.__init__

    def begin(self, **options):  # noqa: ANN003
        original(self, **options)
        self.accelerator.scaler, self.accelerator.native_amp = torch.amp.GradScaler("cpu"), True

    monkeypatch.setattr(QuestTrainer, "__init__", begin)
    monkeypatch.setattr(QuestTrainer, "_differentiate_on_cores", Trainer.training_step)
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")


@pytest.mark.parametrize("settings", [{}, {"accumulation": 2}], ids=str)
@pytest.mark.parametrize("n_steps", [2, 8])
def test_training_with_a_scaled_loss_is_gone_on_with(
    scaled_loss, encoder_folder, rows, tmp_path, monkeypatch, n_steps, settings
):
    training = Training(encoder_folder, rows, tmp_path, **settings)
    expected, _, notes = training.run()
    assert notes == []
    checkpoints = Checkpoints(tmp_path / "kept")
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints)
    assert checkpoints.read()[0].state["scaler"]["scale"] == 2.0**16
    model, _, notes = training.run(checkpoints)
    assert notes == []
    assert_same(expected, model)


def test_a_step_in_which_a_scaled_loss_overflows_is_left_out_and_what_is_kept_of_it_are_numbers(
    scaled_loss, training, tmp_path, monkeypatch
):
    change_batch(monkeypatch, 4, overflow)
    monkeypatch.setattr("questlib.training.keeper._SECONDS_PER_SECOND", 0)  # a checkpoint after every step
    _, history, notes = training.run(Checkpoints(tmp_path / "kept"))
    assert notes == []
    assert history[-1]["step"] == N_STEPS
    write_json(tmp_path / "history.json", history)  # which refuses what is not finite


def test_a_scaled_loss_that_is_not_finite_changes_nothing_and_ends_the_stage(scaled_loss, training, monkeypatch):
    change_batch(monkeypatch, 1, lambda _, loss: loss * math.nan)
    model, _, notes = training.run()
    assert notes == ["the loss was not finite at step 1: the stage ended, with the best weights so far"]
    assert all(torch.isfinite(each).all() for each in model.parameters())


# The pace


def test_slow_training_is_shortened_with_its_schedule_and_says_so(training, slow_clock):
    start = slow_clock[0]
    _, history, notes = training.run(deadline=start + 1.0)
    assert slow_clock[0] <= start + 1.0 + 1e-9
    rates = [record["learning_rate"] for record in history if "learning_rate" in record and record["number"] == 0]
    assert rates[-1] <= max(rates) / 2  # few steps, and they fall to the end all the same
    assert any("9 of 15 steps fitted into the time" in note for note in notes)


def test_plan_stands_where_a_little_more_would_fit(training, slow_clock):
    _, history, _ = training.run(deadline=slow_clock[0] + 1.9, share=0.7)
    assert [max(each["step"] for each in history if each["number"] == number) for number in (0, 1)] == [10, 17]


def test_plan_that_was_measured_beside_other_work_grows_into_the_time_that_is_there(training, slow_clock, monkeypatch):
    monkeypatch.setattr(f"{__name__}.STAGES", [replace(FULL, epochs=6)])
    _, history, notes = training.run(deadline=slow_clock[0] + 2.6, share=0.4)
    assert history[-1]["step"] == 25
    assert notes == ["stage full: 25 of 30 steps fitted into the time"]
    rates = [record["learning_rate"] for record in history if "learning_rate" in record]
    assert rates[-1] < max(rates) / 4


@pytest.mark.parametrize("n_steps", [14, 18])
def test_plan_that_had_grown_stands_where_the_training_goes_on(n_steps, training, slow_clock, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.STAGES", [replace(FULL, epochs=6)])
    checkpoints, deadline = Checkpoints(tmp_path / "kept"), slow_clock[0] + 2.6
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints, deadline=deadline, share=0.4)
    _, history, notes = training.run(checkpoints, deadline=deadline, share=0.4)
    assert history[-1]["step"] == 25
    assert notes == ["stage full: 25 of 30 steps fitted into the time"]


def test_training_with_time_is_the_training_without_a_deadline(training):
    expected, _, _ = training.run()
    model, _, notes = training.run(deadline=time.monotonic() + 1000)
    assert notes == []
    assert_same(expected, model)


def test_training_without_any_time_left_keeps_the_weights_it_began_with(training):
    model, history, notes = training.run(deadline=time.monotonic() - 1)
    assert history == []
    assert notes == ["stage full: left out, for want of time", "stage head: left out, for want of time"]
    assert all(torch.isfinite(each).all() for each in model.parameters())


@pytest.mark.parametrize("n_steps", [5, 8, 9])  # the last one that the limit had left
def test_shortened_training_that_was_interrupted_is_whole_without_a_limit(
    n_steps, training, slow_clock, tmp_path, monkeypatch
):
    checkpoints = Checkpoints(tmp_path / "kept")
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints, deadline=slow_clock[0] + 1.0)
    ends = checkpoints.read()[0].state["tape"]["ends"]
    assert ends
    assert ends[-1][1] == 9 or n_steps == 5
    _, history, notes = training.run(checkpoints)
    assert max(record["step"] for record in history if record["number"] == 0) == 15
    assert notes == []
    rates = [record["learning_rate"] for record in history if record["number"] == 0 and "learning_rate" in record]
    assert rates[10] > rates[-2] > 0  # they fall to the end, and not before


@pytest.mark.parametrize("n_steps", [4, 8])
def test_planned_part_of_a_training_that_was_interrupted_is_whole_without_a_limit(
    n_steps, training, slow_clock, tmp_path, monkeypatch
):
    checkpoints, deadline = Checkpoints(tmp_path / "kept"), slow_clock[0] + 100
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            training.run(checkpoints, deadline=deadline, share=0.5)
    _, history, notes = training.run(checkpoints, share=0.5)
    assert history[-1]["step"] == N_STEPS
    assert notes == []


# Faults


def overflow(model, loss):  # noqa: ANN001, ANN201
    """Let a gradient of a batch be no number, though its loss is one."""
    next(each for each in model.parameters() if each.grad is not None).grad[0] = math.inf
    return loss


@pytest.mark.parametrize(
    ("change", "told"), [(lambda _, loss: loss * math.nan, "the loss was"), (overflow, "gradients were")]
)
def test_loss_or_gradient_that_is_not_finite_changes_nothing_and_ends_the_stage(change, told, training, monkeypatch):
    change_batch(monkeypatch, 7, change)
    model, history, notes = training.run()
    assert notes == [f"{told} not finite at step 7: the stage ended, with the best weights so far"]
    assert max(record["step"] for record in history if record["number"] == 0) == 7
    assert any(record["number"] == 1 for record in history)
    assert all(torch.isfinite(each).all() for each in model.parameters())


def test_weights_that_are_not_finite_from_the_start_end_in_an_error(training, monkeypatch):
    build = QuestModel.from_encoder.__func__

    def spoilt(*given, **options):  # noqa: ANN002, ANN003
        model = build(*given, **options)
        with torch.no_grad():
            next(model.body.parameters())[:] = math.nan
        return model

    monkeypatch.setattr(QuestModel, "from_encoder", classmethod(spoilt))
    with pytest.raises(RuntimeError, match="every weight must be finite after training, however not in"):
        training.run()


def test_batch_that_memory_does_not_hold_is_halved_and_the_training_stays_the_same(
    encoder_folder, rows, tmp_path, monkeypatch, caplog
):
    training = Training(encoder_folder, rows, tmp_path, accumulation=2)
    # Dropout would draw other numbers for other parts.
    training.dropout = dict.fromkeys(("head_dropout", "hidden_dropout", "attention_dropout"), 0.0)
    expected, _, _ = training.run()
    original, batches = QuestTrainer._differentiate_on_cores, itertools.count(1)

    def differentiate(self, model, inputs):
        loss = original(self, model, inputs)
        if next(batches) >= 4 and self._n_parts < 4:  # first at the second batch of a step, with gradients of both
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return loss

    monkeypatch.setattr(QuestTrainer, "_differentiate_on_cores", differentiate)
    with caplog.at_level(logging.WARNING, logger="questlib"):
        model, _, notes = training.run()
    told = "memory did not suffice for a batch (CUDA out of memory): it is computed in"
    assert notes == [f"{told} {n_parts} parts" for n_parts in (2, 4)]
    assert "memory did not suffice" in caplog.text
    assert_same(expected, model)


def test_prediction_that_memory_does_not_hold_is_halved_and_stays_the_same(model, rows, monkeypatch):
    from questlib.model.prediction import predict

    expected = predict(model, rows, COLLATOR, batch_size=8, precision="fp32")
    original, sizes = QuestModel.pool_passes, []

    def pool_passes(self, **given):  # noqa: ANN003
        sizes.append(len(given["attention_mask"]))
        if sizes[-1] > 2:  # more than one row
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, **given)

    monkeypatch.setattr(QuestModel, "pool_passes", pool_passes)
    np.testing.assert_allclose(predict(model, rows, COLLATOR, batch_size=8, precision="fp32"), expected, atol=1e-6)
    assert max(sizes) > 2


def test_keeper_without_a_place_keeps_nothing(model):
    from questlib.training.best_weights import BestWeights

    best = BestWeights(patience=0, threshold=0.0)
    keeper = Keeper(None, model=model, best=best, history=[], notes=[])
    assert keeper.begin_stage(1).losses == []


def test_what_an_eight_bit_optimizer_remembers_comes_back_from_disk(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    inputs, checkpoints = torch.randn(32, 64), Checkpoints(tmp_path)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    def begin():
        layers = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Linear(96, 64))  # of fewer weights it keeps 32
        return layers, bitsandbytes.optim.AdamW8bit(layers.parameters(), lr=0.01)

    first, optimizer = begin()
    for _ in range(3):
        step(first, optimizer)
    tensors, others = optimizer_state(optimizer)
    assert torch.uint8 in {each.dtype for each in tensors.values()}
    checkpoints.write(Checkpoint(tensors=tensors, state=others))
    kept, _ = checkpoints.read()
    second, resumed = begin()
    second.load_state_dict(first.state_dict())
    put_optimizer_state(resumed, kept.tensors, {name: kept.state[name] for name in others})
    for model, each in ((first, optimizer), (second, resumed)):
        step(model, each)
    assert_same(first, second)
