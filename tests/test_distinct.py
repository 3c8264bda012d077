"""A question's pass is read once for all its answers, and a row is predicted the same whatever stands beside it."""

import numpy as np
import pytest
import torch

from questlib.batches import PassCollator, QuestRows
from questlib.cpu.step import split_batch
from questlib.data import fill_nulls
from questlib.metadata import MetadataEncoder
from questlib.model import QuestModel
from questlib.model.prediction import predict
from questlib.recipe import TextLayout
from questlib.text import encode_passes, load_tokenizer
from questlib.training.states import hold_states

COLLATOR = PassCollator(pad_token_id=0)


@pytest.fixture
def answered(toy_frame, encoder_folder, tmp_path) -> QuestRows:
    """Six questions with three answers each, in no order."""
    frame = fill_nulls(toy_frame).iloc[np.arange(18) % 6].reset_index(drop=True)
    frame["question_body"] = [f"why {'body ' * (number % 6)} {number % 6}" for number in range(18)]
    frame["answer"] = [f"good answer to {'step ' * number} {number}" for number in range(18)]
    layout = TextLayout(layout="pair", max_length=48, title_tokens=8)
    passes = encode_passes(frame, load_tokenizer(encoder_folder), layout, cache_folder=tmp_path / "cache")
    targets = np.random.default_rng(0).random((18, 30))
    return QuestRows(passes, MetadataEncoder(n_hosts=2).fit_transform(frame), targets=targets)


def build(folder, rows, **options) -> QuestModel:  # noqa: ANN003
    torch.manual_seed(0)
    return QuestModel.from_encoder(folder, n_kinds=2, metadata_width=rows.metadata.shape[1], **options)


def without_names(batch: dict) -> dict:
    return {name: each for name, each in batch.items() if name != "texts"}


def test_answers_of_a_question_share_the_name_of_its_pass(answered):
    assert len(set(answered.first_texts)) == 6
    assert len({text for texts in answered.passes["texts"] for text in texts}) == 6 + 18


@pytest.mark.parametrize("predicts", [True, False])
def test_each_text_is_read_once_and_all_rows_get_their_vectors(predicts, answered, encoder_folder, monkeypatch):
    model, batch = build(encoder_folder, answered).eval(), COLLATOR([answered[row] for row in range(18)])
    read, original = [], QuestModel._read

    def note(self, mask, **tokens):  # noqa: ANN001, ANN003, ANN202
        read.append(len(mask))
        return original(self, mask, **tokens)

    monkeypatch.setattr(QuestModel, "_read", note)
    with torch.inference_mode(predicts):
        found = model(**batch)
    assert sum(read) == 6 + 18
    expected = model(**without_names(batch))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_gradients_are_those_of_reading_every_copy(answered, encoder_folder):
    model, batch = build(encoder_folder, answered).eval(), COLLATOR([answered[row] for row in range(18)])
    gradients = []
    for given in (batch, without_names(batch)):
        model.zero_grad()
        model(**given).loss.backward()
        gradients.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_parts_of_a_step_keep_the_answers_of_a_question_together(answered):
    batch = COLLATOR([answered[row] for row in range(18)])
    parts = split_batch(batch, 4)
    n_passes = sum(len(part["texts"].unique()) for part in parts)
    assert n_passes == 6 + 18
    assert sum(len(part["metadata"]) for part in parts) == 18
    assert len(split_batch(batch, 18)) == 18


@pytest.mark.parametrize("options", [{}, {"freeze_layers": 1}, {"freeze_layers": 2, "pooling": "mean"}])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_row_is_predicted_the_same_to_the_last_bit_whatever_stands_beside_it(
    options, precision, answered, encoder_folder
):
    model = build(encoder_folder, answered, **options)

    def predict_rows(chosen: list[int]) -> np.ndarray:
        rows = QuestRows(answered.passes, answered.metadata[chosen], rows=np.array(chosen))
        if model.halves is not None:
            rows = hold_states(model, rows, COLLATOR, batch_size=8, precision=precision)
        return predict(model, rows, COLLATOR, batch_size=8, precision=precision)

    whole = predict_rows(list(range(18)))
    assert len(np.unique(whole[:, -1])) == 18
    for chosen in ([0], [3, 9, 15], [17, 2, 8, 0, 5], list(range(17, -1, -1))):
        assert np.array_equal(predict_rows(chosen), whole[chosen])
