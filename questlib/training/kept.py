"""What is kept on disk of a body's work: named by all that decides it, with room taken before it is written."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from questlib.batches import QuestRows
from questlib.model.quest import QuestModel


def hash_work(model: QuestModel, about: object, weights: Mapping[str, Tensor], rows: QuestRows) -> str:
    """Name what some weights of a model make of the text of some rows; `about` is what else decides it, as JSON."""
    # What does not learn drops nothing, so models that differ in dropout share it.
    body = {name: value for name, value in model.config.body.items() if "drop" not in name}
    digest = hashlib.sha256(json.dumps([model.device.type, body, about], sort_keys=True).encode())
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    for table in rows.passes.with_format("arrow").iter(batch_size=1_000):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()[:32]


def open_array(path: Path, *, shape: tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray:
    """Map an array that was kept; a file that holds another one raises a ValueError."""
    kept = np.load(path, mmap_mode="r", allow_pickle=False)
    if kept.shape != shape or kept.dtype != dtype:
        raise ValueError(f"it holds {kept.dtype} of shape {kept.shape} for {np.dtype(dtype)} of shape {shape}")
    return kept


def take_room(path: Path) -> None:
    """Take the room of a file that is mapped: page by page, a full disk would end the process without a word."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
