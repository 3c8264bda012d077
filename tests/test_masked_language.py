"""A masked_language stage trains the body on the text alone, and is stopped, kept and gone on with like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from test_training import FULL, SETTINGS, changed, weights_of

from questlib.batches import PassCollator, QuestRows
from questlib.members import TransformerMember
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.plan import Share
from questlib.stage import MaskedLanguageStage
from questlib.text import load_tokenizer
from questlib.training import fit_stages
from questlib.training.kinds.masked_language import _MaskedTrainer, mask_words
from questlib.training.stages import check_stages

WORDS = MaskedLanguageStage(
    name="words", trainable=("body.*",), epochs=2, learning_rate=1e-2, head_learning_rate=1e-2, masked_share=0.3
)
COLLATOR = PassCollator(pad_token_id=0, mask_token_id=81, special_ids=(0, 1, 2, 3))


def begin(encoder_folder, rows, **options):  # noqa: ANN003
    torch.manual_seed(0)
    return QuestModel.from_encoder(encoder_folder, n_kinds=2, metadata_width=rows.metadata.shape[1], **options)


def fit(model, rows, stages, folder, **options):  # noqa: ANN003
    given = {"stop_rows": None, "settings": SETTINGS} | options
    return fit_stages(model, stages, train_rows=rows, collator=COLLATOR, folder=folder, cache_folder=folder, **given)


def losses_of(history):
    return [record["loss"] for record in history if "loss" in record]


@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 2**31), n_words=st.integers(60, 100))
def test_a_share_of_the_words_is_masked_and_told_and_nothing_else_is_touched(share, seed, n_words):
    torch.manual_seed(seed)
    ids = torch.randint(4, 50, (40, 50))
    ids[:, 0], ids[:, 20] = 1, 2
    mask = torch.ones_like(ids)
    mask[:, 40:] = ids[:, 40:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "texts": torch.arange(40), "rows": torch.arange(40)}
    masked = mask_words(batch, COLLATOR, share=share, n_words=n_words)
    is_told, words = masked["words"] >= 0, ids >= 4
    assert not (is_told & ~words).any()
    assert float(is_told.sum() / words.sum()) == pytest.approx(share, abs=0.08)
    assert torch.equal(masked["words"][is_told], ids[is_told])
    assert torch.equal(masked["input_ids"][~is_told], ids[~is_told])
    assert int(masked["input_ids"].max()) <= max(n_words - 1, COLLATOR.mask_token_id)
    shown_as_mask = masked["input_ids"][is_told] == COLLATOR.mask_token_id
    left = masked["input_ids"][is_told] == ids[is_told]
    assert float(shown_as_mask.float().mean()) == pytest.approx(0.8, abs=0.25)
    assert 0 <= float(left.float().mean()) < 0.4
    assert torch.equal(masked["rows"], batch["rows"])
    assert "texts" not in masked  # two passes that said the same do so no more


def test_words_are_guessed_better_and_the_body_alone_has_learned(encoder_folder, rows, tmp_path):
    model = begin(encoder_folder, rows, freeze_layers=1)
    before, names = weights_of(model), list(weights_of(model))
    losses = losses_of(fit(model, rows, [replace(WORDS, epochs=40)], tmp_path))
    assert losses[-1] < 0.8 * losses[0]
    assert list(weights_of(model)) == names
    moved = changed(before, weights_of(model))
    assert moved
    assert all("layer.1." in name for name in moved)


def test_ratings_are_not_read(encoder_folder, rows, tmp_path):
    models = []
    for targets in (rows.targets, 1 - rows.targets):
        models.append(begin(encoder_folder, rows))
        rated = QuestRows(rows.passes, rows.metadata, targets=targets)
        fit(models[-1], rated, [WORDS], tmp_path, stop_rows=rated)
    assert not changed(weights_of(models[0]), weights_of(models[1]))


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "soft_spearman"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_comes_after_it_learns_ratings_as_ever(encoder_folder, rows, tmp_path, loss, precision):
    model = begin(encoder_folder, rows, pooling="mean", loss=loss)
    settings = replace(SETTINGS, precision=precision)
    history = fit(model, rows, [WORDS, replace(FULL, epochs=20)], tmp_path, stop_rows=rows, settings=settings)
    scores = [record["eval_spearman"] for record in history if "eval_spearman" in record]
    assert max(scores) > 0.6
    assert {record["stage"] for record in history if "eval_spearman" in record} == {"full"}
    model.save_pretrained(tmp_path / "saved")
    pair = [
        predict(each, rows, COLLATOR, batch_size=4, precision="fp32")
        for each in (model, QuestModel.from_pretrained(tmp_path / "saved"))
    ]
    np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize(
    ("family", "freeze_layers"),
    [*((each, 0) for each in toy.FAMILIES), *((each, n) for each in ("bert", "mpnet", "electra") for n in (1, 2))],
)
def test_every_token_is_read_though_the_first_alone_is_pooled(family, freeze_layers, rows, tmp_path):
    folder = toy.write_encoder(tmp_path / family, family=family)
    model = begin(folder, rows, freeze_layers=freeze_layers).eval()
    plain = begin(folder, rows, pooling="mean").eval()
    batch = COLLATOR([rows[0], rows[7]])
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    if not getattr(plain.body.config, "type_vocab_size", 0) > 1:
        del given["token_type_ids"]
    with torch.no_grad():
        expected = plain.body(**given).last_hidden_state[batch["attention_mask"].bool()]
        found = model.read_tokens(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
        pooled = model.pool_passes(**{name: batch[name] for name in given})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    firsts = [0, *batch["attention_mask"].sum(dim=1).cumsum(dim=0)[:-1].tolist()]
    np.testing.assert_allclose(pooled, expected[firsts], atol=1e-5)  # as it was


@pytest.mark.parametrize("n_steps", [2, 9, 12])
def test_a_training_that_is_interrupted_ends_as_if_it_was_not(encoder_folder, rows, tmp_path, monkeypatch, n_steps):
    def train(folder, checkpoints):
        model = begin(encoder_folder, rows, hidden_dropout=0.1)
        stages = [WORDS, replace(FULL, epochs=1)]
        fit(model, rows, stages, folder, stop_rows=rows, checkpoints=checkpoints)
        return model

    toy.assert_goes_on(train, tmp_path, monkeypatch, n_steps=n_steps)


def test_a_batch_that_a_gpu_takes_in_parts_has_about_the_gradients_of_the_whole(
    encoder_folder, rows, tmp_path, monkeypatch
):
    model = begin(encoder_folder, rows, hidden_dropout=0.0, attention_dropout=0.0)
    compared = []

    def step(self, model, inputs):  # noqa: ANN001, ANN202
        found = []
        for n_parts in (1, 4):
            self._n_parts = n_parts
            model.zero_grad()
            value = self._differentiate_in_parts(model, inputs)
            found.append((float(value), model.body.get_input_embeddings().weight.grad.clone()))
        compared.append(found)
        return value

    monkeypatch.setattr(_MaskedTrainer, "_differentiate_on_cores", step)
    fit(model, rows, [replace(WORDS, epochs=1)], tmp_path, settings=replace(SETTINGS, batch_size=len(rows)))
    [((whole, gradient), (in_parts, of_parts))] = compared
    assert in_parts == pytest.approx(whole, rel=0.05)
    assert float(torch.cosine_similarity(gradient.flatten(), of_parts.flatten(), dim=0)) > 0.95


def test_it_leaves_half_of_the_time_to_those_that_read_ratings(encoder_folder, rows, tmp_path, slow_clock):
    stages = [replace(WORDS, epochs=100), replace(FULL, epochs=100)]
    history = fit(begin(encoder_folder, rows), rows, stages, tmp_path, deadline=slow_clock[0] + 6)
    last = {record["stage"]: record["step"] for record in history}
    assert 20 <= last["words"] <= 31
    assert 50 <= last["full"] <= 61


def test_the_first_stage_alone_is_the_first_that_reads_ratings(encoder_folder):
    recipe = toy.build_recipe(encoder_folder, stages=(WORDS, toy.STAGE, replace(toy.STAGE, name="more")))
    assert recipe.epochs(Share(epochs=0.5, first_stage_alone=True)) == (1.0, 0.5)
    assert recipe.epochs() == (2, 1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": (WORDS,)}, {"stages": (toy.STAGE, WORDS)}, {"stages": (WORDS, WORDS, toy.STAGE)},
        {"stages": (WORDS, toy.STAGE), "cycles": 2},
    ],
)  # fmt: skip
def test_it_comes_once_and_first(encoder_folder, changes):
    with pytest.raises(ValueError, match="must come once, in front of those that read ratings, however: "):
        toy.build_recipe(encoder_folder, **changes)


@pytest.mark.parametrize("pattern", ["*", "head.*", "head.outputs.*"])
def test_patterns_that_name_the_head_are_refused(pattern):
    with pytest.raises(ValueError, match="must train the body alone, however: "):
        replace(WORDS, trainable=(pattern,))


def test_an_encoder_without_a_mask_token_is_refused_before_anything_is_trained(encoder_folder, tmp_path):
    tokenizer = load_tokenizer(encoder_folder)
    toy.write_encoder(tmp_path)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    recipe = toy.build_recipe(tmp_path, stages=(WORDS, toy.STAGE))
    with pytest.raises(ValueError, match="needs an encoder with a mask token, however the tokenizer of the bert"):
        TransformerMember(recipe, cache_folder=tmp_path / "cache").check()


def test_processes_that_train_together_are_refused(model, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "::1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="must be trained by one process, however 2 were launched"):
        check_stages(model, [WORDS], collator=COLLATOR, settings=SETTINGS)


def test_a_member_is_measured_trained_and_comes_back(encoder_folder, toy_frame, tmp_path):
    recipe = toy.build_recipe(encoder_folder, stages=(WORDS, toy.STAGE), stop_share=0.0)
    member = TransformerMember(recipe, cache_folder=tmp_path / "cache")
    member.check()
    speed = member.measure(toy_frame, rows=np.arange(len(toy_frame)), test=toy_frame)
    assert len(speed.epochs) == 2
    assert min(speed.epochs) > 0
    predicted = member.fit(toy_frame).predict(toy_frame)
    member.save(tmp_path / "member")
    again = TransformerMember.load(tmp_path / "member", cache_folder=tmp_path / "cache").predict(toy_frame)
    np.testing.assert_array_equal(again, predicted)
