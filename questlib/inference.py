"""Predicting: a model over rows, and a run folder over any table."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from questlib.artifacts import CONFIG, ENSEMBLE, METADATA, TOKENIZER, read_json, write_json
from questlib.batches import PassCollator, QuestRows
from questlib.cores import count_cores, map_on_cores
from questlib.data import fill_nulls
from questlib.devices import pick_device, pick_precision
from questlib.ensemble import Ensemble
from questlib.inputs import describe_mounts, find_folder
from questlib.lexical import LexicalModel
from questlib.metadata import MetadataEncoder
from questlib.model import QuestModel
from questlib.schema import TARGETS
from questlib.text import TextLayout, encode_passes, load_tokenizer


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

    Args:
        model: On the device it shall run on; left as it was.
        rows: What to go over.
        collator: Builds the batches.
        visit: Is given the numbers of some rows and their batch on the model's device; on a CPU, by several threads.
        batch_size: Rows at a time, over all cores.
        precision: "bf16", "fp16" or "fp32".
    """
    order = np.argsort(-rows.lengths, kind="stable")
    n_rows = max(1, batch_size // count_cores(model.device))

    def compute(start: int) -> None:
        chosen = order[start : start + n_rows]
        batch = collator([rows[row] for row in chosen])
        batch.pop("labels", None)
        with torch.inference_mode(), torch.autocast(model.device.type, torch.float16, enabled=precision == "fp16"):
            visit(chosen, {name: tensor.to(model.device) for name, tensor in batch.items()})

    was_training = model.training
    model.eval()
    # bf16 has the range of 32 bits, so a body runs in it throughout; fp16 has not, so autocast keeps its sums in these.
    with narrowed(model.body.parameters()) if precision == "bf16" else nullcontext():
        map_on_cores(compute, range(0, len(order), n_rows), device=model.device)
    model.train(was_training)


@contextmanager
def narrowed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let parameters be bf16 for a while, so that they are turned into it once and not by every part of a batch.

    Args:
        parameters: In 32 bits, which they have again afterwards.
    """
    kept = [(parameter, parameter.data) for parameter in parameters]
    for parameter, data in kept:
        parameter.data = data.to(torch.bfloat16)
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def predict(
    model: QuestModel, rows: QuestRows, collator: PassCollator, *, batch_size: int, precision: str
) -> npt.NDArray[np.float64]:
    """Predict ratings, longest rows first.

    Args:
        model: On the device it shall run on.
        rows: What to predict.
        collator: Builds the batches.
        batch_size: Rows at a time.
        precision: "bf16", "fp16" or "fp32".

    Returns:
        In (0, 1), in the order of the rows, shape (n_rows, 30).
    """
    predictions = np.empty((len(rows), len(TARGETS)))

    def keep(chosen: npt.NDArray[np.intp], batch: dict[str, Tensor]) -> None:
        predictions[chosen] = torch.sigmoid(model(**batch).logits.double()).cpu().numpy()

    visit_batches(model, rows, collator, keep, batch_size=batch_size, precision=precision)
    return predictions


def save_fold(folder: Path, model: QuestModel, encoder: MetadataEncoder) -> None:
    """Save what a fold alone knows: weights as safetensors and the metadata encoder's state as JSON.

    Args:
        folder: The fold's folder in the run folder; the tokenizer lies beside it.
        model: The trained model.
        encoder: Fitted on the fold.
    """
    model.save_pretrained(folder)
    write_json(folder / METADATA, json.loads(encoder.to_json()))


def predict_table(
    run_folder: Path, frame: pd.DataFrame, *, cache_folder: Path, batch_size: int = 16
) -> npt.NDArray[np.float64]:
    """Predict any table with a run folder alone: each model averaged over its folds, blended and tied.

    Args:
        run_folder: What a run left behind.
        frame: A table with the input columns; nulls are filled on a copy.
        cache_folder: Holds tokenised text.
        batch_size: Rows at a time.

    Returns:
        In [0, 1], shape (n_rows, 30).

    Raises:
        FileNotFoundError: If the folder holds no ensemble or no trained fold.
    """
    folders = find_folds(run_folder)
    path = run_folder / ENSEMBLE
    if not path.is_file():
        raise FileNotFoundError(f"{run_folder} must hold {ENSEMBLE}, however it does not; name a finished run's folder")
    frame = fill_nulls(frame)
    transformer = predict_transformer(run_folder, frame, cache_folder=cache_folder, batch_size=batch_size)
    lexical = np.mean([LexicalModel.load(folder).predict(frame) for folder in folders], axis=0)
    ensemble = Ensemble.from_json(path.read_text(encoding="utf-8"))
    return ensemble.transform([transformer, lexical], hosts=frame["host"].to_numpy(dtype=str))


def find_run(name: str) -> Path:
    """Find a finished run's folder.

    Args:
        name: A folder, or the slug of an attached dataset that holds one.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = find_folder(name, marker=ENSEMBLE)
    if folder is None:
        raise FileNotFoundError(f"no finished run {name!r} ({ENSEMBLE} marks one) is here: {describe_mounts()}")
    return folder


def find_folds(run_folder: Path) -> list[Path]:
    """Find the folders of the trained folds.

    Args:
        run_folder: What a run left behind.

    Returns:
        At least one, in order.

    Raises:
        FileNotFoundError: If there is none.
    """
    folders = sorted(path.parent for path in run_folder.glob(f"fold-*/{METADATA}"))
    if not folders:
        raise FileNotFoundError(f"{run_folder} must hold a trained fold (fold-*/{METADATA}), however it holds none")
    return folders


def predict_transformer(
    run_folder: Path, frame: pd.DataFrame, *, cache_folder: Path, batch_size: int = 16
) -> npt.NDArray[np.float64]:
    """Predict a table with a run folder's transformers alone, averaged over the folds.

    Args:
        run_folder: What a run left behind.
        frame: A table with nulls filled.
        cache_folder: Holds tokenised text.
        batch_size: Rows at a time.

    Returns:
        In (0, 1), shape (n_rows, 30).

    Raises:
        FileNotFoundError: If the folder holds no trained fold.
    """
    folders = find_folds(run_folder)
    recipe = read_json(run_folder / CONFIG)
    tokenizer = load_tokenizer(run_folder / TOKENIZER)
    passes = encode_passes(frame, tokenizer, TextLayout(**recipe["layout"]), cache_folder=cache_folder)
    collator = PassCollator(pad_token_id=tokenizer.pad_token_id)
    device = pick_device()
    precision = pick_precision(recipe["settings"]["precision"], device)
    predictions = []
    for folder in folders:
        encoder = MetadataEncoder.from_json((folder / METADATA).read_text(encoding="utf-8"))
        model = QuestModel.from_pretrained(folder)
        model.to(device)  # type: ignore[arg-type]
        rows = QuestRows(passes, encoder.transform(frame))
        predictions.append(predict(model, rows, collator, batch_size=batch_size, precision=precision))
    return np.mean(predictions, axis=0)
