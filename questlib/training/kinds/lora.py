"""Low-rank additions to the body's matrices, by peft: trained, then merged, so that no one sees them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import set_seed

from questlib.batches import PassCollator
from questlib.checks import refuse_missing
from questlib.model.quest import QuestModel
from questlib.stage import LoraStage, Stage
from questlib.training.checkpoint import is_added
from questlib.training.kinds.fine_tune import FineTune


class Lora(FineTune):
    """Fine-tune additions to each matrix of the layers that learn, and what the stage names of the head."""

    @classmethod
    def check(cls, model: QuestModel, stage: Stage, collator: PassCollator) -> None:
        """Refuse it where peft is missing, a pattern matches nothing, or all layers are frozen."""
        super().check(model, stage, collator)
        refuse_missing("peft", what="a lora stage", install="questlib[lora]")

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
        matrices = list(_learning_matrices(job.model))
        config = LoraConfig(r=stage.rank, lora_alpha=stage.alpha, target_modules=matrices)
        set_seed(job.settings.seed + job.number)  # of the additions: the same where a training goes on with this stage
        with _without_torchao():
            additions = LoraModel(job.model.body, config, "default")
        records = super().train()
        job.best.restore(job.model)
        additions.merge_and_unload()
        vars(job.model.body).pop("peft_config", None)  # some versions leave it there
        self._keep_merged([f"body.{name}.weight" for name in matrices])
        return records

    def _keep_merged(self, names: list[str]) -> None:
        # The best weights are known by what they are called without additions.
        best, weights = self.job.best, dict(self.job.model.named_parameters())
        for name in names:
            weights[name].requires_grad_(True)  # these learned, whatever was added to them
        if best.weights:
            plain = {name: weight for name, weight in best.weights.items() if not is_added(name)}
            best.weights = plain | {name: weights[name].detach().to("cpu", copy=True) for name in names}


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
