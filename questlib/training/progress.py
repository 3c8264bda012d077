"""What a person sees of a stage while it runs, and what is kept of it."""

import json
import logging
import math
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.run_folder import EVALUATIONS, told_when_full
from questlib.training.tape import Tape

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_MOVES = 0.5


@dataclass
class ProgressBar:
    """What a notebook shows of a stage, in one place that moves; where no notebook is, nothing.

    It needs no widgets: a notebook that was executed keeps how far the stage came, and a log has one line of it.
    """

    text: str
    share: float = 0.0  # of the stage, in [0, 1]

    def __post_init__(self) -> None:
        self._last_move = time.monotonic()
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self._shown = None
        if hasattr(shell, "kernel"):
            from IPython.display import display

            self._shown = display(self, display_id=True)

    def move(self, text: str, share: float) -> None:
        """Show how far the stage is, at most twice a second, and its end."""
        now = time.monotonic()
        if self._shown is not None and (now - self._last_move >= _SECONDS_BETWEEN_MOVES or share >= 1):
            self.text, self.share, self._last_move = text, share, now
            self._shown.update(self)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<progress max="1" value="{self.share:.3f}"></progress> {escape(self.text)}'


class StageLog(TrainerCallback):
    """Log a line every quarter of a minute, move a notebook's bar, and keep what the Trainer logs.

    Args:
        name: The stage.
        folder: Takes a line for each evaluation, as soon as there is one.
        tape: Takes what the Trainer logs; steps that are played are neither logged again nor counted in the speed.
    """

    def __init__(self, name: str, tape: Tape, *, folder: Path) -> None:
        self.name = name
        self._path = folder / EVALUATIONS
        self._tape = tape
        self._start = self._last_line = time.monotonic()
        self._n_played = 0
        self._loss = "not logged yet"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the stage's own clock."""
        self._start = self._last_line = time.monotonic()
        self._bar = ProgressBar(f"{self.name}: {state.max_steps} steps")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **event: Any,  # noqa: ANN401  what the Trainer hands to every callback
    ) -> None:
        """Keep a record; show an evaluation at once."""
        logs = event["logs"]
        if self._tape.is_playing:
            return
        # A scaled loss overflows now and then, and the norm of such gradients is no number.
        known = {name: value for name, value in logs.items() if math.isfinite(value)}
        self._tape.records.append({"step": state.global_step, "epoch": state.epoch or 0.0} | known)
        if "loss" in logs:
            self._loss = f"{logs['loss']:.4f}"
        if "eval_spearman" in logs:
            logger.info("%s: step %d: Spearman %.4f", self.name, state.global_step, logs["eval_spearman"])
            self._path.parent.mkdir(parents=True, exist_ok=True)
            record = {"stage": self.name, "step": state.global_step, "spearman": logs["eval_spearman"]}
            with told_when_full(self._path), self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say how far the stage is, and how long it would run to its end."""
        now = time.monotonic()
        if self._tape.is_playing:
            self._start, self._n_played = now, state.global_step + 1
        if state.global_step <= self._n_played:
            return
        done, each = state.global_step / state.max_steps, (now - self._start) / (state.global_step - self._n_played)
        left = each * (state.max_steps - state.global_step)
        rows = args.train_batch_size * args.gradient_accumulation_steps / each
        text = (
            f"{self.name}: step {state.global_step} of {state.max_steps} ({100 * done:.0f} %), loss {self._loss}, "
            f"{rows:.1f} rows/s, {left / 60:.1f} min left at most"
        )
        self._bar.move(text, done)
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info("%s", text)
