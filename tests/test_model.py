from pathlib import Path

import pytest
import torch
import toy
from torch import Tensor
from transformers import AutoModel

from questlib import recipe
from questlib.model import QuestConfig, QuestModel
from questlib.model.heads import HEADS
from questlib.model.poolings import POOLINGS
from questlib.model.quest_head import LayerMix, average_passes
from questlib.schema import QUESTION_TARGETS

N_QUESTION = len(QUESTION_TARGETS)


def build_batch(*, n_kinds: int = 2, n_rows: int = 3, metadata_width: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    n_passes, n_tokens = n_rows * n_kinds, 12
    mask = torch.ones(n_passes, n_tokens, dtype=torch.long)
    mask[1, 7:] = 0
    return {
        "input_ids": torch.randint(4, 60, (n_passes, n_tokens), generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.zeros(n_passes, n_tokens, dtype=torch.long),
        "rows": torch.arange(n_rows).repeat_interleave(n_kinds),
        "kinds": torch.arange(n_kinds).repeat(n_rows),
        "metadata": torch.rand(n_rows, metadata_width, generator=generator),
    }


def build_model(folder: Path, **options) -> QuestModel:  # noqa: ANN003
    torch.manual_seed(0)
    return QuestModel.from_encoder(folder, **{"n_kinds": 2, "metadata_width": 4} | options).eval()


@torch.no_grad()
def predict(model: QuestModel, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


OPTIONS = [
    {"pooling": "cls"},
    {"pooling": "mean"},
    {"pooling": "cls_mean", "n_mixed_layers": 3},
    {"head": "hidden", "hidden_width": 8},
    {"pooling": "gru", "hidden_width": 8},
    {"pooling": "lstm", "head": "hidden", "hidden_width": 8},
    {"use_split_head": True},
    {"n_kinds": 1},
    {"n_kinds": 1, "use_split_head": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_saved_model_gives_identical_predictions_back(options, encoder_folder, tmp_path):
    model = build_model(encoder_folder, target_weights={"answer_helpful": 2.0}, **options)
    batch = build_batch(n_kinds=options.get("n_kinds", 2))
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = QuestModel.from_pretrained(tmp_path).eval()
    assert torch.equal(predict(model, batch), predict(loaded, batch))
    labels = torch.rand(3, 30)
    assert torch.equal(model(**batch, labels=labels).loss, loaded(**batch, labels=labels).loss)


def test_weights_are_read_and_written_without_a_bar_on_the_terminal(encoder_folder, tmp_path, capfd):
    build_model(encoder_folder).save_pretrained(tmp_path / "model")
    QuestModel.from_pretrained(tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    AutoModel.from_pretrained(encoder_folder)
    assert "Loading weights" in capfd.readouterr().err  # what a caller reads itself is as it was


def test_weights_lie_alike_in_memory_wherever_they_were_in_their_file(encoder_folder, tmp_path):
    begun = build_model(encoder_folder)
    begun.save_pretrained(tmp_path)
    for model in (begun, QuestModel.from_pretrained(tmp_path)):
        assert {weight.data_ptr() % 64 for weight in model.parameters()} == {0}  # what a product rounds to hangs on it


def test_body_begins_with_the_encoders_weights(encoder_folder):
    model, encoder = build_model(encoder_folder), AutoModel.from_pretrained(encoder_folder)
    for name, weight in model.body.named_parameters():
        assert torch.equal(weight, encoder.get_parameter(name))


def test_config_carries_no_path(encoder_folder, tmp_path):
    build_model(encoder_folder).save_pretrained(tmp_path)
    assert str(encoder_folder) not in (tmp_path / "config.json").read_text()


def test_half_precision_encoder_is_trained_in_32_bits(tmp_path):
    AutoModel.from_config(toy.build_config("bert")).half().save_pretrained(tmp_path)
    assert {weight.dtype for weight in build_model(tmp_path).parameters()} == {torch.float32}


def test_metadata_reaches_the_logits_past_the_body(encoder_folder):
    model, batch = build_model(encoder_folder), build_batch()
    before = predict(model, batch)
    after = predict(model, batch | {"metadata": batch["metadata"] + 1})
    weights = model.head.outputs[0][-1].weight[:, -4:].sum(dim=1)
    torch.testing.assert_close(after - before, weights.expand(3, -1))


@pytest.mark.parametrize("options", [{}, {"use_split_head": True}, {"head": "hidden"}], ids=str)
def test_question_targets_read_the_first_pass_only_and_answer_targets_both(options, encoder_folder):
    model, batch = build_model(encoder_folder, **options), build_batch()
    before = predict(model, batch)
    for kind, question_moves in ((0, True), (1, False)):
        ids = batch["input_ids"].clone()
        ids[batch["kinds"] == kind] = 5
        moved = (predict(model, batch | {"input_ids": ids}) - before).abs().amax(dim=0)
        assert bool((moved[:N_QUESTION] > 1e-6).any()) == question_moves
        assert bool((moved[N_QUESTION:] > 1e-6).any())


def test_one_head_is_shared_by_default(encoder_folder):
    assert len(build_model(encoder_folder).head.outputs) == 1
    assert len(build_model(encoder_folder, use_split_head=True).head.outputs) == 2


def test_padding_does_not_change_predictions(encoder_folder):
    for options in ({"pooling": "cls_mean"}, {"pooling": "gru"}):
        model, batch = build_model(encoder_folder, **options), build_batch()
        padded = batch | {
            name: torch.nn.functional.pad(batch[name], (0, 5))
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        torch.testing.assert_close(predict(model, padded), predict(model, batch), atol=1e-5, rtol=0)


def test_windows_of_one_text_are_averaged():
    vectors = torch.tensor([[2.0], [4.0], [10.0], [7.0]])
    rows, kinds = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0])
    averaged = average_passes(vectors, rows, kinds, n_rows=2, n_kinds=2)
    assert averaged.tolist() == [[[3.0], [10.0]], [[7.0], [0.0]]]


def test_token_types_reach_a_body_that_knows_two(encoder_folder):
    model, batch = build_model(encoder_folder), build_batch()
    other = batch | {"token_type_ids": torch.ones_like(batch["token_type_ids"])}
    assert not torch.allclose(predict(model, other), predict(model, batch))


def test_attention_dropout_replaces_the_encoders(encoder_folder):
    assert build_model(encoder_folder).body.config.attention_probs_dropout_prob == 0.1
    assert build_model(encoder_folder, attention_dropout=0.0).body.config.attention_probs_dropout_prob == 0.0


def test_hidden_dropout_replaces_the_encoders(encoder_folder):
    assert build_model(encoder_folder).body.config.hidden_dropout_prob == 0.1
    dropouts = [each for each in build_model(encoder_folder, hidden_dropout=0.0, attention_dropout=0.0).body.modules()]
    assert {each.p for each in dropouts if isinstance(each, torch.nn.Dropout)} == {0.0}


def test_the_highest_layers_begin_anew_on_request(encoder_folder):
    before, after = build_model(encoder_folder), build_model(encoder_folder, reset_layers=1)
    pairs = zip(before.body.named_parameters(), after.body.parameters(), strict=True)
    changed = {name for (name, one), other in pairs if not torch.equal(one, other)}
    assert changed
    assert all(name.startswith("encoder.layer.1.") for name in changed)


def test_more_layers_cannot_begin_anew_than_learn(encoder_folder):
    with pytest.raises(ValueError, match="reset_layers must be 1 at most"):
        build_model(encoder_folder, reset_layers=2, freeze_layers=1)


def test_target_weights_change_the_loss_where_they_are_put(encoder_folder):
    batch, labels = build_batch(), torch.zeros(3, 30)
    plain = build_model(encoder_folder)(**batch, labels=labels)
    weighted = build_model(encoder_folder, target_weights={"answer_helpful": 31.0})(**batch, labels=labels)
    entropy = torch.nn.functional.softplus(plain.logits).mean(dim=0)
    index = N_QUESTION
    expected = (entropy.sum() + 30 * entropy[index]) / 60
    torch.testing.assert_close(plain.loss, entropy.mean())
    torch.testing.assert_close(weighted.loss, expected)


def test_frozen_body_predicts_without_dropout_while_the_head_trains(encoder_folder):
    model = build_model(encoder_folder)
    model.train()
    assert model.body.training
    model.body.requires_grad_(requires_grad=False)
    model.train()
    assert not model.body.training
    assert model.head.training


def test_logits_are_32_bit_under_autocast(encoder_folder):
    model, batch = build_model(encoder_folder), build_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert predict(model, batch).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "unknown pooling"),
        ({"head": "gru"}, "unknown head: 'gru'"),
        ({"pooling": "grue"}, "did you mean 'gru'"),
        ({"poling": "mean"}, "unknown model option: 'poling' .did you mean 'pooling'"),
        ({"n_kind": 1, "transformers_version": "5"}, "'n_kind' .did you mean 'n_kinds'.*, 'transformers_version'"),
        ({"head_dropout": 2}, "head_dropout must lie in"),
        ({"n_kinds": 0}, r"n_kinds must lie in \[1, "),
        ({"metadata_width": -1}, r"metadata_width must lie in \[0, "),
        ({"n_mixed_layers": 9}, "n_mixed_layers must be 3 at most"),
        ({"target_weights": {"answer_helpfull": 1.0}}, "did you mean 'answer_helpful'"),
    ],
    ids=str,
)
def test_model_refuses_bad_options_by_name(options, message, encoder_folder):
    with pytest.raises(ValueError, match=message):
        build_model(encoder_folder, **options)


def test_misspelt_option_is_refused_before_the_encoder_is_looked_for():
    with pytest.raises(ValueError, match="did you mean 'pooling'"):
        QuestModel.from_encoder("nowhere", poling="mean")


def test_encoder_may_be_named_by_a_string_and_one_that_is_nowhere_is_refused(encoder_folder, tmp_path):
    named, given = (build_model(folder) for folder in (str(encoder_folder), encoder_folder))
    assert torch.equal(predict(named, build_batch()), predict(given, build_batch()))
    with pytest.raises(FileNotFoundError, match="the encoder folder '/nowhere' does not exist; name one that holds"):
        build_model("/nowhere")
    with pytest.raises(FileNotFoundError, match="must hold config.json, however it does not"):
        build_model(tmp_path)


def test_what_is_no_saved_model_is_refused_before_the_hub_is_thought_of(encoder_folder, tmp_path):
    for folder, kind in ((tmp_path / "nowhere", "none"), (tmp_path, "none"), (encoder_folder, "bert")):
        message = rf"{folder} must hold what save_pretrained wrote, however its config.json is of {kind}; name"
        with pytest.raises(ValueError, match=message):
            QuestModel.from_pretrained(str(folder))


def test_layer_mix_is_learned_and_begins_near_the_last_layer():
    mix = LayerMix(n_layers=2)
    layers = (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    mixed = mix(layers)
    assert 0.8 < mixed.item() < 1.0
    mixed.sum().backward()
    assert mix.weights.grad.abs().sum() > 0


def pool(name: str, states: Tensor, mask: Tensor) -> Tensor:
    torch.manual_seed(0)
    pooling = POOLINGS[name](body_width=states.shape[-1], hidden_width=8)
    pooled = pooling(states, mask)
    assert pooled.shape == (len(states), pooling.output_width)
    return pooled


def test_poolings_pool_what_they_say():
    states = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool("cls", states, mask).tolist() == [[1.0]]
    assert pool("mean", states, mask).tolist() == [[2.0]]
    assert pool("cls_mean", states, mask).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_is_one_that_a_recipe_may_name_and_reads_no_padding(name):
    assert name in recipe.POOLINGS
    assert len(recipe.POOLINGS) == len(POOLINGS)
    generator = torch.Generator().manual_seed(1)
    states, mask = torch.rand(2, 5, 3, generator=generator), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    moved = states.clone()
    moved[0, 3:] += 9
    torch.testing.assert_close(pool(name, moved, mask), pool(name, states, mask))


def test_every_head_is_one_that_a_recipe_may_name():
    assert recipe.HEADS == list(HEADS)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_pooling_reads_order_in_both_directions(name):
    states, mask = torch.rand(2, 5, 3), torch.ones(2, 5, dtype=torch.long)
    assert not torch.allclose(pool(name, states, mask), pool(name, states.flip(1), mask))


def test_a_recurrent_reading_is_a_pooling_that_any_head_may_follow(encoder_folder):
    model = build_model(encoder_folder, pooling="lstm", head="hidden", hidden_width=8)
    assert model.head.pooling.output_width == 8
    assert isinstance(model.head.outputs[0][1], torch.nn.ReLU)


def test_config_refuses_an_unknown_pooling_before_any_weight_is_built():
    with pytest.raises(ValueError, match="unknown pooling"):
        QuestConfig(pooling="sum")


@pytest.mark.parametrize("name", ["poolng", "n_kind", "hidden_widht", "loses"])
def test_config_refuses_a_misspelt_option_instead_of_keeping_the_default(name):
    with pytest.raises(ValueError, match=rf"unknown model option: '{name}' \(did you mean "):
        QuestConfig(**{name: 1})


def test_saved_config_is_read_back_as_it_was(encoder_folder, tmp_path):
    model = build_model(encoder_folder, pooling="mean", target_weights={"answer_helpful": 2.0}, attention_dropout=0.0)
    model.config.use_cache = False  # as the Trainer leaves it
    model.save_pretrained(tmp_path)
    loaded = QuestConfig.from_pretrained(tmp_path)
    assert loaded.model_options == model.config.model_options
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("{", '{"a_field_of_another_version": 1,', 1))
    assert QuestConfig.from_pretrained(tmp_path).model_options == model.config.model_options
    assert (loaded.n_kinds, loaded.metadata_width) == (2, 4)
