import pytest
import torch
import toy
from torch import nn
from torch.nn import functional
from transformers import AutoModel, BertConfig, MPNetConfig

from questlib.cpu import attention, passes
from questlib.cpu.attention import _PACKED_FAMILIES, attend_by_pass, read_first_alone
from questlib.cpu.packing import pack, packed, unpack
from questlib.model.halves import BodyHalves

SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)
LENGTHS = torch.tensor([17, 3, 9])
IDS = torch.arange(3 * 17).reshape(3, 17) % 50
MASK = (torch.arange(17)[None, :] < LENGTHS[:, None]).long()


def build(dropout=0.0, config=BertConfig):
    torch.manual_seed(0)
    return AutoModel.from_config(config(**SHAPE, attention_probs_dropout_prob=dropout, hidden_dropout_prob=0.0))


def read(body, mask=MASK):
    return without_padding(body(input_ids=IDS, attention_mask=mask).last_hidden_state, mask)


def read_packed(body, mask=MASK, ids=IDS):
    halves, lengths = BodyHalves(body, 0), mask.sum(dim=1).tolist()
    states = halves.lower(input_ids=ids, attention_mask=mask).last_hidden_state
    with packed(lengths):
        states = halves.upper(inputs_embeds=pack(states, mask)).last_hidden_state
    return unpack(states, lengths)


def without_padding(states, mask):
    return torch.where(mask[..., None] == 1, states, 0.0)  # what stands at padding is never read


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
@pytest.mark.parametrize("n_bytes", [1, 3_000, 4_000_000], ids=["head by head", "few heads", "all heads"])
@pytest.mark.parametrize("config", [BertConfig, MPNetConfig])
def test_states_and_gradients_are_those_that_transformers_gives(config, mask, n_bytes, monkeypatch):
    monkeypatch.setattr(passes, "_BYTES_OF_SCORES", n_bytes)
    called = []
    attend = passes._attend_pass
    monkeypatch.setattr(passes, "_attend_pass", lambda *a, **k: called.append(1) or attend(*a, **k))
    fused, ours = build(config=config), build(config=config)
    attend_by_pass(ours)
    expected, found = read(fused, mask), without_padding(read_packed(ours, mask), mask)
    assert len(called) == 2 * len(LENGTHS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for states in (expected, found):
        states.pow(2).sum().backward()
    for one, other in zip(fused.parameters(), ours.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "attends", "reads"),
    [(family, attends, read) for family in toy.FAMILIES for attends in (True, False)]
    + [(family, True, read_packed) for family in _PACKED_FAMILIES],
)
def test_first_token_read_alone_has_the_state_and_gradients_it_has_among_all(family, attends, reads):
    found = []
    for alone in (False, True):
        torch.manual_seed(0)
        body = AutoModel.from_config(toy.build_config(family)).eval()
        if attends:
            attend_by_pass(body)
        if alone:
            read_first_alone(body)
        states = reads(body)
        (states[:, 0] * torch.linspace(-1, 1, 16)).sum().backward()
        gradients = {name: each.grad for name, each in body.named_parameters() if each.grad is not None}
        found.append({"state": states[:, 0], **gradients})
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta-v2", "mpnet"])
def test_last_layer_computes_no_token_but_the_first(family):
    body = AutoModel.from_config(toy.build_config(family))
    attend_by_pass(body)
    read_first_alone(body)
    seen = []
    for layer in body.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, states: seen.append(states.shape[:2]))
    body(input_ids=IDS, attention_mask=MASK)
    assert seen == [(3, 17), (3, 1)]
    if family in _PACKED_FAMILIES:
        read_packed(body)
        assert seen[2:] == [(1, sum(LENGTHS)), (1, 3)]


@pytest.mark.parametrize("family", _PACKED_FAMILIES)
def test_packed_passes_have_the_states_and_gradients_that_padded_ones_have(family):
    torch.manual_seed(0)
    body = AutoModel.from_config(toy.build_config(family)).eval()
    expected = read(body)
    expected.pow(3).sum().backward()
    gradients = {name: each.grad.clone() for name, each in body.named_parameters() if each.grad is not None}
    body.zero_grad()
    attend_by_pass(body)
    found = without_padding(read_packed(body), MASK)
    found.pow(3).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for name, each in body.named_parameters():
        if name in gradients:
            torch.testing.assert_close(each.grad, gradients[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", _PACKED_FAMILIES)
def test_a_packed_pass_sees_nothing_of_its_neighbours(family):
    torch.manual_seed(0)
    body = AutoModel.from_config(toy.build_config(family)).eval()
    attend_by_pass(body)
    others = IDS.flip(1).clone()
    others[1] = IDS[1]
    assert torch.equal(read_packed(body)[1, :3], read_packed(body, ids=others)[1, :3])


def test_padding_changes_nothing():
    body = build()
    attend_by_pass(body)
    alone = body(input_ids=IDS[1:2, :3], attention_mask=MASK[1:2, :3]).last_hidden_state
    torch.testing.assert_close(read(body)[1:2, :3], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", [BertConfig, MPNetConfig])
def test_no_score_is_computed_for_padding(config, monkeypatch):
    seen = []
    attend_pass = passes._attend_pass
    monkeypatch.setattr(
        passes,
        "_attend_pass",
        lambda q, k, *more, **given: seen.append(k.shape[1]) or attend_pass(q, k, *more, **given),
    )
    body = build(config=config)
    attend_by_pass(body)
    read_packed(body)
    assert seen == 2 * LENGTHS.tolist()


@pytest.mark.parametrize("config", [BertConfig, MPNetConfig])
def test_dropout_of_attention_acts_in_training_alone(config):
    body = build(dropout=0.5, config=config)
    attend_by_pass(body)
    for reads in (read, read_packed):
        assert not torch.equal(reads(body.train()), reads(body.train()))
        assert torch.equal(reads(body.eval()), reads(body.eval()))


def test_other_devices_keep_the_fused_kernel(monkeypatch):
    calls = []
    fused = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    query = torch.empty(3, 4, 17, 8, device="meta")
    out, _ = attention._attend(nn.Module(), query, query, query, MASK.bool().to("meta"), scaling=0.3)
    assert out.shape == (3, 17, 4, 8)
    assert calls


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
def test_attention_with_a_bias_is_fused_where_passes_are_padded(mask):
    plain, ours = build(config=MPNetConfig).eval(), build(config=MPNetConfig).eval()
    attend_by_pass(ours)
    torch.testing.assert_close(read(ours, mask), read(plain, mask), rtol=0, atol=1e-5)
