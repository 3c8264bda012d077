"""What a kind of stage is given, and what it owes."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from questlib.batches import PassCollator, QuestRows
from questlib.model.quest import QuestModel
from questlib.recipe import TrainingSettings
from questlib.stage import Stage
from questlib.training.best_weights import BestWeights
from questlib.training.keeper import Keeper
from questlib.training.pace import Pace
from questlib.training.tape import Tape


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """One stage of a training."""

    model: QuestModel  # on the device it is trained on
    stage: Stage
    number: int  # its place among the stages, from 0
    n_stages: int
    train_rows: QuestRows
    stop_rows: QuestRows | None  # questions that are neither learned from nor scored
    unrated_rows: QuestRows | None = None  # such as the test's
    collator: PassCollator
    settings: TrainingSettings
    precision: str  # "bf16", "fp16" or "fp32"
    best: BestWeights  # of all stages
    keeper: Keeper  # of all stages
    tape: Tape  # of this stage
    pace: Pace  # of all stages
    notes: list[str]  # takes what did not go as asked
    folder: Path  # for evaluations and TensorBoard logs
    cache_folder: Path  # for what a frozen body makes of the rows


class StageKind:
    """One way to train."""

    def __init__(self, job: StageJob) -> None:
        self.job = job

    @classmethod
    def check(cls, model: QuestModel, stage: Stage, collator: PassCollator) -> None:
        """Refuse a stage that cannot be carried out on a model here, before the first one is trained."""
        match_parameters(model, stage.trainable)

    def train(self) -> list[dict]:
        """Train the job's model in place; give a record per evaluation or logged loss, with its `step` and `epoch`."""
        raise NotImplementedError


def match_parameters(model: QuestModel, patterns: Sequence[str]) -> set[str]:
    """Find the parameters that shell-style patterns name; a pattern that matches none is refused."""
    names = [name for name, _ in model.named_parameters()]
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatch(name, pattern)}
        if not found:
            raise ValueError(
                f"a trainable pattern must match a parameter, however: {pattern!r}; names look like {names[-1]!r}"
            )
        matched |= found
    return matched
