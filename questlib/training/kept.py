"""What is kept on disk of a body's work: named by all that decides it, with room taken before it is written."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from questlib.batches import QuestRows
from questlib.cache import keep_once
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


def keep_array(
    path: Path, fill: Callable[[npt.NDArray], None], *, shape: tuple[int, int], dtype: npt.DTypeLike
) -> npt.NDArray:
    """Map an array that is kept in a file; `fill` fills it where the file is not there, or not whole."""

    def write(temporary: Path) -> None:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # page by page, a full disk would end the process without a word
            with temporary.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, temporary.stat().st_size)
        fill(array)
        array.flush()

    def read(known: Path) -> npt.NDArray:
        kept = np.load(known, mmap_mode="r", allow_pickle=False)
        if kept.shape != shape or kept.dtype != dtype:
            raise ValueError(f"it holds {kept.dtype} of shape {kept.shape} for {np.dtype(dtype)} of shape {shape}")
        return kept

    return keep_once(path, write, read, size=np.dtype(dtype).itemsize * shape[0] * shape[1])
