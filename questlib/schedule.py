"""What is trained in the time that is left, planned anew before every fold from what was measured."""

import math
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

from questlib.clock import Clock
from questlib.plan import LEAST_SHARE, WHOLE, Cost, Share, Speed, choose_shares, total_seconds
from questlib.recipe import Recipe
from questlib.standing import Standing
from questlib.tasks import FinishedFold, FoldTask

# After the last fold come the last submission, as long as the longest so far, and the notebook's pictures, about twice
# as long as what came before the training; and a report at home.
_PICTURES = 2.0
_SUBMISSIONS = 1.5
_REPORT_SECONDS = 8.0
# Predicting comes after the deadline of a fit, and may be slower than a few batches told.
_PREDICTION = 1.1
# A quick member's, and that of one that could not be measured.
_UNKNOWN = Speed(before=0.0, stages=(0.0,), epochs=(0.0,), row=0.0, after=0.0)


class Schedule:
    """Plan folds under the limit of a clock.

    Args:
        recipe: What is asked for.
        clock: Knows the limit; is told the plan.
        standing: Knows what is finished, and how long a submission takes.

    Attributes:
        speeds: How fast members are, as far as it was measured.
    """

    def __init__(self, recipe: Recipe, *, clock: Clock, standing: Standing) -> None:
        self.clock = clock
        self.speeds: dict[str, Speed] = {}
        self._recipe = recipe
        self._standing = standing
        self._opening = clock.opening_seconds
        self._factors: dict[str, float] = {}  # how much slower folds were than a few steps told
        self._ends: dict[str, float] = {}

    @property
    def _closing(self) -> float:
        return _REPORT_SECONDS + _PICTURES * self._opening + _SUBMISSIONS * self._standing.seconds

    @property
    def left(self) -> float:
        """Seconds until the end of the training, infinite without a limit."""
        return self.clock.limit - self._closing - time.monotonic()

    def plan(self, waiting: Sequence[FoldTask], *, running: Sequence[FoldTask], n_devices: int) -> FoldTask | None:
        """Plan what is waiting, the most valuable first; give the next with its share and deadline, None without time.

        What was begun in an earlier session goes on as it was planned then, or with more where more fits now.
        """
        now = time.monotonic()
        left = self.left
        progress_of = {task.name: task.read_progress() for task in waiting}
        begun = {*self._standing.finished, *(task.member.name for task in running)}
        begun |= {task.member.name for task in waiting if progress_of[task.name] is not None}
        waiting = self._put_off(waiting, begun=begun, left=left)
        first = waiting[0]
        if math.isinf(self.clock.limit):  # what a limit before had left out is trained after all
            return replace(first, share=WHOLE)
        if first.member.is_quick and (left > 0 or not self._standing.is_scored):
            return first  # whatever the limit is, something is to stand, and its score with it
        begun_before = [progress_of[task.name] for task in waiting]
        busy = [max(0.0, self._ends[task.name] - now) for task in running]
        at_work = {task.member.name for task in running}
        names = [task.member.name for task in waiting]
        leads = [name not in at_work and names.index(name) == place for place, name in enumerate(names)]
        is_first = [lead and name not in self._standing.finished for lead, name in zip(leads, names, strict=True)]
        costs = [
            self._cost(task, progress, once=self._speed_of(task).once if lead else 0.0)
            for task, progress, lead in zip(waiting, begun_before, leads, strict=True)
        ]
        shares = choose_shares(costs, is_first=is_first, seconds=left, n_devices=n_devices, busy=busy)
        shares = [
            share.at_least(progress[0]) if share and progress else share
            for share, progress in zip(shares, begun_before, strict=True)
        ]
        if self.speeds:
            seconds = total_seconds(costs, shares, n_devices=n_devices, busy=busy)
            self.clock.plan(self._describe(waiting, shares, running=running, seconds=seconds))
        if not shares[0]:
            return None
        later = sum(cost(each) for cost, each in zip(costs[1:], shares[1:], strict=True) if each) / n_devices
        after = self._predict_seconds(first) + self._speed_of(first).read_test
        deadline = now + left - later - _PREDICTION * after - self._standing.seconds
        self._ends[first.name] = now + costs[0](shares[0])
        return replace(first, share=shares[0], deadline=deadline)

    def _put_off(self, waiting: Sequence[FoldTask], *, begun: Set[str], left: float) -> list[FoldTask]:
        # Where a machine is too slow for half a fold of a large encoder, whole folds of a small one are worth more.
        half = Share(epochs=LEAST_SHARE)
        firsts = [task for task in waiting if task.member.name not in begun]
        too_slow = {
            each.member.name for each in firsts if self._cost(each, None, once=self._speed_of(each).once)(half) > left
        }
        return sorted(waiting, key=lambda task: task.member.name in too_slow)

    def learn(self, task: FoldTask, outcome: FinishedFold) -> None:
        """Learn from a finished fold how fast its member really is."""
        name = task.member.name
        fit, predict = outcome.fit_seconds, outcome.predict_seconds
        if name not in self.speeds:
            if not task.member.is_quick:
                self.speeds[name] = Speed(before=fit, stages=(0.0,), epochs=(0.0,), row=0.0, after=predict)
            return
        if outcome.epochs:
            expected = self.speeds[name].fit_seconds(outcome.epochs) + self._predict_seconds(task, factor=1.0)
            self._factors[name] = (fit + predict) / (expected + self.speeds[name].once)
        self.speeds[name] = replace(self.speeds[name], read_train=0.0, read_test=0.0)  # that was done for all folds

    def _speed_of(self, task: FoldTask) -> Speed:
        return self.speeds.get(task.member.name, _UNKNOWN)

    def _cost(self, task: FoldTask, kept: tuple[Share, int, float] | None, *, once: float) -> Cost:
        speed = self.speeds.get(task.member.name)
        if speed is None:
            return lambda _: 0.0
        predict = once + self._predict_seconds(task) + self._standing.seconds
        fit = self._fit(task, speed)
        if kept is None:
            return lambda share: fit(task.member.epochs(share)) + predict
        asked, n_stages, n_epochs = kept

        def cost(share: Share) -> float:
            epochs = task.member.epochs(share.at_least(asked))
            done = [*epochs[:n_stages], *[n_epochs][: len(epochs) - n_stages]]
            left = [max(0.0, each - (done[place] if place < len(done) else 0.0)) for place, each in enumerate(epochs)]
            return fit(left) + predict

        return cost

    def _fit(self, task: FoldTask, speed: Speed) -> Callable[[Sequence[float]], float]:
        factor = self._factors.get(task.member.name, 1.0)
        return lambda epochs: factor * speed.fit_seconds(epochs)

    def _predict_seconds(self, task: FoldTask, *, factor: float | None = None) -> float:
        name = task.member.name
        factor = self._factors.get(name, 1.0) if factor is None else factor
        return factor * self._speed_of(task).predict_seconds(len(task.scored_rows) + len(task.tables.test))

    def _describe(
        self, waiting: Sequence[FoldTask], shares: Sequence[Share], *, running: Sequence[FoldTask], seconds: float
    ) -> str:
        parts = []
        for member in self._recipe.members:
            own = [share for task, share in zip(waiting, shares, strict=True) if task.member.name == member.name]
            planned = [share for share in own if share]
            n_begun = len(self._standing.finished.get(member.name, ())) + sum(
                task.member.name == member.name for task in running
            )
            n_folds = n_begun + len(planned)
            folds = (
                f"{n_folds} folds"
                if n_folds == member.folds_to_train
                else f"{n_folds} of {member.folds_to_train} folds"
            )
            epochs = ""
            if member.epochs() and planned:
                asked, fitting = sum(member.epochs()), sum(member.epochs(planned[0]))
                epochs = f" x {asked:g} epochs" if fitting == asked else f" x {fitting:.2g} of {asked:g} epochs"
            parts.append(f"{folds}{epochs} of {member.name}")
        end = (self.clock.elapsed + seconds + self._closing) / 60
        return f"fits: {', '.join(parts)}; ends at minute {end:.0f}"
