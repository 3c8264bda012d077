"""When the state of a training is kept, and how an interrupted stage finds back into it."""

import logging
import time
from dataclasses import asdict
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from questlib.model.quest import QuestModel
from questlib.training.average_weights import AverageWeights
from questlib.training.best_weights import BestWeights
from questlib.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    optimizer_state,
    put_optimizer_state,
    put_random_state,
    put_tensors,
    random_state,
    tensors_of,
    without_additions,
)
from questlib.training.interruptions import Interruptions
from questlib.training.tape import Tape

logger = logging.getLogger(__name__)

# A checkpoint that took a second comes again after so many: it costs a fiftieth of the training at most.
_SECONDS_PER_SECOND = 60
# How fast the first one is expected to be; later ones are measured.
_BYTES_PER_SECOND = 3e8


class Keeper(TrainerCallback):
    """Keep a training on disk, every now and then and when it is interrupted.

    Args:
        checkpoints: Where; nothing is kept where None.
        model: The model in training.
        best: The best weights of all stages.
        history: Records of the stages that are finished.
        notes: What did not go as asked so far.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        *,
        model: QuestModel,
        best: BestWeights,
        history: list[dict],
        notes: list[str],
    ) -> None:
        self._checkpoints = checkpoints
        self._model, self._best, self._history, self._notes = model, best, history, notes
        self._resumed: Checkpoint | None = None  # until the interrupted stage has found back
        self._cost = 4 * sum(each.nbytes for each in tensors_of(model).values()) / _BYTES_PER_SECOND
        self._last = time.monotonic()
        self._number = 0
        self._trainer: Trainer | None = None
        self.interruptions = Interruptions()

    @property
    def is_resumed(self) -> bool:
        """Whether a checkpoint was found that is gone on from."""
        return self._resumed is not None

    def find_back(self) -> int:
        """Put back what the stages before the interrupted one left; give its number, 0 where there is no checkpoint."""
        if self._checkpoints is None:
            return 0
        kept, damaged = self._checkpoints.read()
        self._notes += damaged
        if kept is None:
            return 0
        with torch.no_grad():
            put_tensors(self._model, without_additions(kept.of("model")))  # its stage makes room for those
        self._best.weights = kept.of("best")
        self._best.put_scores(kept.state["best"])
        self._history += kept.state["history"]
        self._notes += kept.state["notes"]
        self._resumed = kept
        return kept.state["stage"]

    def begin_stage(self, number: int) -> Tape:
        """Keep that the stages before are finished; give what this one met before it was interrupted."""
        self._number, self._trainer = number, None
        self._tape = Tape()
        self._scores = self._best.get_scores()
        if self._resumed is not None and self._resumed.state["stage"] == number:
            played = self._resumed.state["tape"]
            self._tape = Tape(**played)
        elif number:
            self._write()
        if not self._tape.losses:
            self._resumed = None
        return self._tape

    def follow(self, trainer: Trainer, average: AverageWeights) -> None:
        """Keep the optimiser, the schedule and the average of a stage too."""
        self._trainer, self._average = trainer, average

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Take up what was kept, once its steps are played; from then on keep the state when it is time."""
        if self._tape.is_playing:
            return
        if self._resumed is not None:
            self._take_up(self._resumed)
            self._resumed = None
        self.interruptions.is_in_step = False
        self.interruptions.raise_waiting()
        if time.monotonic() - self._last > _SECONDS_PER_SECOND * self._cost:
            self._write()

    def keep_interrupted(self) -> None:
        """Keep the state between two steps, which is what an interruption leaves."""
        if self._resumed is None and not self.interruptions.is_in_step and self._tape.losses:
            self._write()

    def _write(self) -> None:
        if self._checkpoints is None:
            return
        start = time.monotonic()
        tensors = {f"model.{name}": each for name, each in tensors_of(self._model).items()}
        tensors |= {f"best.{name}": each for name, each in self._best.weights.items()}
        state: dict[str, Any] = {
            "stage": self._number,
            "epochs": 0.0 if self._trainer is None else self._trainer.state.epoch or 0.0,
            "tape": asdict(self._tape),
            "best": self._scores,
            "history": self._history,
            "notes": self._notes,
        }
        if self._trainer is not None:
            optimizer, schedule = _parts_of(self._trainer)
            remembered, others = optimizer_state(optimizer)
            drawn, state["random"] = random_state(self._model.device)
            tensors |= {f"optimizer.{name}": each for name, each in remembered.items()}
            tensors |= {f"random.{name}": each for name, each in drawn.items()}
            scaler = getattr(self._trainer.accelerator, "scaler", None)
            state |= {"optimizer": others, "scaler": None if scaler is None else scaler.state_dict()}
            state["schedule"] = schedule.last_epoch
            tensors |= {f"average.{name}": each for name, each in self._average.weights.items()}
            state["n_averaged"] = self._average.n_averaged
        try:
            self._checkpoints.write(Checkpoint(tensors=tensors, state=state))
        except OSError as error:  # the training is worth more than its checkpoint, and goes on
            logger.warning("no checkpoint was kept: %s", error)
        self._last = time.monotonic()
        self._cost = self._last - start

    @torch.no_grad()
    def _take_up(self, kept: Checkpoint) -> None:
        trainer, device = self._trainer, self._model.device
        assert trainer is not None
        put_tensors(self._model, kept.of("model"))
        self._best.weights = kept.of("best")
        self._average.weights, self._average.n_averaged = kept.of("average"), kept.state["n_averaged"]
        optimizer, schedule = _parts_of(trainer)
        put_optimizer_state(optimizer, kept.of("optimizer"), kept.state["optimizer"])
        scaler = getattr(trainer.accelerator, "scaler", None)
        if scaler is not None and kept.state["scaler"]:
            scaler.load_state_dict(kept.state["scaler"])
        # The rates follow from the step that the schedule has reached.
        schedule.last_epoch = kept.state["schedule"] - 1
        schedule.step()
        put_random_state(device, kept.of("random"), kept.state["random"])
        self._last = time.monotonic()
        logger.info("goes on from step %d of stage %d", trainer.state.global_step, self._number + 1)


def _parts_of(trainer: Trainer) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    assert trainer.optimizer is not None
    assert trainer.lr_scheduler is not None
    return trainer.optimizer, trainer.lr_scheduler
