import platform
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from questlib.batches import PassCollator
from questlib.cpu.cores import OwnDropout, give_freed_memory_back, map_on_cores
from questlib.cpu.step import _TOKENS_OF_A_PART, StepOnCores, _count_tokens, split_batch
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.recipe import TrainingSettings
from questlib.stage import Stage
from questlib.training import fit_stages

CPU = torch.device("cpu")
COLLATOR = PassCollator(pad_token_id=0)


@pytest.fixture(params=[1, 2, 3])
def n_cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep freed memory in their own ways")
@pytest.mark.parametrize("n_cores", [2], indirect=True)
def test_memory_that_is_freed_and_kept_can_be_given_back(n_cores):
    def count_bytes():
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    # Small ones, held by a later one from being given back as they are freed.
    held = list(map_on_cores(lambda part: [torch.zeros(250_000) for _ in range(300)], range(2), device=CPU))
    held = [tensors[-1] for tensors in held]
    before = count_bytes()
    give_freed_memory_back()
    assert count_bytes() < before - 300_000_000
    assert all(float(each.sum()) == 0 for each in held)


def test_training_gives_memory_back_every_few_batches(encoder_folder, rows, tmp_path, monkeypatch):
    given_back = []
    monkeypatch.setattr("questlib.cpu.step.give_freed_memory_back", lambda: given_back.append(True))
    monkeypatch.setattr("questlib.cpu.step._BATCHES_TO_GIVE_BACK", 2)
    losses, _ = train(encoder_folder, rows, tmp_path, dropout=0.0)
    assert losses
    assert len(given_back) == -(-len(rows) // 5) // 2


def train(encoder_folder, rows, tmp_path, *, dropout, accumulation=1, **options):  # noqa: ANN003
    torch.manual_seed(0)
    width = rows.metadata.shape[1]
    model = QuestModel.from_encoder(
        encoder_folder, n_kinds=2, metadata_width=width, attention_dropout=dropout, **options
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    stage = Stage(name="full", trainable=("*",), epochs=1, learning_rate=1e-3, head_learning_rate=1e-2)
    history = fit_stages(
        model, [stage], train_rows=rows, stop_rows=None, collator=COLLATOR, folder=tmp_path, cache_folder=tmp_path,
        settings=TrainingSettings(batch_size=5, accumulation=accumulation, precision="fp32"),
    )  # fmt: skip
    return [each["loss"] for each in history if "loss" in each], model


def test_results_come_in_the_order_of_the_parts_and_each_part_has_one_thread(n_cores):
    found = list(map_on_cores(lambda part: (part, torch.get_num_threads()), range(20), device=CPU))
    assert found == [(part, 1) for part in range(20)]
    assert torch.get_num_threads() == n_cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep freed memory in their own ways")
@pytest.mark.parametrize("n_cores", [2], indirect=True)
def test_memory_that_is_freed_is_not_cleared_page_by_page_again(n_cores):
    list(map_on_cores(lambda part: part, range(2), device=CPU))

    def allocate_and_count_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.zeros(5_000_000) for _ in range(5)]
        del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults = [allocate_and_count_faults() for _ in range(6)]
    assert faults[-1] < 1_000  # of 24,000 pages


def test_an_error_in_one_part_is_raised_and_leaves_the_number_of_threads(n_cores):
    with pytest.raises(ZeroDivisionError):
        list(map_on_cores(lambda part: 1 // part, range(3), device=CPU))
    assert torch.get_num_threads() == n_cores


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prediction_is_the_same_on_any_number_of_cores(precision, n_cores, encoder_folder, rows):
    torch.manual_seed(0)
    model = QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=rows.metadata.shape[1])
    found = predict(model, rows, COLLATOR, batch_size=4, precision=precision)
    torch.set_num_threads(1)
    expected = predict(model, rows, COLLATOR, batch_size=len(rows), precision=precision)
    np.testing.assert_allclose(found, expected, atol=1e-6 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_takes_the_steps_of_the_whole_batch(
    accumulation, n_cores, encoder_folder, rows, tmp_path, monkeypatch
):
    found, ours = train(encoder_folder, rows, tmp_path, dropout=0.0, accumulation=accumulation)
    monkeypatch.delattr("questlib.training.trainer.QuestTrainer.training_step")
    expected, plain = train(encoder_folder, rows, tmp_path, dropout=0.0, accumulation=accumulation)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Adam turns the smallest gradients into whole steps, so weights are compared by what they predict.
    predictions = [predict(each, rows, COLLATOR, batch_size=8, precision="fp32") for each in (ours, plain)]
    np.testing.assert_allclose(*predictions, atol=2e-4)
    assert not ours.get_input_embeddings().sparse


def test_training_with_dropout_is_decided_by_the_seed_whatever_thread_comes_first(
    n_cores, encoder_folder, rows, tmp_path
):
    first, second = (train(encoder_folder, rows, tmp_path, dropout=0.3)[1] for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_cores", [2], indirect=True)
def test_training_with_dropout_is_the_same_on_one_core(n_cores, encoder_folder, rows, tmp_path):
    on_two = train(encoder_folder, rows, tmp_path, dropout=0.3)[1]
    torch.set_num_threads(1)
    on_one = train(encoder_folder, rows, tmp_path, dropout=0.3)[1]
    for one, other in zip(on_one.parameters(), on_two.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_parts", [1, 2, 3, 50])
def test_a_split_batch_holds_each_row_once_with_all_its_passes(n_parts, rows):
    batch = COLLATOR([rows[row] for row in range(7)])
    batch["metadata"] = torch.arange(7.0)[:, None]  # tells the rows apart
    parts = split_batch(batch, n_parts)
    assert len(parts) == min(n_parts, 7)
    assert sorted(torch.cat([part["metadata"] for part in parts]).flatten().tolist()) == list(range(7))
    for part in parts:
        for place, row in enumerate(part["metadata"].flatten().long()):
            assert torch.equal(part["labels"][place], batch["labels"][row])
            for name in ("input_ids", "attention_mask", "token_type_ids", "kinds"):
                assert torch.equal(part[name][part["rows"] == place], batch[name][batch["rows"] == row])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_own_dropout_drops_its_share_and_keeps_the_mean(share):
    states = torch.ones(1_000, 1_001, requires_grad=True)
    with OwnDropout(1):
        dropped = functional.dropout(states, share)
    assert dropped.eq(0).double().mean().item() == pytest.approx(share, abs=2e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=4e-3)
    for at in range(4):  # each quarter of a draw is as random as the others
        assert dropped.flatten()[at::4].eq(0).double().mean().item() == pytest.approx(share, abs=4e-3)
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())


def test_own_dropout_acts_in_modules_by_its_seed_and_in_training_alone():
    module, states = torch.nn.Dropout(0.5), torch.ones(50, 50)

    def drop(seed):
        with OwnDropout(seed):
            return module(states)

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))
    module.eval()
    assert torch.equal(drop(1), states)


@pytest.mark.parametrize(("n_parts", "n_tokens"), [(1, 4_096), (7, 4_096), (1, 50)])  # with 50 most go forward twice
def test_a_loss_that_compares_rows_has_the_gradients_of_the_whole_batch(
    n_parts, n_tokens, n_cores, encoder_folder, rows, monkeypatch
):
    monkeypatch.setitem(_TOKENS_OF_A_PART, "fp32", n_tokens)
    torch.manual_seed(0)
    model = QuestModel.from_encoder(
        encoder_folder, n_kinds=2, metadata_width=rows.metadata.shape[1], loss="margin_ranking", head_dropout=0.0
    ).eval()
    batch = COLLATOR([rows[row] for row in range(10)])
    model(**batch).loss.backward()
    expected = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad(set_to_none=True)
    loss = StepOnCores(model, precision="fp32").differentiate_together(
        batch, lambda part: model(**part).logits, model.loss, body=model.body, n_rows=10, n_parts=n_parts
    )
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            np.testing.assert_allclose(parameter.grad, expected[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("n_cores", [2], indirect=True)
def test_of_a_batch_of_many_tokens_what_memory_does_not_hold_goes_forward_twice_and_drops_the_same(
    n_cores, encoder_folder, rows, monkeypatch
):
    width = rows.metadata.shape[1]
    model = QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=width, loss="margin_ranking").train()
    batch = COLLATOR([rows[row] for row in range(8)])
    batch["metadata"][:, 0] = torch.arange(8.0)  # tells the parts apart
    kept = []

    def logits_of(part):
        logits = model(**part).logits
        kept.append((part["metadata"][:, 0].tolist(), logits.requires_grad, logits.detach()))
        return logits

    def differentiate():
        kept.clear()
        step = StepOnCores(model, precision="fp32")
        step.differentiate_together(batch, logits_of, model.loss, body=model.body, n_rows=8)
        return sorted(kept, key=lambda part: part[:2])

    assert [is_kept for _, is_kept, _ in differentiate()] == [True, True]
    # Eight parts, of which memory is thought to hold three.
    monkeypatch.setitem(_TOKENS_OF_A_PART, "fp32", _count_tokens(batch) * 7 // 32)
    monkeypatch.setattr("questlib.cpu.step.split_batch", lambda batch, n_parts: split_batch(batch, 8))
    parts = differentiate()
    assert len(parts) == 8 + 5
    first, again = (
        {str(rows): logits for rows, is_kept, logits in parts if is_kept == twice} for twice in (False, True)
    )
    assert len(first) == 5
    assert all(torch.equal(logits, again[rows]) for rows, logits in first.items())


def test_training_by_the_order_of_rows_is_the_same_on_any_number_of_cores(n_cores, encoder_folder, rows, tmp_path):
    losses, model = train(encoder_folder, rows, tmp_path / "many", dropout=0.0, loss="soft_spearman")
    torch.set_num_threads(1)
    expected_losses, expected = train(encoder_folder, rows, tmp_path / "one", dropout=0.0, loss="soft_spearman")
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-4)
