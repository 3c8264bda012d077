"""Low-rank additions to the body's matrices, whole or in 4 bits, by peft: trained, then merged: no one sees them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import set_seed

from questlib.batches import PassCollator
from questlib.checks import refuse_missing
from questlib.model.quest import QuestModel
from questlib.stage import LoraStage, Stage
from questlib.training.checkpoint import is_added
from questlib.training.four_bits import FourBitLinear
from questlib.training.kinds.fine_tune import FineTune
from questlib.training.trainer import QuestTrainer


class Lora(FineTune):
    """Fine-tune additions to each matrix of the layers that learn, and what the stage names of the head."""

    @classmethod
    def check(cls, model: QuestModel, stage: Stage, collator: PassCollator) -> None:
        """Refuse it where peft is missing, a pattern matches nothing, or all layers are frozen."""
        assert isinstance(stage, LoraStage)
        super().check(model, stage, collator)
        refuse_missing("peft", what="a lora stage", install="questlib[lora]")
        if stage.quantize:
            refuse_missing("bitsandbytes", what="a lora stage that quantizes", install="questlib[eight-bit]")

    @classmethod
    def learns(cls, model: QuestModel, stage: Stage) -> bool:
        """Tell whether there is a matrix to add to."""
        return any(_learning_matrices(model))

    def train(self) -> list[dict]:
        """Train the job's model in place; its parameters are called as before when it ends."""
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        job, stage = self.job, self.job.stage
        assert isinstance(stage, LoraStage)
        body, best = job.model.body, job.best
        matrices = list(_learning_matrices(job.model))
        score = best.best_score
        config = LoraConfig(r=stage.rank, lora_alpha=stage.alpha, target_modules=matrices)
        set_seed(job.settings.seed + job.number)  # of the additions: the same where a training goes on with this stage
        with _without_torchao():
            additions = LoraModel(body, config, "default")
        records = super().train()
        best.restore(job.model)
        for name in matrices:
            wrapped = body.get_submodule(name)
            if isinstance(wrapped.base_layer, FourBitLinear):
                wrapped.base_layer = wrapped.base_layer.to_linear()
        additions.merge_and_unload()
        vars(body).pop("peft_config", None)  # some versions leave it there
        self._keep_merged([f"body.{name}.weight" for name in matrices], has_gained=best.best_score > score)
        return records

    def _build_trainer(self, **options: Any) -> QuestTrainer:  # noqa: ANN401  as the trainer's
        assert isinstance(self.job.stage, LoraStage)
        if self.job.stage.quantize:  # no sooner: where there is no time for the stage, matrices stay as they are
            self._quantize()
        return super()._build_trainer(**options)

    def _quantize(self) -> None:
        best = self.job.best.weights
        for name, wrapped in list(self.job.model.named_modules()):
            layer = getattr(wrapped, "base_layer", None)
            if isinstance(layer, nn.Linear):
                if best:  # what it is by now is part of the best so far
                    best.setdefault(f"{name}.weight", layer.weight.detach().to("cpu", copy=True))
                wrapped.base_layer = FourBitLinear(layer)

    def _keep_merged(self, names: Sequence[str], *, has_gained: bool) -> None:
        # The best weights are known by what they are called without additions.
        best, weights = self.job.best, dict(self.job.model.named_parameters())
        for name in names:
            weights[name].requires_grad_(True)  # these learned, whatever was added to them
        if best.weights:
            plain = {name: weight for name, weight in best.weights.items() if not is_added(name)}
            merged = {name: weights[name].detach().to("cpu", copy=True) for name in names}
            best.weights = plain | merged if has_gained else merged | plain


def _learning_matrices(model: QuestModel) -> Iterator[str]:
    frozen = {id(parameter) for parameter in model.frozen_parameters()}
    for name, module in model.body.named_modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in frozen:
            yield name


@contextmanager
def _without_torchao() -> Iterator[None]:
    # peft asks for it to know its kinds of matrices, of which there are none here, and refuses older ones, such as that
    # of Kaggle's image.
    known = sys.modules.get("torchao")
    sys.modules["torchao"] = None  # type: ignore[assignment]  # which is how Python is told that it is not there
    try:
        yield
    finally:
        del sys.modules["torchao"]
        if known is not None:
            sys.modules["torchao"] = known
