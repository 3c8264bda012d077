"""From tokenised rows to the tensors a model reads, rows of like length together."""

from collections.abc import Iterator, Mapping, Sequence

import datasets
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

# Batches are cut from sorted stretches of this many batches: long enough for like lengths, short enough to shuffle.
_BATCHES_PER_STRETCH = 50


class QuestRows(Dataset):
    """Rows of a table: passes from disk, metadata and, in training, targets.

    Args:
        passes: What `questlib.text.encode_passes` returns, for the whole table.
        metadata: Shape (n_chosen, metadata_width).
        targets: Ratings, shape (n_chosen, 30), or None.
        rows: Which rows of `passes` are meant, shape (n_chosen,); all where None.

    Attributes:
        lengths: Tokens of each row, (n_chosen,).
        first_texts: Names of the rows' first passes, (n_chosen,): equal where a question has several answers.
    """

    def __init__(
        self,
        passes: datasets.Dataset,
        metadata: npt.NDArray[np.float32],
        *,
        targets: npt.NDArray | None = None,
        rows: npt.NDArray[np.intp] | None = None,
    ) -> None:
        self.passes = passes if rows is None else passes.select(rows)
        self.metadata = metadata
        self.targets = None if targets is None else targets.astype(np.float32)
        self.lengths = np.asarray(self.passes["length"], dtype=np.int64)
        self.first_texts = np.array([texts[0] for texts in self.passes["texts"]], dtype=np.int64)
        if not len(self.passes) == len(metadata) == len(metadata if targets is None else targets):
            raise ValueError(f"passes, metadata and targets must agree, however: {len(self.passes)=}, {len(metadata)=}")

    def __len__(self) -> int:
        return len(self.passes)

    def __getitem__(self, row: int) -> dict:
        item = self._read(int(row)) | {"metadata": self.metadata[row]}
        return item if self.targets is None else item | {"labels": self.targets[row]}

    def _read(self, row: int) -> dict:
        return self.passes[row]


class JoinedRows(QuestRows):
    """The rows of two tables, the second rated by `targets`, shape (n_second, 30).

    Where what frozen layers made of one of them is not kept, tokens of both are read.
    """

    def __init__(self, first: QuestRows, second: QuestRows, *, targets: npt.NDArray) -> None:
        if type(first) is not type(second):
            first = QuestRows(first.passes, first.metadata, targets=first.targets)
            second = QuestRows(second.passes, second.metadata)
        assert first.targets is not None
        super().__init__(
            datasets.concatenate_datasets([first.passes, second.passes]),
            np.concatenate([first.metadata, second.metadata]),
            targets=np.concatenate([first.targets, targets]),
        )
        self._parts = first, second

    def _read(self, row: int) -> dict:
        first, second = self._parts
        return first._read(row) if row < len(first) else second._read(row - len(first))


class PassCollator:
    """Lay the passes of a batch of rows under one another, padded to the longest.

    Args:
        pad_token_id: What they are padded with.
        mask_token_id: Stands for a word that is to be guessed; None where the tokenizer has no such token.
        special_ids: Tokens that are no words.
    """

    def __init__(self, *, pad_token_id: int, mask_token_id: int | None = None, special_ids: Sequence[int] = ()) -> None:
        self.pad_token_id, self.mask_token_id, self.special_ids = pad_token_id, mask_token_id, tuple(special_ids)

    def __call__(self, items: Sequence[dict]) -> dict[str, Tensor]:
        """Build the arguments of `QuestModel.forward`."""
        counts = torch.tensor([len(item["kinds"]) for item in items])
        batch = {
            # First, because the Trainer takes the batch size from the first tensor it meets.
            "metadata": torch.from_numpy(np.stack([item["metadata"] for item in items])),
            "rows": torch.repeat_interleave(torch.arange(len(items)), counts),
            "kinds": torch.tensor([kind for item in items for kind in item["kinds"]]),
        }
        if "vectors" in items[0]:
            batch["vectors"] = torch.from_numpy(np.concatenate([item["vectors"] for item in items]))
        else:
            batch["texts"] = torch.tensor([text for item in items for text in item["texts"]])
            batch |= self._pad_states(items) if "states" in items[0] else self._pad(items)
        if "labels" in items[0]:
            batch["labels"] = torch.from_numpy(np.stack([item["labels"] for item in items]))
        return batch

    def _pad(self, items: Sequence[dict]) -> dict[str, Tensor]:
        passes = [torch.tensor(ids) for item in items for ids in item["input_ids"]]
        types = [torch.tensor(ids) for item in items for ids in item["token_type_ids"]]
        lengths = torch.tensor([len(ids) for ids in passes])
        return {
            "input_ids": torch.nn.utils.rnn.pad_sequence(passes, batch_first=True, padding_value=self.pad_token_id),
            "token_type_ids": torch.nn.utils.rnn.pad_sequence(types, batch_first=True),
            "attention_mask": _mask(lengths),
        }

    def _pad_states(self, items: Sequence[dict]) -> dict[str, Tensor]:
        passes = [states for item in items for states in item["states"]]
        lengths = torch.tensor([len(states) for states in passes])
        padded = np.zeros((len(passes), int(lengths.max()), passes[0].shape[1]), dtype=passes[0].dtype)
        for place, states in enumerate(passes):
            padded[place, : len(states)] = states
        return {"states": torch.from_numpy(padded), "attention_mask": _mask(lengths)}


def _mask(lengths: Tensor) -> Tensor:
    return (torch.arange(int(lengths.max()))[None, :] < lengths[:, None]).long()


def tokens_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give what of a batch `QuestModel.pool_passes` reads."""
    names = ("input_ids", "attention_mask", "token_type_ids", "states", "texts")
    return {name: batch[name] for name in names if name in batch}


class LengthBatchSampler(Sampler[list[int]]):
    """Shuffle rows every epoch, yet put rows of like length, in tokens, into one batch, so that little is padded.

    Rows that share their first pass stay together, so that it is read once for them all.

    Args:
        rows: What is batched.
        batch_size: Rows of a batch, in all processes together; the last of a stretch may have fewer.
        seed: Decides the order; the same in every process.
        process: Which of those that share each batch this is.
        n_processes: How many they are. One that a small batch has no row for repeats one.
    """

    def __init__(self, rows: QuestRows, *, batch_size: int, seed: int, process: int = 0, n_processes: int = 1) -> None:
        _, self._group = np.unique(rows.first_texts, return_inverse=True)
        self._lengths = np.bincount(self._group, rows.lengths) / np.bincount(self._group)  # of a group, on average
        self.batch_size = batch_size
        self._process, self._n_processes = process, n_processes
        self._generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self._group) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._generator.permutation(len(self._lengths))[self._group].argsort(kind="stable")
        stretch = self.batch_size * _BATCHES_PER_STRETCH
        batches = []
        for start in range(0, len(order), stretch):
            rows = order[start : start + stretch]
            rows = rows[np.argsort(-self._lengths[self._group[rows]], kind="stable")]
            batches += [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
        for place in self._generator.permutation(len(batches)):
            shared = np.resize(batches[place], max(len(batches[place]), self._n_processes))
            yield np.array_split(shared, self._n_processes)[self._process].tolist()
