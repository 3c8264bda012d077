"""What fits into the time that is left: which folds of which members, and how much of their epochs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

# Folds that are shortened keep this share of their epochs at least; below it, the time goes to other members' folds, or
# to one stage of one fold.
LEAST_SHARE = 0.5
# A member's first fold is worth having from this share on; with less, its time is left unused.
_LEAST_ALONE = 0.02
# Whole folds that take this share of the time are left whole.
_ENOUGH = 0.94
_PRECISION = 1e-3


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a fold is trained: a share of the epochs, in [0, 1], of all stages or of the first alone."""

    epochs: float
    first_stage_alone: bool = False

    def __bool__(self) -> bool:
        return self.epochs > 0

    def at_least(self, other: "Share") -> "Share":
        """Give the larger of both, in epochs and in stages."""
        is_alone = self.first_stage_alone and other.first_stage_alone
        return Share(epochs=max(self.epochs, other.epochs), first_stage_alone=is_alone)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long a fold of a member takes on this machine, in seconds, as a few steps told.

    Args:
        before: Reading the text and building the model.
        stages: Of each stage, whatever its epochs: what a frozen body reads, the evaluation of the beginning.
        epochs: An epoch of each stage, with its evaluations. Stages of later cycles take as long as those of the first.
        row: Predicting one row.
        after: Writing it all.
        read_train: Reading the training table through layers that are frozen, once for all folds; 0 where it was.
        read_test: The same of the test, which comes after the first fit.
    """

    before: float
    stages: tuple[float, ...]
    epochs: tuple[float, ...]
    row: float
    after: float
    read_train: float = 0.0
    read_test: float = 0.0

    @property
    def once(self) -> float:
        """Seconds of what the first of a member's folds does for all of them."""
        return self.read_train + self.read_test

    def fit_seconds(self, epochs: Sequence[float]) -> float:
        """Tell how long a fit takes, by the epochs of its stages."""
        times = (
            self.stages[number % len(self.stages)] + self.epochs[number % len(self.epochs)] * each
            for number, each in enumerate(epochs)
        )
        return self.before + sum(times)

    def predict_seconds(self, n_rows: int) -> float:
        """Tell how long it takes to predict some rows and to write the fold."""
        return self.row * n_rows + self.after


NOTHING, WHOLE = Share(epochs=0.0), Share(epochs=1.0)
Cost = Callable[[Share], float]  # seconds of a fold that is trained to a share


def choose_shares(
    costs: Sequence[Cost], *, is_first: Sequence[bool], seconds: float, n_devices: int = 1, busy: Sequence[float] = ()
) -> list[Share]:
    """Choose what of some folds, the most valuable first, is done in the time that is left.

    As many as fit are trained whole. If much time is left then, they are shortened to one share, half at least, so that
    one more fits too. If that is not enough, the next one is trained in its first stage alone, to the share that still
    fits, if it is the first fold of its member. All else is dropped.

    Args:
        costs: What each fold takes, in seconds, by its share; grows with it.
        is_first: Whether each fold is its member's first.
        seconds: What is left.
        n_devices: Folds that train side by side.
        busy: Seconds until each device is free that is not.

    Returns:
        A share for each fold.
    """

    def time_of(shares: Sequence[Share]) -> float:
        return total_seconds(costs, shares, n_devices=n_devices, busy=busy)

    def largest(build: Callable[[float], list[Share]]) -> float:
        low, high = 0.0, 1.0
        while high - low > _PRECISION:
            middle = (low + high) / 2
            low, high = (middle, high) if time_of(build(middle)) <= seconds else (low, middle)
        return low

    n_whole = sum(time_of([WHOLE] * n_folds) <= seconds for n_folds in range(1, len(costs) + 1))
    chosen = [WHOLE] * n_whole
    if n_whole < len(costs) and time_of(chosen) < _ENOUGH * seconds:
        share = largest(lambda epochs: [Share(epochs=epochs)] * (n_whole + 1))
        if share >= LEAST_SHARE:
            chosen = [Share(epochs=share)] * (n_whole + 1)
        elif is_first[n_whole]:
            alone = largest(lambda epochs: [*chosen, Share(epochs=epochs, first_stage_alone=True)])
            chosen += [Share(epochs=alone, first_stage_alone=True)] if alone >= _LEAST_ALONE else []
    return chosen + [NOTHING] * (len(costs) - len(chosen))


def total_seconds(
    costs: Sequence[Cost], shares: Sequence[Share], *, n_devices: int = 1, busy: Sequence[float] = ()
) -> float:
    """Tell when the last of some folds ends, each on the device that is free first; arguments as `choose_shares`."""
    ends = sorted([*busy, *[0.0] * (n_devices - len(busy))])
    for cost, share in zip(costs, shares, strict=False):
        if share:
            heappush(ends, heappop(ends) + cost(share))
    return max(ends)
