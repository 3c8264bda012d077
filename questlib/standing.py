"""The submission that stands: replaced after every finished fold, whole, and only by one that is as good."""

import logging
import time
from pathlib import Path

import pandas as pd

from questlib.clock import Clock
from questlib.data import Tables, read_table
from questlib.paired import compare, read_tied
from questlib.predictions import read_member
from questlib.ranks import FloatArray
from questlib.recipe import Recipe
from questlib.resume import refuse_changed
from questlib.run_folder import ENSEMBLE, SCORES, SUBMISSION, TIED, read_json, write_json
from questlib.schema import ID, TARGETS
from questlib.scores import combine_members
from questlib.submission import spread_constant, write_submission

logger = logging.getLogger(__name__)


class Standing:
    """What a run has by now: its finished folds, and the submission made of them.

    Args:
        tables: What `questlib.data.read_tables` returns.
        recipe: What is trained.
        run_folder: Holds the finished folds; takes ensemble, scores and submission.
        clock: Times it, and takes notes.

    Attributes:
        finished: The finished folds by member.
        seconds: What it took to combine them, at most so far.
    """

    def __init__(self, tables: Tables, recipe: Recipe, *, run_folder: Path, clock: Clock) -> None:
        self._tables = tables
        self._recipe = recipe
        self._folder = run_folder
        self.clock = clock
        self.finished: dict[str, list[int]] = {}
        self.seconds = 0.0
        self._refusal: ValueError | None = None  # of the last submission that could not be made

    @property
    def is_there(self) -> bool:
        """Whether a submission stands."""
        return (self._folder / SUBMISSION).is_file()

    @property
    def is_scored(self) -> bool:
        """Whether there is an ensemble, without which a run cannot end."""
        return (self._folder / ENSEMBLE).is_file()

    def read(self) -> pd.DataFrame:
        """Read it, once there is an ensemble that it stands on."""
        if not self.is_scored:
            if self._refusal is not None:
                raise self._refusal
            raise ValueError(
                f"the finished folds must hold two questions in one of them, or four in the only one, to be scored, "
                f"however they do not: {self.finished}; give more questions, or train more folds"
            )
        return read_table(self._folder / SUBMISSION, columns=(ID, *TARGETS))

    def refuse_changed_inputs(self) -> None:
        """Refuse an encoder that was replaced since the run began: folds of another one would be taken for its own."""
        refuse_changed(self._folder, self._recipe, self._tables)

    def stand_in(self, predictions: FloatArray) -> None:
        """Let predictions of the test, (n_test, 30), stand until there is an ensemble, if they can be submitted."""
        if self._write(spread_constant(predictions, by=predictions)):
            self.clock.finish_step("submission that stands in")

    def add(self, member: str, fold: int) -> None:
        """Take in a finished fold."""
        self.finished.setdefault(member, []).append(fold)
        self.replace()

    def replace(self) -> None:
        """Combine what is finished, and let it take the place of what stands, if it is as good.

        It is unless it is worse, on the out-of-fold questions that both know, by more than the standard error of that.
        """
        start = time.monotonic()
        usable = self._choose()
        candidate = combine_members(self._tables, usable, run_folder=self._folder, leaks=self._recipe.leaks)
        if candidate is None:
            if not self.is_there:
                name, folds = next(iter(usable.items()))
                self.stand_in(read_member(self._folder, name, folds=folds, tables=self._tables).test)
            return
        names = ", ".join(f"{name} {len(folds)}" for name, folds in usable.items())
        told = ""
        if self.is_there and self.is_scored and (self._folder / TIED).is_file():
            after = pd.DataFrame(candidate.tied, index=candidate.ids, columns=list(TARGETS))
            after["fold"] = candidate.folds
            gain, error, n_questions = compare(self._tables.train, read_tied(self._folder), after)
            told = f"{gain:+.4f} +- {error:.4f} on {n_questions} questions"
            if n_questions and gain < -error:
                raw = {"raw": candidate.scores["raw"]}
                write_json(self._folder / SCORES, read_json(self._folder / SCORES) | raw)
                self.clock.note(f"the submission stays as it is: with folds of {names} it would be worse, {told}")
                self._finish(start, names)
                return
        if self._write(candidate.test):
            candidate.write(self._folder)
            if told:
                logger.info("the submission is replaced: with folds of %s it gains %s", names, told)
        self._finish(start, names)

    def _finish(self, start: float, names: str) -> None:
        self.seconds = max(self.seconds, time.monotonic() - start)
        self.clock.finish_step(f"submission of {names}")

    def _choose(self) -> dict[str, list[int]]:
        # An ensemble is fitted on rows that all its members know: one that shares none with those before it stays out.
        usable: dict[str, list[int]] = {}
        for member in self._recipe.members:
            folds = sorted(self.finished.get(member.name, []))
            common = set(folds).intersection(*usable.values())
            if common:
                usable[member.name] = folds
            elif folds:
                self.clock.note(f"{member.name} shares no finished fold with {', '.join(usable)} and is not blended")
        return usable

    def _write(self, predictions: FloatArray) -> bool:
        # What cannot be submitted now, such as a column that few folds leave constant, may be when there are more.
        sample, path = self._tables.sample_submission, self._folder / SUBMISSION
        try:
            write_submission(path, predictions, ids=self._tables.test[ID], sample_submission=sample)
        except ValueError as error:
            self._refusal = error
            self.clock.note(f"no submission could be made of what is finished by now, and what stood stays: {error}")
            return False
        return True
