"""Two runs compared, paired by question: how much better one is by the score that is told, and how sure that is."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from questlib.data import IndexArray, question_of, read_table
from questlib.metrics import one_row_per_question
from questlib.ranks import FloatArray, rank_values
from questlib.run_folder import TIED
from questlib.schema import ID, RARE_TARGET, TARGETS
from questlib.scores import cut_parts

# Of two runs these are compared: the rare one would decide by luck.
_COMMON = np.array([name != RARE_TARGET for name in TARGETS])
# A gain is an average over so many draws of a row per question; a standard error from so many resamples of the
# questions is known to a sixth.
_DRAWS, _RESAMPLES = 20, 20
FREEDOM = _RESAMPLES - 1  # degrees of freedom of that error


def compare(train: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, int]:
    """Compare two runs' out-of-fold predictions, on the rows that both know, as their scores are: by folds.

    Args:
        train: The training table.
        before: Predictions by id, a column for each target, as `Combination.tied` are, and `fold`; `read_tied` reads a
            run's.
        after: Such predictions of what may take its place.

    Returns:
        How much higher the second's mean Spearman is, each run's a mean over its own folds, one row per question,
        without the target that is positive in too few rows to tell; the standard error of that, over questions; the
        number of questions, 0 where there are no common rows.
    """
    before, after = (frame.set_axis(frame.index.astype(str)) for frame in (before, after))
    truth = train.set_index(train[ID].astype(str)).loc[before.index.intersection(after.index)]
    questions = question_of(truth)
    if len(np.unique(questions)) < 2:
        return 0.0, 0.0, 0
    targets = truth[list(TARGETS)].to_numpy(dtype=np.float64)
    old, new = (_Run(frame.loc[truth.index], targets, questions) for frame in (before, after))

    def gain(rows: IndexArray) -> float:
        return new.score(rows) - old.score(rows)

    drawn = one_row_per_question(questions, draws=_DRAWS, seed=0)
    generator = np.random.default_rng(0)
    pairs = np.array([[gain(rows) for rows in _resample(questions, generator)] for _ in range(_RESAMPLES)])
    # What two draws of rows from the same resampled questions have in common is the questions' part; an average over
    # draws has the rest, which the rows make, divided by their number.
    one_draw, shared = pairs.var(ddof=1), max(np.cov(pairs.T)[0, 1], 0.0)
    variance = shared + max(one_draw - shared, 0.0) / _DRAWS
    return float(np.mean([gain(rows) for rows in drawn])), float(np.sqrt(variance)), len(drawn[0])


def _resample(questions: npt.NDArray, generator: np.random.Generator) -> list[IndexArray]:
    # The questions drawn again, and for these twice a random row of each.
    _, place, n_rows = np.unique(questions, return_inverse=True, return_counts=True)
    rows, first = np.argsort(place, kind="stable"), np.cumsum(n_rows) - n_rows
    again = generator.integers(len(n_rows), size=len(n_rows))
    return [rows[first[again] + generator.integers(n_rows[again])] for _ in range(2)]


class _Run:
    """A run's predictions and the ratings of the same rows, as they are ranked: in each part of them alone."""

    def __init__(self, known: pd.DataFrame, targets: FloatArray, questions: npt.NDArray) -> None:
        self.parts = np.zeros(len(known), dtype=np.intp)
        for number, part in enumerate(cut_parts(questions, known["fold"].to_numpy())):
            self.parts[part] = number
        self.predictions, self.targets = (
            self._set_apart(each[:, _COMMON]) for each in (known[list(TARGETS)].to_numpy(dtype=np.float64), targets)
        )

    def _set_apart(self, values: FloatArray) -> FloatArray:
        # All of one part below all of the next, so that all are ranked at once.
        codes = rankdata(values, method="dense", axis=0)
        return codes + codes.max() * self.parts[:, None]

    def score(self, rows: IndexArray) -> float:
        """Average mean Spearman over the parts of some rows, of which some may be copies."""
        names, place = np.unique(self.parts[rows], return_inverse=True)
        belongs = np.eye(len(names))[place]  # (n_rows, n_parts)
        predicted, true = (_centre_ranks(each[rows], belongs) for each in (self.predictions, self.targets))
        rated = (true**2) @ belongs  # (n_targets, n_parts)
        norms = np.sqrt(((predicted**2) @ belongs) * rated)
        by_target = np.divide((predicted * true) @ belongs, norms, out=np.zeros_like(norms), where=norms > 0)
        n_rated = (rated > 0).sum(axis=0)  # what is constant cannot be ranked by anyone
        return float((by_target.sum(axis=0) / np.maximum(n_rated, 1))[n_rated > 0].mean()) if n_rated.any() else 0.0


def _centre_ranks(values: FloatArray, belongs: FloatArray) -> FloatArray:
    # By target, (n_targets, n_rows), about 0 in each part.
    ranks = np.stack([rank_values(column) for column in values.T])
    return ranks - (ranks @ belongs / belongs.sum(axis=0)) @ belongs.T


def read_tied(run_folder: Path) -> pd.DataFrame:
    """Read a run's tied out-of-fold predictions, by id: what would have been submitted for questions it never saw."""
    return read_table(run_folder / TIED, columns=(ID, "fold", *TARGETS)).set_index(ID)
