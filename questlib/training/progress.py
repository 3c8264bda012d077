"""What a person sees of a stage while it runs, and what is kept of it."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.run_folder import EVALUATIONS
from questlib.training.tape import Tape

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 15.0


class StageLog(TrainerCallback):
    """Log a line every quarter of a minute, and keep what the Trainer logs.

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
        self._tape.records.append({"step": state.global_step, "epoch": state.epoch or 0.0} | logs)
        if "loss" in logs:
            self._loss = f"{logs['loss']:.4f}"
        if "eval_spearman" in logs:
            logger.info("%s: step %d: Spearman %.4f", self.name, state.global_step, logs["eval_spearman"])
            self._path.parent.mkdir(parents=True, exist_ok=True)
            record = {"stage": self.name, "step": state.global_step, "spearman": logs["eval_spearman"]}
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Say how far the stage is, and how long it would run to its end."""
        now = time.monotonic()
        if self._tape.is_playing:
            self._start, self._n_played = now, state.global_step + 1
        if now - self._last_line < _SECONDS_BETWEEN_LINES or state.global_step <= self._n_played:
            return
        self._last_line = now
        done, each = state.global_step / state.max_steps, (now - self._start) / (state.global_step - self._n_played)
        left = each * (state.max_steps - state.global_step)
        rows = args.train_batch_size * args.gradient_accumulation_steps / each
        logger.info(
            "%s: step %d of %d (%.0f %%), loss %s, %.1f rows/s, %.1f min left at most",
            self.name, state.global_step, state.max_steps, 100 * done, self._loss, rows, left / 60,
        )  # fmt: skip
