import datasets
import numpy as np
import numpy.typing as npt
import pytest
import torch

from questlib.batches import LengthBatchSampler, PassCollator, QuestRows


def build_rows(**options) -> QuestRows:  # noqa: ANN003
    passes = datasets.Dataset.from_dict(
        {
            "input_ids": [[[1, 5, 2]], [[1, 6, 7, 2], [1, 8, 2]], [[1, 2]]],
            "token_type_ids": [[[0, 0, 0]], [[0, 0, 1, 1], [0, 1, 1]], [[0, 0]]],
            "kinds": [[0], [0, 1], [0]],
            "texts": [[11], [12, 13], [14]],
            "length": [3, 7, 2],
        }
    )
    return QuestRows(passes, **{"metadata": np.arange(6, dtype=np.float32).reshape(3, 2)} | options)


def test_collator_pads_to_the_longest_pass_of_the_batch():
    rows = build_rows(targets=np.full((3, 30), 0.5))
    batch = PassCollator(pad_token_id=9)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[1, 5, 2, 9], [1, 6, 7, 2], [1, 8, 2, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]
    assert batch["rows"].tolist() == [0, 1, 1]
    assert batch["kinds"].tolist() == [0, 0, 1]
    assert batch["metadata"].tolist() == [[0, 1], [2, 3]]
    assert batch["labels"].dtype == torch.float32
    assert next(iter(batch)) == "metadata"


def test_rows_without_targets_have_no_labels():
    assert "labels" not in PassCollator(pad_token_id=0)([build_rows()[2]])


def test_rows_can_be_chosen_in_any_order():
    rows = build_rows(rows=np.array([2, 0]), metadata=np.zeros((2, 1), dtype=np.float32))
    assert len(rows) == 2
    assert rows.lengths.tolist() == [2, 3]
    assert rows[0]["input_ids"] == [[1, 2]]


def test_rows_refuse_metadata_of_another_table():
    with pytest.raises(ValueError, match=r"must agree, however: len\(self.passes\)=3, len\(metadata\)=2"):
        build_rows(metadata=np.zeros((2, 1), dtype=np.float32))


def rows_of(lengths: npt.NDArray, *, first_texts: npt.NDArray | None = None) -> QuestRows:
    names = np.arange(len(lengths)) if first_texts is None else first_texts
    table = {"texts": names[:, None], "length": lengths}
    return QuestRows(datasets.Dataset.from_dict(table), np.zeros((len(lengths), 1), dtype=np.float32))


def test_sampler_gives_every_row_once_and_another_order_each_epoch():
    sampler = LengthBatchSampler(rows_of(np.arange(103)), batch_size=8, seed=0)
    first, second = list(sampler), list(sampler)
    assert len(first) == len(sampler) == 13
    assert sorted(row for batch in first for row in batch) == list(range(103))
    assert first != second
    assert list(LengthBatchSampler(rows_of(np.arange(103)), batch_size=8, seed=0)) == first


@pytest.mark.parametrize(("n_rows", "n_processes"), [(103, 2), (103, 3), (97, 2), (3, 4)])
def test_processes_share_the_rows_of_every_batch_short_ones_too_and_each_has_one(n_rows, n_processes):
    rows = rows_of(np.arange(n_rows))
    whole = list(LengthBatchSampler(rows, batch_size=8, seed=0))
    shares = [
        list(LengthBatchSampler(rows, batch_size=8, seed=0, process=process, n_processes=n_processes))
        for process in range(n_processes)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        together = [row for part in parts for row in part]
        assert together[: len(batch)] == batch
        assert set(together) == set(batch)
        assert len(together) == max(len(batch), n_processes)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_sampler_puts_rows_of_like_length_together():
    lengths = np.random.default_rng(0).integers(10, 500, size=2000)

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    at_random = np.random.default_rng(1).permutation(2000).reshape(-1, 16).tolist()
    bucketed = padded(list(LengthBatchSampler(rows_of(lengths), batch_size=16, seed=0)))
    assert bucketed < 1.1 * lengths.sum() < padded(at_random)


def test_sampler_keeps_the_answers_of_a_question_together():
    generator = np.random.default_rng(0)
    question = generator.permutation(np.repeat(np.arange(300), 3))
    sampler = LengthBatchSampler(
        rows_of(generator.integers(10, 500, size=900), first_texts=question), batch_size=8, seed=0
    )
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(900))
    n_passes = sum(len(set(question[batch])) for batch in batches)
    assert n_passes < 300 + 1.5 * len(batches)  # but for those that a batch's end cuts
