"""One stretch of training, in frozen dataclasses: checked as they are made. Importing this needs no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from questlib.checks import Checked, between, one_of, take_tuple

SCHEDULES = ["linear", "cosine", "constant", "constant_with_warmup"]
# What names of the network's parameters begin with.
_ROOTS = ("body.", "head.")


@dataclass(frozen=True, kw_only=True)
class Stage(Checked):
    """One stretch of training with its own parameters, learning rates and schedule."""

    kind: ClassVar[str] = "fine_tune"
    name: str  # as the log and the report show it
    trainable: tuple[str, ...]  # patterns over parameter names, such as "head.*"; what none matches is frozen
    epochs: float = between(1e-3, 1000)  # passes over the training rows; stopping may end the stage sooner
    learning_rate: float = between(0, 1)  # of the body, the peak
    head_learning_rate: float = between(0, 1)  # of the head, the peak
    layer_decay: float = between(0.05, 1, 1.0)  # a layer's rate, as a share of that of the next higher one
    average_share: float = between(0, 1, 0.0)  # share of the last steps whose weights are averaged in the end
    schedule: str = one_of(SCHEDULES, "linear")  # "linear" and "cosine" fall to 0
    warmup_share: float = between(0, 1, 0.0)  # share of the stage's steps in which the rate rises from 0
    weight_decay: float = between(0, 10, 0.01)  # of matrices; biases and norms have none

    def __post_init__(self) -> None:
        take_tuple(self, "trainable", of=str)
        super().__post_init__()
        if self.schedule == "constant" and self.warmup_share:
            raise ValueError(
                f"a stage whose schedule is constant has no warm-up, however {self.warmup_share=} in stage "
                f"{self.name!r}; name the schedule constant_with_warmup, or set warmup_share to 0"
            )
        for pattern in self.trainable:  # what more it takes to match, the network knows
            begin = re.split(r"[*?\[]", pattern)[0]
            if not any(root.startswith(begin) or begin.startswith(root) for root in _ROOTS):
                raise ValueError(
                    f"a trainable pattern must match a parameter, however: {pattern!r}; their names begin with "
                    f"{' or '.join(_ROOTS)}"
                )

    def _refuse_others(self, root: str, what: str, advice: str) -> None:
        for pattern in self.trainable:
            if not pattern.startswith(root):
                raise ValueError(
                    f"a {self.kind} stage must train {what}, however: {pattern!r} is among its trainable patterns; "
                    f"{advice}"
                )


@dataclass(frozen=True, kw_only=True)
class LoraStage(Stage):
    """Training of low-rank additions to the body's matrices (arXiv 2106.09685), merged into them when it ends.

    Gradients and what the optimiser remembers are those of the additions alone; what is kept for going backward stays,
    and is most of the memory. `trainable` names what of the head learns beside the additions.
    """

    kind: ClassVar[str] = "lora"
    rank: int = between(1, 1024, 16)  # of an addition
    alpha: int = between(1, 100_000, 32)  # additions are scaled by alpha / rank
    quantize: bool = False  # round the matrices to 4 bits for it (QLoRA, arXiv 2305.14314); they stay as rounded

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_others(
            "head.", "nothing of the body but additions to it", 'name parts of the head alone, such as "head.*"'
        )


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageStage(Stage):
    """Training of the body to guess masked words of the rows' own text (arXiv 1810.04805), before it reads a rating.

    `trainable` names what of the body learns; `head_learning_rate` is that of the head that guesses, which is thrown
    away when the stage ends. It takes half the time that is left at most.
    """

    kind: ClassVar[str] = "masked_language"
    masked_share: float = between(0.01, 0.9, 0.15)  # of the words

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_others("body.", "the body alone", 'name parts of the body, such as "body.*"')


@dataclass(frozen=True, kw_only=True)
class PseudoLabelStage(Stage):
    """Fine-tuning on the test's rows too, rated by the model as the stages before left it (pseudo-labels, Lee 2013).

    No rating of a scored row is read: the test has none, and what rates it has not seen those either.
    """

    kind: ClassVar[str] = "pseudo_label"


def refuse_misplaced(stages: Sequence[Stage], *, cycles: int) -> None:
    """Refuse stages that read no rating after those that do, or alone, and those that rate before any was read."""
    are_masked = [isinstance(stage, MaskedLanguageStage) for stage in (*stages,) * cycles]
    if any(are_masked[1:]) or are_masked[-1]:
        raise ValueError(
            "a masked_language stage must come once, in front of those that read ratings, however: "
            f"{[stage.name for stage in stages]} in {cycles=}; put it first, and set cycles to 1"
        )
    first = stages[int(are_masked[0])]
    if isinstance(first, PseudoLabelStage):
        raise ValueError(
            f"a pseudo_label stage must come after one that reads ratings, however {first.name!r} is the first; put "
            "another in front of it"
        )


STAGE_RECIPES: dict[str, type[Stage]] = {
    each.kind: each for each in (Stage, LoraStage, MaskedLanguageStage, PseudoLabelStage)
}
