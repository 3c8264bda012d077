"""A training keeps to its time: a stage ends where its steps told that it must, and its schedule with it."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.training.tape import Tape

logger = logging.getLogger(__name__)

_STEPS_LOOKED_AT = 30
_STEPS_FIRST = 3
_STEPS_TO_GROW = 8
# Changes smaller than this share of what is left are not worth one.
_LEAST_CHANGE = 0.05
# What was planned stands, so that a run that is interrupted is the run that is not, unless what was measured before is
# this far from the truth: as beside other work, which has ended since.
_MANY_MORE = 1.12
# Over the steps themselves: reading the data, the log, checkpoints.
_OVERHEAD = 1.04


class Pace(TrainerCallback):
    """Let a training end in time, and its rates fall to where they should by then.

    Args:
        deadline: By `time.monotonic`; infinite where there is none.
        share: Of each stage's steps, that are planned where there is a deadline; more are made only where many more
            turn out to fit.
        notes: Takes what was shortened.
    """

    def __init__(self, *, deadline: float, share: float = 1.0, notes: list[str]) -> None:
        self.deadline = deadline
        self._share = share
        self.notes = notes
        self.seconds_per_row = 0.0  # of an evaluation; 0 before the first
        self._evaluation_seconds = 0.0

    def begin_stage(self, name: str, tape: Tape, *, is_last: bool) -> None:
        """Forget the steps of the stage before; the last one may take what time is left."""
        self._name, self._tape = name, tape
        self._seconds: deque[float] = deque(maxlen=_STEPS_LOOKED_AT)
        self._turns = [(0, 0.0)]  # step and place in the schedule where the stage was told to end elsewhere
        self._n_steps = self._planned = self._end = 0  # asked, planned, and where it ends now
        self._cut = False
        self._may_grow = is_last and not tape.is_playing

    def follow(self, scheduler: LambdaLR) -> None:
        """Let a schedule be gone through by the stage's end, wherever that is now; it goes on from where it is."""
        scheduler.lr_lambdas = [self._lead(shape) for shape in scheduler.lr_lambdas]

    def _lead(self, shape: Callable[..., float]) -> Callable[[int], float]:
        return lambda step: shape(self._place(step))

    def _place(self, step: int) -> float:
        start, place = self._turns[-1]
        if self._end <= start:
            return place
        return place + (self._n_steps - place) * (step - start) / (self._end - start)

    def finish_evaluation(self, seconds: float, *, n_rows: int) -> None:
        """Learn how long an evaluation takes."""
        self._evaluation_seconds, self.seconds_per_row = seconds, seconds / n_rows

    @property
    def step_seconds(self) -> float:
        """Seconds of a step, by the later half of the last ones: the first of a stage are slower."""
        return float(np.median(list(self._seconds)[len(self._seconds) // 2 :]))

    def has_time(self, seconds: float) -> bool:
        """Tell whether something can be done before the deadline."""
        return time.monotonic() + seconds < self.deadline

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Begin with the steps that are planned."""
        self._n_steps, share = state.max_steps, self._share
        if math.isinf(self.deadline):  # nothing is shortened, nor stays so since the limit of an earlier session
            self._tape.ends.clear()
            share = 1.0
        self._planned = self._end = state.max_steps = max(1, round(share * self._n_steps))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Start the clock of a step."""
        self._began, self._was_played = time.monotonic(), self._tape.is_playing

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Tell the stage to end sooner, or later again, where the measured steps say so."""
        step = state.global_step
        for told, end in self._tape.ends:
            if told == step:
                self._planned = max(self._planned, end)  # it had grown
                self._turn(state, end)
        if self._was_played or math.isinf(self.deadline):
            return
        now = time.monotonic()
        self._seconds.append(now - self._began)
        left = self.deadline - now
        if step < state.max_steps and left <= self._evaluation_seconds:
            self._cut = True
            control.should_training_stop = True
        elif len(self._seconds) >= _STEPS_FIRST:
            end = self._last_step_in_time(args, step, left)
            if abs(end - state.max_steps) > max(1, _LEAST_CHANGE * (state.max_steps - step)):
                self._change(state, end)

    def _change(self, state: TrainerState, end: int) -> None:
        self._tape.ends.append((state.global_step, end))
        self._turn(state, end)

    def _last_step_in_time(self, args: TrainingArguments, step: int, left: float) -> int:
        each = _OVERHEAD * float(np.mean(self._seconds))
        if args.eval_strategy == "steps":
            each += self._evaluation_seconds / (args.eval_steps or 1)
        elif args.eval_strategy == "epoch":
            each += self._evaluation_seconds * args.num_train_epochs / self._n_steps
        end = step + max(1, int(max(left - self._evaluation_seconds, 0) / each))
        if end > _MANY_MORE * self._planned and self._may_grow and len(self._seconds) >= _STEPS_TO_GROW:
            self._planned = min(self._n_steps, end)
        return min(self._planned, end)

    def _turn(self, state: TrainerState, end: int) -> None:
        self._turns.append((state.global_step, self._place(state.global_step)))
        self._end = state.max_steps = end

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say what was shortened."""
        if self._cut:
            self.notes.append(f"{self._name}: cut at step {state.global_step} of {self._n_steps}, for want of time")
        elif state.global_step == self._end < self._n_steps:
            self.notes.append(f"{self._name}: {self._end} of {self._n_steps} steps fitted into the time")
