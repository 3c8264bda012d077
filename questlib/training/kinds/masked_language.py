"""Training of the body on the rows' own text: words are masked, and guessed from those around them."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import set_seed

from questlib.batches import PassCollator, QuestRows
from questlib.cpu.step import split_batch
from questlib.model.quest import QuestModel
from questlib.processes import find_launched
from questlib.stage import MaskedLanguageStage, Stage
from questlib.training.kinds.fine_tune import FineTune
from questlib.training.trainer import QuestTrainer

_NOT_MASKED = -100  # what torch leaves out of a cross-entropy
# Of the words that are to be guessed, as arXiv 1810.04805 has it: the rest is another word, or left as it is.
_SHOWN_AS_MASK, _SHOWN_AS_ANOTHER = 0.8, 0.1


class MaskedLanguage(FineTune):
    """Fine-tune what the stage names of the body by masked words; it reads no rating, and is not evaluated."""

    @classmethod
    def check(cls, model: QuestModel, stage: Stage, collator: PassCollator) -> None:
        """Refuse an encoder without a mask token, several processes, and what cannot be fine-tuned either."""
        super().check(model, stage, collator)
        if collator.mask_token_id is None:
            raise ValueError(
                f"a masked_language stage needs an encoder with a mask token, however the tokenizer of the "
                f"{model.body.config.model_type} has none; leave stage {stage.name!r} out"
            )
        if find_launched().size > 1:
            raise ValueError(
                f"a masked_language stage must be trained by one process, however {find_launched().size} were "
                f"launched; leave the launcher out, or stage {stage.name!r}"
            )

    def train(self) -> list[dict]:
        """Train the job's body in place; the head that guesses is gone when it ends."""
        job = self.job
        # Frozen layers read other words each time, so that there is nothing to keep of them.
        plain = QuestRows(job.train_rows.passes, job.train_rows.metadata)
        self.job = replace(job, train_rows=plain, stop_rows=None)
        set_seed(job.settings.seed + job.number)  # of the new head: the same where a training goes on with this stage
        words = _words_of(job.model)
        job.model.head.add_module("words", _WordHead(job.model.body.config.hidden_size, words).to(job.model.device))
        deadline = job.pace.deadline
        job.pace.deadline = (time.monotonic() + deadline) / 2
        try:
            return super().train()
        finally:
            job.pace.deadline = deadline
            del job.model.head.words

    def _build_trainer(self, **options: Any) -> QuestTrainer:  # noqa: ANN401  as the trainer's
        assert isinstance(self.job.stage, MaskedLanguageStage)
        return _MaskedTrainer(masked_share=self.job.stage.masked_share, **options)


class _WordHead(nn.Module):
    """Guess words from states of tokens: logits are products with the words' own vectors, which stay as they are.

    Shape:
        (n_tokens, body_width) -> (n_tokens, n_words).
    """

    def __init__(self, width: int, words: nn.Embedding) -> None:
        super().__init__()
        n_words, word_width = words.weight.shape
        self.transform = nn.Sequential(nn.Linear(width, word_width), nn.GELU(), nn.LayerNorm(word_width))
        self.bias = nn.Parameter(torch.zeros(n_words))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        vectors = self.transform(states.float())
        return functional.linear(vectors.to(words.dtype), words.detach()).float() + self.bias


class _MaskedTrainer(QuestTrainer):
    """A QuestTrainer whose loss is that of guessing masked words."""

    compares_rows = False

    def __init__(self, *, masked_share: float, **options: Any) -> None:  # noqa: ANN401  as QuestTrainer's
        super().__init__(**options)
        self._masked_share = masked_share

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Mask a batch, and add its gradients."""
        assert isinstance(self.data_collator, PassCollator)
        n_words = _words_of(model).num_embeddings
        masked = mask_words(inputs, self.data_collator, share=self._masked_share, n_words=n_words)
        return super().training_step(model, masked, num_items_in_batch)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: object, **__: object) -> Tensor:
        """Give the mean cross-entropy of the words that are masked."""
        assert isinstance(model, QuestModel)
        mask = inputs["attention_mask"]
        truth = inputs["words"][mask.bool()]
        is_masked = truth != _NOT_MASKED
        with self.accelerator.autocast():  # which is round what a model is called by, and this is not it
            states = model.read_tokens(
                attention_mask=mask, input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"]
            )
            logits = model.head.get_submodule("words")(states[is_masked], _words_of(model).weight)
        # A part of a batch may have none.
        return functional.cross_entropy(logits, truth[is_masked], reduction="sum") / is_masked.sum().clamp(min=1)

    def _differentiate_in_parts(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        parts, losses = split_batch(self._prepare_inputs(inputs), self._n_parts), []
        for part in parts:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part) / len(parts) / self.current_gradient_accumulation_steps
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def mask_words(batch: dict[str, Tensor], collator: PassCollator, *, share: float, n_words: int) -> dict[str, Tensor]:
    """Mask some words of a batch's passes, and add what they are: `words`, as `input_ids`, -100 where none is masked.

    Args:
        batch: What `collator` made of rows with tokens.
        collator: Knows the token that stands for a masked one, and those that are no words.
        share: Of the words, that are to be guessed.
        n_words: That the tokenizer knows: one in ten of those masked is any of them, one in ten is left as it is.
    """
    ids = batch["input_ids"]
    no_word = torch.isin(ids, ids.new_tensor([collator.pad_token_id, *collator.special_ids]))
    is_masked = (torch.rand(ids.shape, device=ids.device) < share) & ~no_word & batch["attention_mask"].bool()
    shown_as = torch.rand(ids.shape, device=ids.device)
    shown = torch.where(shown_as < _SHOWN_AS_MASK, collator.mask_token_id or 0, torch.randint_like(ids, n_words))
    shown = torch.where(shown_as < _SHOWN_AS_MASK + _SHOWN_AS_ANOTHER, shown, ids)
    masked = {"input_ids": torch.where(is_masked, shown, ids), "words": ids.masked_fill(~is_masked, _NOT_MASKED)}
    # Passes that said the same do so no more.
    return {name: each for name, each in batch.items() if name != "texts"} | masked


def _words_of(model: nn.Module) -> nn.Embedding:
    assert isinstance(model, QuestModel)
    words = model.body.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    return words
