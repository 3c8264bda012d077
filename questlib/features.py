"""What a frozen body makes of text, computed once and kept on disk, so that a stage of the head alone never runs it."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from questlib.artifacts import written_whole
from questlib.batches import PassCollator, QuestRows
from questlib.inference import autocast, order_by_length
from questlib.model import QuestModel

logger = logging.getLogger(__name__)


class VectorRows(QuestRows):
    """Rows whose items hold pooled passes in place of tokens.

    Args:
        rows: The rows.
        vectors: Pooled passes of all rows, (n_passes, width).
        counts: Passes of each row, (n_rows,).
    """

    def __init__(self, rows: QuestRows, vectors: npt.NDArray[np.float32], *, counts: npt.NDArray[np.int64]) -> None:
        super().__init__(rows.passes, rows.metadata, targets=rows.targets)
        self.vectors = vectors
        self._kinds = list(rows.passes["kinds"])
        self._ends = np.cumsum(counts)

    def __getitem__(self, row: int) -> dict:
        kinds, end = self._kinds[row], self._ends[row]
        item = {"vectors": self.vectors[end - len(kinds) : end], "kinds": kinds, "metadata": self.metadata[row]}
        return item if self.targets is None else item | {"labels": self.targets[row]}


def can_cache(model: QuestModel) -> bool:
    """Tell whether what is trained now reads nothing but pooled passes and metadata.

    Args:
        model: Its parameters' `requires_grad` says what is trained.

    Returns:
        False where the body, a layer mix or a recurrent pooling learns.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return all(name.startswith("head.outputs.") for name in trained)


def cache_vectors(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, folder: Path, batch_size: int, precision: str
) -> QuestRows:
    """Give rows the pooled passes of the body as it is now, from disk where they are known.

    Args:
        model: On the device it shall run on; its body does not learn.
        rows: Any rows.
        collator: Builds the batches.
        folder: Holds a file per distinct body, pooling, text and precision.
        batch_size: Rows at a time.
        precision: "bf16", "fp16" or "fp32".

    Returns:
        The same rows, which give memory-mapped vectors in place of tokens.

    Raises:
        ValueError: If a file does not hold what its name says.
    """
    counts = np.array([len(kinds) for kinds in rows.passes["kinds"]], dtype=np.int64)
    path = folder / f"vectors-{_key(model, rows, precision)}.npy"
    shape = (int(counts.sum()), model.head.pooling.output_width)
    if not path.exists():
        logger.info("reading %d rows through the body once", len(rows))
        with written_whole(path) as temporary:
            _write_vectors(temporary, model, rows, collator, shape, counts, batch_size=batch_size, precision=precision)
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise ValueError(f"it holds {vectors.dtype} of shape {vectors.shape}")
    except ValueError as error:
        raise ValueError(f"{path} must hold 32-bit floats of shape {shape}, however: {error}; delete it") from error
    return VectorRows(rows, vectors, counts=counts)


def _key(model: QuestModel, rows: QuestRows, precision: str) -> str:
    config = model.config  # the Trainer writes into other fields of it
    about = ["1", precision, model.device.type, config.body, config.pooling, config.head, config.n_mixed_layers]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, weight in model.state_dict().items():
        if not name.startswith("head.outputs."):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    sink = pa.BufferOutputStream()
    table = rows.passes.with_format("arrow")[:]
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()[:32]


def _write_vectors(
    path: Path,
    model: QuestModel,
    rows: QuestRows,
    collator: PassCollator,
    shape: tuple[int, int],
    counts: npt.NDArray[np.int64],
    *,
    batch_size: int,
    precision: str,
) -> None:
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    starts = np.cumsum(counts) - counts
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(model.device, precision):
        for chosen in order_by_length(rows, batch_size):
            batch = collator([rows[row] for row in chosen])
            tokens = (batch[name].to(model.device) for name in ("input_ids", "attention_mask", "token_type_ids"))
            places = np.concatenate([np.arange(starts[row], starts[row] + counts[row]) for row in chosen])
            vectors[places] = model.pool_passes(*tokens).float().cpu().numpy()
    model.train(was_training)
    vectors.flush()
