"""What a stage met, step by step: a resumed stage goes through it again without computing.

Data order, schedule, patience and logs are then where they were, because they took the same way; no library has to be
told of them.
"""

from dataclasses import dataclass, field


@dataclass
class Tape:
    """Losses, evaluations, changes of pace and log of one stage, in order; the known are played before more come.

    Attributes:
        losses: Of each batch.
        evaluations: Metrics of each evaluation.
        ends: (step, last step) where the stage was told to end at another step.
        records: What the Trainer logged, with `step` and `epoch` of the stage.
        labels: What the stage rated rows without ratings, where it did so, (n_rows, 30).
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)
    labels: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._n_losses, self._n_evaluations = len(self.losses), len(self.evaluations)
        self._played_losses = self._played_evaluations = 0

    @property
    def is_playing(self) -> bool:
        """Whether there are batches that were trained on before."""
        return self._played_losses < self._n_losses

    @property
    def knows_evaluation(self) -> bool:
        """Whether the next evaluation was made before."""
        return self._played_evaluations < self._n_evaluations

    def next_loss(self) -> float:
        """Play the loss of the next batch."""
        self._played_losses += 1
        return self.losses[self._played_losses - 1]

    def next_evaluation(self) -> dict[str, float]:
        """Play the metrics of the next evaluation."""
        self._played_evaluations += 1
        return self.evaluations[self._played_evaluations - 1]
