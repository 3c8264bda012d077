"""What frozen layers make of text: computed once for all folds, epochs and stages; only the layers above them run."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from questlib.batches import PassCollator, QuestRows, tokens_of
from questlib.cache import is_kept, make_room
from questlib.model.prediction import visit_batches
from questlib.model.quest import QuestModel
from questlib.training.kept import hash_work, keep_array

logger = logging.getLogger(__name__)

_BYTES = 2  # 16-bit floats: between layers norms keep states small


class StateRows(QuestRows):
    """Rows whose items hold `states`, an array of (n_tokens, width) for each pass, in place of tokens.

    Args:
        rows: Whose text was read.
        states: Of all tokens of a whole table, one after the other, (n_all_tokens, width).
        ends: Where those of each of these rows end, (n_rows,).
    """

    def __init__(self, rows: QuestRows, states: npt.NDArray[np.float16], *, ends: npt.NDArray[np.int64]) -> None:
        super().__init__(rows.passes, rows.metadata, targets=rows.targets)
        self._states, self._ends = states, ends

    def _read(self, row: int) -> dict:
        item = self.passes[row]
        ends = self._ends[row] - self.lengths[row] + np.cumsum([len(ids) for ids in item["input_ids"]])
        states = [self._states[end - len(ids) : end] for end, ids in zip(ends, item["input_ids"], strict=True)]
        return {"states": states, "kinds": item["kinds"], "texts": item["texts"]}


def hold_states(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> QuestRows:
    """Give rows their states, in memory."""
    states = np.empty(_shape(model, rows), dtype=np.float16)
    _read_lower(model, rows, collator, states, batch_size=batch_size, precision=precision)
    return StateRows(rows, states, ends=np.cumsum(rows.lengths))


def cache_states(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, folder: Path, batch_size: int, precision: str
) -> npt.NDArray[np.float16] | None:
    """Give the states of a whole table, memory-mapped, from disk where they are known; None where they need too much.

    The folder holds a file per distinct frozen half, text and precision.
    """
    path, shape = _path(model, rows, folder, precision), _shape(model, rows)
    size = _BYTES * shape[0] * shape[1]
    if not is_kept(path) and not make_room(folder, size):
        logger.warning("the states of the frozen layers would take %.1f GB, so they are computed anew", size / 1e9)
        return None

    def fill(states: npt.NDArray[np.float16]) -> None:
        logger.info("reading %d rows through the %d frozen layers once", len(rows), model.config.freeze_layers)
        _read_lower(model, rows, collator, states, batch_size=batch_size, precision=precision)

    return keep_array(path, fill, shape=shape, dtype=np.float16)


def are_cached(model: QuestModel, rows: QuestRows, *, folder: Path, precision: str) -> bool:
    """Tell whether the states of a whole table are known."""
    return is_kept(_path(model, rows, folder, precision))


def _path(model: QuestModel, rows: QuestRows, folder: Path, precision: str) -> Path:
    assert model.halves is not None
    frozen = {id(parameter) for parameter in model.frozen_parameters()}
    weights = {name: weight for name, weight in model.body.named_parameters() if id(weight) in frozen}
    about = ["1", precision, model.config.freeze_layers]
    return folder / f"states-{hash_work(model, about, weights, rows)}.npy"


def _shape(model: QuestModel, rows: QuestRows) -> tuple[int, int]:
    return int(rows.lengths.sum()), model.body.config.hidden_size


def _read_lower(
    model: QuestModel,
    rows: QuestRows,
    collator: PassCollator,
    out: npt.NDArray[np.float16],
    *,
    batch_size: int,
    precision: str,
) -> None:
    ends = np.cumsum(rows.lengths)
    n_read = 0

    def keep(chosen: npt.NDArray[np.intp], batch: dict[str, Tensor]) -> None:
        nonlocal n_read
        tokens = tokens_of(batch)
        states = model.read_tokens(**tokens, frozen_alone=True)
        places = [np.arange(ends[row] - rows.lengths[row], ends[row]) for row in chosen]
        out[np.concatenate(places)] = states.half().cpu().numpy()
        before, n_read = n_read, n_read + len(chosen)
        if before // 1000 < n_read // 1000:
            logger.info("read %d of %d rows", n_read, len(rows))

    visit_batches(model, rows, collator, keep, batch_size=batch_size, precision=precision)
