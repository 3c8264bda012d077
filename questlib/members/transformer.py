"""The transformer with its metadata skip connection as a member."""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
from transformers import set_seed

from questlib.batches import PassCollator, QuestRows
from questlib.data import IndexArray, fill_nulls, hold_out_questions, question_of
from questlib.devices import keep_precision, pick_device, pick_precision
from questlib.marks import hash_text
from questlib.members.base import FloatArray, Member
from questlib.metadata import MetadataEncoder
from questlib.model.body import read_config
from questlib.model.longest import longest_pass
from questlib.model.prediction import predict
from questlib.model.quest import QuestModel
from questlib.plan import Speed
from questlib.pretrained import find_encoder, hash_encoder, refuse_damaged
from questlib.processes import find_launched
from questlib.recipe import TransformerRecipe
from questlib.run_folder import read_json, write_json
from questlib.schema import INPUT_COLUMNS, QUESTION, TARGETS
from questlib.stage import PseudoLabelStage
from questlib.targets import RankScale, weigh_by_spread
from questlib.text import PASSES, encode_passes, load_tokenizer, refuse_unfit
from questlib.training.checkpoint import Checkpoints
from questlib.training.speed import measure_speed
from questlib.training.stages import check_stages, fit_stages
from questlib.training.states import StateRows, are_cached, cache_states
from questlib.typed_json import write_typed

