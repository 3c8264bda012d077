import random

import numpy as np
import pytest
import torch
from torch import nn

from questlib.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    optimizer_state,
    put_optimizer_state,
    put_random_state,
    put_tensors,
    random_state,
    tensors_of,
)


def make_checkpoint(step: int) -> Checkpoint:
    tensors = {"model.weight": torch.full((3,), float(step)), "best.weight": torch.zeros(2)}
    return Checkpoint(tensors=tensors, state={"stage": step, "epochs": 0.5})


def test_newest_checkpoint_is_read_and_two_are_kept_at_most(tmp_path):
    checkpoints = Checkpoints(tmp_path / "kept")
    assert checkpoints.read() == (None, [])
    assert checkpoints.read_progress() is None
    for step in range(1, 6):
        checkpoints.write(make_checkpoint(step))
        read, damaged = Checkpoints(tmp_path / "kept").read()
        assert damaged == []
        assert read.state["stage"] == step
        assert read.of("model")["weight"].tolist() == [step] * 3
        assert set(read.of("best")) == {"weight"}
        assert len(list((tmp_path / "kept").iterdir())) == min(step, 2)
    assert checkpoints.read_progress() == (5, 0.5)
    checkpoints.remove()
    assert not (tmp_path / "kept").exists()


def test_checkpoint_of_another_training_is_refused(tmp_path):
    Checkpoints(tmp_path / "kept", of="one").write(make_checkpoint(1))
    assert Checkpoints(tmp_path / "kept", of="one").read()[0] is not None
    with pytest.raises(ValueError, match="kept must be of this recipe and these rows, however they are of others"):
        Checkpoints(tmp_path / "kept", of="another").read()


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "done.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    checkpoints = Checkpoints(tmp_path / "kept")
    for step in (1, 2):
        checkpoints.write(make_checkpoint(step))
    (newest,) = (place for place in (tmp_path / "kept").iterdir() if '"stage": 2' in (place / "state.json").read_text())
    path = newest / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-4] + b"1234")
    read, damaged = checkpoints.read()
    assert read.state["stage"] == 1
    (told,) = damaged
    assert f"the checkpoint kept/{newest.name} is damaged and not used" in told
    checkpoints.write(make_checkpoint(3))
    assert checkpoints.read()[0].state["stage"] == 3


def test_while_one_is_written_the_other_is_good(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "kept")
    for step in (1, 2):
        checkpoints.write(make_checkpoint(step))

    def fail(tensors, path):
        assert len(list((tmp_path / "kept").glob("[ab]"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr("questlib.training.checkpoint.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(make_checkpoint(3))
    assert checkpoints.read()[0].state["stage"] == 2


@pytest.mark.parametrize("build", [torch.optim.AdamW, torch.optim.SGD])
def test_optimizer_goes_on_as_if_nothing_had_happened(build):
    def train(model, optimizer, n_steps):
        for _ in range(n_steps):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().mean().backward()
            optimizer.step()

    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    optimizer = build(model.parameters(), lr=0.1)
    train(model, optimizer, 3)
    weights, (tensors, others) = (
        {name: each.clone() for name, each in tensors_of(model).items()},
        optimizer_state(optimizer),
    )
    tensors = {name: each.clone() for name, each in tensors.items()}
    train(model, optimizer, 3)

    other = nn.Linear(3, 2)
    with torch.no_grad():
        put_tensors(other, weights)
    second = build(other.parameters(), lr=0.1)
    put_optimizer_state(second, tensors, others)
    train(other, second, 3)
    assert torch.equal(other.weight, model.weight)


def test_every_generator_draws_on_from_where_it_was():
    def draw():
        return [random.random(), float(np.random.normal()), float(torch.rand(()))]  # noqa: NPY002

    draw()
    tensors, others = random_state(torch.device("cpu"))
    first = draw()
    put_random_state(torch.device("cpu"), tensors, others)
    assert draw() == first


def test_checkpoint_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"must fit its model, however they differ in \['bias'\]"):
        put_tensors(nn.Linear(2, 2, bias=False), tensors_of(nn.Linear(2, 2)))
