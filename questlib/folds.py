"""One recipe trained on several folds: each predicts the rows it never saw, and all predict the test together."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, set_seed

from questlib.artifacts import (
    CONFIG,
    HISTORY,
    OUT_OF_FOLD,
    SCORES,
    TEST_PREDICTIONS,
    TOKENIZER,
    write_json,
    write_predictions,
)
from questlib.batches import PassCollator, QuestRows
from questlib.clock import Clock
from questlib.config import refuse_outside
from questlib.data import IndexArray, Tables, assign_folds, hold_out_questions, question_of
from questlib.devices import pick_device, pick_devices, pick_precision
from questlib.ensemble import FoldPredictions
from questlib.inference import predict, save_fold
from questlib.metadata import MetadataEncoder
from questlib.metrics import score_predictions
from questlib.model import QuestModel, longest_pass
from questlib.parallel import run_on_devices
from questlib.schema import ID, TARGETS
from questlib.text import TextLayout, encode_passes, load_tokenizer
from questlib.training import Stage, TrainingSettings, fit_stages

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what is trained; it is kept in the run folder.

    Args:
        layout: How text becomes passes.
        metadata: Parameters of `MetadataEncoder`.
        model: Options of `QuestModel.from_encoder`.
        stages: What is trained, in order.
        settings: What all stages share.
        split: "question" or "random"; see `questlib.data.assign_folds`.
        folds: Number of folds.
        folds_to_train: How many of them, from the first on.
        stop_share: Share of a training fold's questions to stop by, in [0, 0.5]; 0 trains every stage to its end.
    """

    layout: TextLayout
    metadata: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    stages: list[Stage]
    settings: TrainingSettings
    split: str = "question"
    folds: int = 5
    folds_to_train: int = 1
    stop_share: float = 0.1

    def __post_init__(self) -> None:
        refuse_outside(self.folds_to_train, low=1, high=self.folds, what="folds_to_train")
        refuse_outside(self.stop_share, low=0, high=0.5, what="stop_share")

    @property
    def leaks(self) -> bool:
        """Whether one question may stand on both sides of a split."""
        return self.split == "random"

    def assign_folds(self, tables: Tables) -> IndexArray:
        """Assign each training row to the fold that scores it, shape (n_train,)."""
        return assign_folds(question_of(tables.train), split=self.split, folds=self.folds, seed=self.settings.seed)


def train_folds(
    tables: Tables,
    recipe: Recipe,
    *,
    encoder_folder: Path,
    run_folder: Path,
    cache_folder: Path,
    clock: Clock,
    devices: Sequence[torch.device] | None = None,
) -> FoldPredictions:
    """Train the folds and predict, leaving weights, history, predictions and scores in the run folder.

    Args:
        tables: What `questlib.data.read_tables` returns.
        recipe: What to train.
        encoder_folder: The pretrained encoder.
        run_folder: Takes config, history, fold folders, predictions and scores.
        cache_folder: Holds tokenised text.
        clock: Times the steps.
        devices: As many folds train at once, one process per device; on one device they train here, one by one. Where
            None, all GPUs that compute, but one where a launcher gave this process its own.

    Returns:
        Out-of-fold and test predictions.

    Raises:
        ValueError: If the layout's passes are longer than the encoder's positions reach.
    """
    limit = longest_pass(AutoConfig.from_pretrained(encoder_folder))
    if recipe.layout.max_length > limit:
        raise ValueError(
            f"max_length must not exceed what the encoder reads, however: {recipe.layout.max_length=}, {limit=}"
        )
    fold_of_row = recipe.assign_folds(tables)
    if recipe.leaks:
        logger.warning("split=random leaks: a question stands on both sides, and the score reads too high")
    write_json(run_folder / CONFIG, asdict(recipe))
    tokenizer = load_tokenizer(encoder_folder)
    tokenizer.save_pretrained(run_folder / TOKENIZER)
    passes = (
        encode_passes(tables.train, tokenizer, recipe.layout, cache_folder=cache_folder),
        encode_passes(tables.test, tokenizer, recipe.layout, cache_folder=cache_folder),
    )
    clock.finish_step("tokenise")
    out_of_fold = np.full((len(tables.train), len(TARGETS)), np.nan)
    test_predictions, history = [], []
    rows = [
        _split_rows(recipe, fold_of_row, fold=fold, questions=question_of(tables.train))
        for fold in range(recipe.folds_to_train)
    ]
    arguments = {
        f"fold {fold + 1} of {recipe.folds_to_train}": (
            tables, passes, rows[fold], recipe, recipe.settings.seed + fold, encoder_folder, tokenizer.pad_token_id,
            run_folder / f"fold-{fold}", cache_folder,
        )
        for fold in range(recipe.folds_to_train)
    }  # fmt: skip
    if devices is None:
        devices = [pick_device()] if "LOCAL_RANK" in os.environ else pick_devices()
    for fold, trained in enumerate(run_on_devices(_train_fold, arguments, devices=devices)):
        out_of_fold[rows[fold].scored], fold_test_predictions, records = trained
        test_predictions.append(fold_test_predictions)
        history += [record | {"fold": fold} for record in records]
        write_json(run_folder / HISTORY, history)
        clock.finish_step(f"fold {fold}")
    predictions = FoldPredictions(
        out_of_fold=out_of_fold, fold_of_row=fold_of_row, test=np.mean(test_predictions, axis=0)
    )
    known, ids = predictions.known, tables.train[ID].to_numpy()
    write_predictions(run_folder / OUT_OF_FOLD, out_of_fold[known], ids=ids[known], folds=fold_of_row[known])
    write_predictions(run_folder / TEST_PREDICTIONS, predictions.test, ids=tables.test[ID].to_numpy())
    write_json(run_folder / SCORES, score_folds(predictions, tables, leaks=recipe.leaks))
    return predictions


