"""What a frozen body makes of text, computed once and kept on disk, so that a stage of the head alone never runs it."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from questlib.batches import PassCollator, QuestRows, tokens_of
from questlib.model.prediction import visit_batches
from questlib.model.quest import QuestModel
from questlib.training.kept import hash_work, keep_array

logger = logging.getLogger(__name__)


class VectorRows(QuestRows):
    """Rows whose items hold pooled passes, (n_passes, width), in place of tokens; `ends` says where each row's end."""

    def __init__(
        self,
        rows: QuestRows,
        vectors: npt.NDArray[np.float32],
        *,
        kinds: list[list[int]],
        ends: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(rows.passes, rows.metadata, targets=rows.targets)
        self.vectors = vectors
        self._kinds, self._ends = kinds, ends

    def _read(self, row: int) -> dict:
        kinds, end = self._kinds[row], self._ends[row]
        return {"vectors": self.vectors[end - len(kinds) : end], "kinds": kinds}


def can_cache(model: QuestModel) -> bool:
    """Tell whether what is trained now reads pooled passes and metadata alone: no body, mix or pooling learns."""
    read_after = {id(parameter) for parameter in model.output_parameters()}
    return all(id(parameter) in read_after for parameter in model.parameters() if parameter.requires_grad)


def cache_vectors(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, folder: Path, batch_size: int, precision: str
) -> QuestRows:
    """Give rows the pooled passes of the body as it is now, memory-mapped, from disk where they are known.

    The folder holds a file per distinct body, pooling, text and precision.
    """
    kinds = list(rows.passes["kinds"])
    ends = np.cumsum([len(each) for each in kinds])
    path = folder / f"vectors-{_key(model, rows, precision)}.npy"
    shape = (int(ends[-1]), model.head.pooling.output_width)

    def fill(vectors: npt.NDArray[np.float32]) -> None:
        logger.info("reading %d rows through the body once", len(rows))

        def keep(chosen: npt.NDArray[np.intp], batch: dict[str, Tensor]) -> None:
            places = [np.arange(ends[row] - len(kinds[row]), ends[row]) for row in chosen]
            vectors[np.concatenate(places)] = model.pool_passes(**tokens_of(batch)).float().cpu().numpy()

        visit_batches(model, rows, collator, keep, batch_size=batch_size, precision=precision)

    return VectorRows(rows, keep_array(path, fill, shape=shape, dtype=np.float32), kinds=kinds, ends=ends)


def _key(model: QuestModel, rows: QuestRows, precision: str) -> str:
    config = model.config  # the Trainer writes into other fields of it
    about = ["2", precision, config.pooling, config.n_mixed_layers]
    return hash_work(model, about, model.pooling_state(), rows)
