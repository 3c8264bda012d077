"""Predicting rows with a model."""

import logging
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor

from questlib.batches import PassCollator, QuestRows, tokens_of
from questlib.cpu.cores import count_cores, map_on_cores
from questlib.devices import narrowed
from questlib.model.quest import QuestModel
from questlib.schema import TARGETS

logger = logging.getLogger(__name__)
_ROWS_PER_WORD = 1_000


def visit_batches(
    model: QuestModel,
    rows: QuestRows,
    collator: PassCollator,
    visit: Callable[[npt.NDArray[np.intp], dict[str, Tensor]], None],
    *,
    batch_size: int,
    precision: str,
) -> None:
    """Go over rows as a model that predicts, longest first: little is padded, and too little memory shows at once.

    `visit` is given the numbers of some rows and their batch on the model's device; on a CPU, by several threads, which
    share the `batch_size` rows.
    """
    _, question = np.unique(rows.first_texts, return_inverse=True)
    longest = np.zeros(question.max(initial=0) + 1, dtype=np.int64)
    np.maximum.at(longest, question, rows.lengths)
    order = np.lexsort((question, -longest[question]))  # rows that share a pass one after the other
    n_rows = max(1, batch_size // count_cores(model.device))

    def compute(chosen: npt.NDArray[np.intp]) -> None:
        batch = collator([rows[row] for row in chosen])
        batch.pop("labels", None)
        try:
            with torch.inference_mode(), torch.autocast(model.device.type, torch.float16, enabled=precision == "fp16"):
                visit(chosen, {name: tensor.to(model.device) for name, tensor in batch.items()})
            return
        except torch.OutOfMemoryError:
            if len(chosen) == 1:
                raise
        for half in np.array_split(chosen, 2):
            compute(half)

    was_training = model.training
    model.eval()
    # bf16 has the range of 32 bits, so a body runs in it throughout; fp16 has not, so autocast keeps its sums in these.
    with narrowed(model.body.parameters()) if precision == "bf16" else nullcontext():
        chunks = [order[start : start + n_rows] for start in range(0, len(order), n_rows)]
        for _ in map_on_cores(compute, chunks, device=model.device):
            pass
    model.train(was_training)


def predict_logits(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> Tensor:
    """Predict logits, (n_rows, 30) in 64 bits, on the CPU, in the order of the rows."""
    logits = torch.empty(len(rows), len(TARGETS), dtype=torch.float64)
    n_done = 0

    def keep(chosen: npt.NDArray[np.intp], batch: dict[str, Tensor]) -> None:
        nonlocal n_done
        logits[torch.from_numpy(chosen)] = _predict_batch(model, batch).double().cpu()
        before, n_done = n_done, n_done + len(chosen)
        if before // _ROWS_PER_WORD < n_done // _ROWS_PER_WORD:
            logger.info("predicted %d of %d rows", n_done, len(rows))

    visit_batches(model, rows, collator, keep, batch_size=batch_size, precision=precision)
    return logits


def predict(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> npt.NDArray[np.float64]:
    """Predict ratings in [0, 1], (n_rows, 30), in the order of the rows."""
    logits = predict_logits(model, rows, collator, batch_size=batch_size, precision=precision)
    # Number by number: what works on several at a time rounds the last ones of an array in another way.
    return expit(logits.numpy())


def _predict_batch(model: QuestModel, batch: dict[str, Tensor]) -> Tensor:
    if model.device.type != "cpu":
        return model(**batch).logits
    # Each row by itself, so that none changes by what stands beside it.
    vectors = batch["vectors"] if "vectors" in batch else model.pool_passes(**tokens_of(batch))
    logits = []
    for row, metadata in enumerate(batch["metadata"]):
        own = batch["rows"] == row
        kinds = batch["kinds"][own]
        alone = model(vectors=vectors[own], rows=torch.zeros_like(kinds), kinds=kinds, metadata=metadata[None])
        logits.append(alone.logits)
    return torch.cat(logits)