@dataclass(frozen=True, kw_only=True)
class _FoldRows:
    trained: IndexArray
    held_out: IndexArray | None
    scored: IndexArray


def _split_rows(recipe: Recipe, fold_of_row: IndexArray, *, fold: int, questions: npt.NDArray) -> _FoldRows:
    scored, trained = np.flatnonzero(fold_of_row == fold), np.flatnonzero(fold_of_row != fold)
    if not recipe.stop_share:
        return _FoldRows(trained=trained, held_out=None, scored=scored)
    seed = recipe.settings.seed + fold
    trained, held_out = hold_out_questions(trained, questions=questions, share=recipe.stop_share, seed=seed)
    return _FoldRows(trained=trained, held_out=held_out, scored=scored)


def _train_fold(
    tables: Tables,
    passes: tuple[datasets.Dataset, datasets.Dataset],
    rows: _FoldRows,
    recipe: Recipe,
    seed: int,
    encoder_folder: Path,
    pad_token_id: int,
    folder: Path,
    cache_folder: Path,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[dict]]:
    train_passes, test_passes = passes
    encoder = MetadataEncoder(**recipe.metadata).fit(tables.train.iloc[rows.trained])
    metadata = encoder.transform(tables.train)
    targets = tables.train[list(TARGETS)].to_numpy(dtype=np.float64)

    def choose(chosen: IndexArray) -> QuestRows:
        return QuestRows(train_passes, metadata[chosen], targets=targets[chosen], rows=chosen)

    set_seed(seed)
    model = QuestModel.from_encoder(
        encoder_folder, n_kinds=recipe.layout.n_kinds, metadata_width=metadata.shape[1], **recipe.model
    )
    collator = PassCollator(pad_token_id=pad_token_id)
    settings = replace(recipe.settings, seed=seed)
    history = fit_stages(
        model,
        recipe.stages,
        train_rows=choose(rows.trained),
        stop_rows=None if rows.held_out is None else choose(rows.held_out),
        collator=collator,
        settings=settings,
        folder=folder,
        cache_folder=cache_folder,
    )
    save_fold(folder, model, encoder)
    test_rows = QuestRows(test_passes, encoder.transform(tables.test))
    precision = pick_precision(settings.precision, model.device)
    scored_predictions, test_predictions = (
        predict(model, chosen, collator, batch_size=2 * settings.batch_size, precision=precision)
        for chosen in (choose(rows.scored), test_rows)
    )
    return scored_predictions, test_predictions, history


def score_folds(predictions: FoldPredictions, tables: Tables, *, leaks: bool) -> dict:
    """Score out-of-fold predictions as `scores.json` keeps them.

    Args:
        predictions: What the folds predicted.
        tables: Gives targets and questions.
        leaks: Whether the split leaks; said in the protocol.

    Returns:
        `protocol`, `leaks`, and under `raw` the score of one row per question, that of all rows, and each fold's.
    """
    known = predictions.known
    predicted, questions = predictions.out_of_fold[known], question_of(tables.train)[known]
    targets = tables.train.loc[known, list(TARGETS)].to_numpy(dtype=np.float64)
    folds = predictions.fold_of_row[known]
    by_fold = [
        {"fold": int(fold)}
        | score_predictions(predicted[folds == fold], targets[folds == fold], questions=questions[folds == fold])
        for fold in np.unique(folds)
    ]
    split = "rows split at random, which LEAKS: the score reads too high" if leaks else "folds grouped by question"
    return {
        "protocol": f"out of fold, {split}; one random row per question, averaged over draws",
        "leaks": leaks,
        "raw": {
            "one_row_per_question": score_predictions(predicted, targets, questions=questions),
            "all_rows": score_predictions(predicted, targets),
            "by_fold": [
                {name: fold[name] for name in ("fold", "mean", "mean_without_rare", "n_rows")} for fold in by_fold
            ],
        },
    }