_STATE, _TOKENIZER = "transformer.json", "tokenizer"


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What a training begins with."""

    model: QuestModel
    train_rows: QuestRows
    stop_rows: QuestRows | None
    unrated_rows: QuestRows | None


class TransformerMember(Member[TransformerRecipe]):
    """An encoder fine-tuned in stages; its recipe is a `questlib.recipe.TransformerRecipe`.

    Attributes:
        precision: What it was trained in: "bf16", "fp16" or "fp32".
    """

    recipe_class = TransformerRecipe

    def check(self) -> None:
        """Refuse an encoder that is not here, is not finite or reads too little, and stages that name nothing of it."""
        model = self._begin(self._open_encoder(), metadata_width=0)
        check_stages(model, self.recipe.stages, collator=self._collator, settings=self.recipe.settings)

    def _open_encoder(self) -> Path:
        folder = find_long_enough(self.recipe)
        self._tokenizer = load_tokenizer(folder)
        return folder

    def _begin(self, encoder_folder: Path, *, metadata_width: int) -> QuestModel:
        n_kinds, options = len(PASSES[self.recipe.layout.layout]), asdict(self.recipe.model)
        model = QuestModel.from_encoder(encoder_folder, n_kinds=n_kinds, metadata_width=metadata_width, **options)
        refuse_unfit(self._tokenizer, folder=encoder_folder, n_embeddings=_count_embeddings(model))
        return model

    def measure(self, frame: pd.DataFrame, *, rows: IndexArray, test: pd.DataFrame) -> Speed:
        """Train for a few steps and predict a few rows; what was learned is thrown away."""
        start = time.monotonic()
        given = self._prepare(fill_nulls(frame), rows, keeps_states=False)
        before = time.monotonic() - start
        return measure_speed(
            given.model,
            self.recipe.stages,
            train_rows=given.train_rows,
            stop_rows=given.stop_rows,
            collator=self._collator,
            settings=self.recipe.settings,
            folder=self.checkpoint_folder or self.cache_folder,
            cache_folder=self.cache_folder,
            n_unread=(self._count_unread(frame, given.model), self._count_unread(test, given.model)),
            before=before,
            n_unrated=len(test),
        )

    def _fit(self, frame: pd.DataFrame, rows: IndexArray) -> None:
        if self._rates_rows and self.unrated is None:
            raise ValueError(
                "a pseudo_label stage must have rows to rate, however unrated is None; give fit a table as unrated, or "
                "leave the stage out"
            )
        recipe, given = self.recipe, self._prepare(frame, rows)
        self._model = given.model
        self.history = fit_stages(
            self._model,
            (recipe.stages * recipe.cycles)[: len(recipe.epochs(self.share))],
            train_rows=given.train_rows,
            stop_rows=given.stop_rows,
            unrated_rows=given.unrated_rows,
            collator=self._collator,
            settings=replace(recipe.settings, precision=self.precision),
            folder=self.log_folder,
            cache_folder=self.cache_folder,
            checkpoints=self._open_checkpoints(frame.iloc[rows]),
            deadline=self.deadline,
            share=self.share.epochs,
            notes=self.notes,
        )

    def _open_checkpoints(self, known: pd.DataFrame) -> Checkpoints | None:
        if self.checkpoint_folder is None or find_launched().size > 1:
            return None  # of several processes that train one model, none has the state of them all
        # Where the encoder lies may change, what it holds may not; more folds are another's business.
        digest = hash_encoder(find_encoder(self.recipe.encoder))
        recipe = write_typed(replace(self.recipe, encoder=digest, folds_to_train=1))
        # What rows are called counts for nothing; their question decides which are held out.
        content = pd.util.hash_pandas_object(known[[*INPUT_COLUMNS[1:], QUESTION, *TARGETS]], index=False)
        told = [json.dumps(recipe), content.tolist()]
        if self._rates_rows and self.unrated is not None:
            told.append(pd.util.hash_pandas_object(self.unrated[list(INPUT_COLUMNS[1:])], index=False).tolist())
        return Checkpoints(self.checkpoint_folder, of=hash_text("".join(map(str, told))))

    def _prepare(self, frame: pd.DataFrame, rows: IndexArray, *, keeps_states: bool = True) -> "_Given":
        recipe, encoder_folder = self.recipe, self._open_encoder()
        held_out, seed = None, recipe.settings.seed
        if recipe.stop_share:
            rows, held_out = hold_out_questions(rows, questions=question_of(frame), share=recipe.stop_share, seed=seed)
        self._metadata = MetadataEncoder(**asdict(recipe.metadata)).fit(frame.iloc[rows])
        self.precision = pick_precision(recipe.settings.precision, pick_device())
        targets, metadata = frame[list(TARGETS)].to_numpy(dtype=float), self._encode_metadata(frame)
        if recipe.target_scale == "rank":
            targets = RankScale().fit(targets[rows]).transform(targets)
        set_seed(seed)
        model = self._begin(encoder_folder, metadata_width=metadata.shape[1])
        if recipe.target_weighing == "inverse_spread":
            model.weigh_targets(weigh_by_spread(targets[rows]))
        table, unrated = self._read_table(frame, model if keeps_states else None), None
        if self._rates_rows and self.unrated is not None:
            unrated = self._read_table(self.unrated, model).choose(
                np.arange(len(self.unrated)), self._encode_metadata(self.unrated)
            )
        return _Given(
            model=model,
            train_rows=table.choose(rows, metadata[rows], targets=targets[rows]),
            stop_rows=None
            if held_out is None
            else table.choose(held_out, metadata[held_out], targets=targets[held_out]),
            unrated_rows=unrated,
        )

    @property
    def _rates_rows(self) -> bool:
        return any(isinstance(stage, PseudoLabelStage) for stage in self.recipe.stages)

    def _predict(self, frame: pd.DataFrame, rows: IndexArray) -> FloatArray:
        device = pick_device()
        self._model.to(device)  # type: ignore[arg-type]
        chosen = self._read_table(frame, self._model).choose(rows, self._encode_metadata(frame.iloc[rows]))
        # The size of a batch decides how it is rounded, so it is that of the recipe wherever the member predicts.
        return predict(
            self._model,
            chosen,
            self._collator,
            batch_size=2 * self.recipe.settings.batch_size,
            precision=keep_precision(self.precision, device),
        )

    def _save(self, folder: Path) -> None:
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder / _TOKENIZER)
        write_json(folder / _STATE, {"precision": self.precision, "metadata": json.loads(self._metadata.to_json())})

    def _load(self, folder: Path) -> None:
        state = read_json(folder / _STATE)
        self.precision = state["precision"]
        self._metadata = MetadataEncoder.from_json(json.dumps(state["metadata"]))
        self._tokenizer = load_tokenizer(folder / _TOKENIZER)
        self._model = QuestModel.from_pretrained(folder)
        refuse_unfit(self._tokenizer, folder=folder / _TOKENIZER, n_embeddings=_count_embeddings(self._model))

    def _encode_metadata(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        return np.asarray(self._metadata.transform(frame))  # a user may have set scikit-learn to give tables

    @property
    def _collator(self) -> PassCollator:
        known = self._tokenizer
        return PassCollator(
            pad_token_id=known.pad_token_id, mask_token_id=known.mask_token_id, special_ids=known.all_special_ids
        )

    def _count_unread(self, frame: pd.DataFrame, model: QuestModel) -> int:
        if model.halves is None:
            return 0
        rows, device = self._tokenize(fill_nulls(frame)), pick_device()
        precision = keep_precision(self.precision, device)
        model.to(device)  # type: ignore[arg-type]  # where they were read decides what was made of them
        return 0 if are_cached(model, rows, folder=self.cache_folder, precision=precision) else len(rows)

    def _tokenize(self, frame: pd.DataFrame) -> QuestRows:
        passes = encode_passes(frame, self._tokenizer, self.recipe.layout, cache_folder=self.cache_folder)
        return QuestRows(passes, np.zeros((len(passes), 0), dtype=np.float32))

    def _read_table(self, frame: pd.DataFrame, model: QuestModel | None) -> "_ReadTable":
        """Tokenise a table, and read it through what is frozen of a model."""
        rows, states = self._tokenize(frame), None
        if model is not None and model.halves is not None:
            device = pick_device()
            states = cache_states(
                model.to(device),  # type: ignore[arg-type]
                rows,
                self._collator,
                folder=self.cache_folder,
                batch_size=2 * self.recipe.settings.batch_size,
                precision=keep_precision(self.precision, device),
            )
        return _ReadTable(passes=rows.passes, states=states)


def _count_embeddings(model: QuestModel) -> int:
    return len(model.body.get_input_embeddings().weight)


def find_long_enough(recipe: TransformerRecipe) -> Path:
    """Find the folder of a member's encoder; one that is not here, or reads shorter passes, is refused."""
    folder = find_encoder(recipe.encoder)
    refuse_damaged(folder)
    limit = longest_pass(read_config(folder), at_most=recipe.layout.max_length)
    if recipe.layout.max_length > limit:
        raise ValueError(
            f"max_length of member {recipe.name!r} must not exceed what the encoder {recipe.encoder} reads, "
            f"however: {recipe.layout.max_length=}, {limit=}"
        )
    return folder


@dataclass(frozen=True, kw_only=True)
class _ReadTable:
    """A table's passes, and their states past the frozen layers where those are kept."""

    passes: datasets.Dataset
    states: npt.NDArray[np.float16] | None

    def choose(self, rows: IndexArray, metadata: npt.NDArray, *, targets: FloatArray | None = None) -> QuestRows:
        """Give some rows with their metadata, (n_chosen, metadata_width), and targets, (n_chosen, 30)."""
        chosen = QuestRows(self.passes, metadata, targets=targets, rows=rows)
        if self.states is None:
            return chosen
        return StateRows(chosen, self.states, ends=np.cumsum(np.asarray(self.passes["length"]))[rows])
