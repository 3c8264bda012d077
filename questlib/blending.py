"""Combine several models' predictions, trusting weights no further than questions that they have not seen.

A column's weights minimise the squared distance to the column's centred ranks under a Gaussian prior: each group of
targets draws its weights from around equal ones, each target from around its group's, both with standard deviation
`spread`. The noise is measured where the models disagree, so a column with a handful of rare ratings keeps its
group's weights while a well predicted one moves. Folds over questions say which `spread` (0 is the equal mean) is
best, but seldom clearly: all are averaged, each counting the less the more standard errors it falls short of the best.
"""

import json
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_is_fitted

from questlib.metrics import Questions, number_questions, one_row_per_question, read_numbers, spearman_by_target
from questlib.ranks import FloatArray
from questlib.run_folder import as_json

_SPREADS = (0.0, 0.05, 0.1, 0.2, 0.4)
_N_FOLDS, _N_DRAWS = 4, 5


class Blend(BaseEstimator):
    """Average models with non-negative weights that sum to 1, per target, drawn towards equal weights.

    Targets that are likely to trust the same models have the same number or name in `groups`; without it all are one.

    Attributes:
        weights_: Shape (n_models, n_targets), each column sums to 1.
        trust_: How much the weights of each spread count, smallest spread first, sums to 1.

    Example:
        >>> good, bad = [[0.1], [0.4], [0.6], [0.9]], [[0.5], [0.2], [0.9], [0.4]]
        >>> Blend().fit([good, good], good).transform([good, bad])[:, 0].round(2).tolist()
        [0.3, 0.3, 0.75, 0.65]
    """

    def __init__(self, *, groups: Sequence[object] | None = None) -> None:
        self.groups = groups

    def fit(
        self, predictions: Sequence[npt.ArrayLike], targets: npt.ArrayLike, *, questions: Questions | None = None
    ) -> Self:
        """Learn weights from out-of-fold scores, (n_rows, n_targets) per model; without questions every row is one."""
        scores, true = _stacked(predictions), read_numbers(targets, what="targets")
        if true.shape != scores.shape[1:] or not len(true):
            raise ValueError(
                "predictions and targets must share one shape (n_rows, n_targets) with rows, however: "
                f"{scores.shape[1:]=}, {true.shape=}"
            )
        if not np.isfinite(true).all():
            raise ValueError("targets must be finite, however: they hold NaN or infinity; drop these rows")
        groups = np.zeros(true.shape[1], dtype=int) if self.groups is None else np.asarray(self.groups)
        if groups.shape != (true.shape[1],):
            raise ValueError(f"groups must name one group per target, {true.shape[1]}, however: {groups.shape=}")
        question = number_questions(questions, n_rows=len(true))
        self.trust_ = np.eye(len(_SPREADS))[0]
        if len(scores) > 1 and question.max() >= _N_FOLDS:
            self.trust_ = _trust_spreads(scores, true, question, groups)
        weights = [_weigh(scores, true, question, groups, spread=spread) for spread in _SPREADS]
        self.weights_ = np.einsum("s,smt->mt", self.trust_, weights)
        return self

    def transform(self, predictions: Sequence[npt.ArrayLike]) -> FloatArray:
        """Average the models, an array of shape (n_rows, n_targets) each, in the order of `fit`."""
        check_is_fitted(self)
        scores = _stacked(predictions)
        if (len(scores), scores.shape[2]) != self.weights_.shape:
            raise ValueError(
                "predictions must be (n_models, n_rows, n_targets) with the models and targets of fit, however: "
                f"{scores.shape=}, {self.weights_.shape=}"
            )
        blended = np.einsum("mnt,mt->nt", scores, self.weights_)
        # Weights sum to 1 only as far as floats do: a mean of ones may be more than 1, which nobody takes as a rating.
        return np.clip(blended, scores.min(axis=0), scores.max(axis=0))

    def to_json(self) -> str:
        """Write what was set and learned as JSON."""
        check_is_fitted(self)
        groups = None if self.groups is None else np.asarray(self.groups).tolist()
        return as_json({"groups": groups, "trust": self.trust_.tolist(), "weights": self.weights_.tolist()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read an estimator that transforms as the one that was written."""
        state = json.loads(text)
        blend = cls(groups=state["groups"])
        blend.trust_, blend.weights_ = (np.array(state[name], dtype=np.float64) for name in ("trust", "weights"))
        return blend


def _stacked(predictions: Sequence[npt.ArrayLike]) -> FloatArray:
    arrays = [read_numbers(one, what=f"predictions of model {number}") for number, one in enumerate(predictions)]
    shapes = list(dict.fromkeys(one.shape for one in arrays))  # each once: one array is taken for thousands of models
    if len(shapes) != 1 or arrays[0].ndim != 2:
        raise ValueError(
            f"predictions must be arrays of one shape (n_rows, n_targets) per model, however: {shapes=}; give a list"
        )
    broken = [index for index, one in enumerate(arrays) if not np.isfinite(one).all()]
    if broken:
        raise ValueError(f"predictions must be finite, however: NaN or infinity in models {broken}")
    return np.stack(arrays)  # (n_models, n_rows, n_targets)


def _trust_spreads(scores: FloatArray, true: FloatArray, question: npt.NDArray, groups: npt.NDArray) -> FloatArray:
    by_fold = []
    for known, unseen in GroupKFold(_N_FOLDS).split(true, groups=question):
        drawn = one_row_per_question(question[unseen], draws=_N_DRAWS, seed=0)
        if len(drawn[0]) < 2:  # one question has no rank
            continue
        rated, by_spread = true[unseen], []
        for spread in _SPREADS:
            weights = _weigh(scores[:, known], true[known], question[known], groups, spread=spread)
            blended = np.einsum("mnt,mt->nt", scores[:, unseen], weights)
            by_target = np.array([spearman_by_target(blended[rows], rated[rows]) for rows in drawn])
            by_spread.append(np.nan_to_num(by_target).mean(axis=0))
        by_fold.append(by_spread)
    results = np.array(by_fold).reshape(-1, len(_SPREADS), true.shape[1])  # (n_folds, n_spreads, n_targets)
    results = results.transpose(1, 0, 2).reshape(len(_SPREADS), -1)
    if results.shape[1] < 2:  # nothing tells how sure a difference is
        return np.eye(len(_SPREADS))[0]
    short = results[results.mean(axis=1).argmax()] - results
    error = short.std(axis=1, ddof=1) / np.sqrt(short.shape[1])
    trust = np.exp(-short.mean(axis=1) / np.maximum(error, 1e-12))
    return trust / trust.sum()


def _weigh(
    scores: FloatArray, true: FloatArray, question: npt.NDArray, groups: npt.NDArray, *, spread: float
) -> FloatArray:
    n_models, _, n_targets = scores.shape
    equal = np.full(n_models, 1 / n_models)
    weights = np.tile(equal[:, None], n_targets)
    if not spread:
        return weights
    _, place, n_rows = np.unique(question, return_inverse=True, return_counts=True)
    n_questions = len(n_rows)
    row_weight = 1 / (n_rows[place] * n_questions)  # one row per question, as the hidden test
    rank = rankdata(true, axis=0)
    rank -= row_weight @ rank
    rank /= np.maximum(np.sqrt(row_weight @ rank**2), 1e-12)
    centred = scores - np.einsum("mnt,n->mt", scores, row_weight)[:, None]
    by_target = centred.transpose(2, 0, 1)  # (n_targets, n_models, n_rows)
    products = (by_target * row_weight) @ by_target.transpose(0, 2, 1)  # (n_targets, n_models, n_models)
    agreement = np.einsum("tmn,nt,n->tm", by_target, rank, row_weight)
    # The equal mean's slope turns scores into ranks, so that weights that sum to 1 are the scale of the problem.
    variance = products.mean(axis=(1, 2))
    slope = np.divide(agreement.mean(axis=1), variance, out=np.zeros(n_targets), where=variance > 0).clip(min=0)
    products, agreement = products * slope[:, None, None] ** 2, agreement * slope[:, None]
    # Ranks have unit norm, so noise is 1 where errors do not depend on the row, and more where models differ on rows
    # that are hard: few rare ratings say little about weights, however far the models are apart on them.
    mean = by_target.mean(axis=1, keepdims=True)  # (n_targets, 1, n_rows)
    disagreement = ((by_target - mean) ** 2).sum(axis=1) * row_weight  # (n_targets, n_rows)
    error = rank.T - slope[:, None] * mean[:, 0]
    total = disagreement.sum(axis=1)
    noise = np.divide((disagreement * error**2).sum(axis=1), total, out=np.ones(n_targets), where=total > 0)
    penalty = noise.clip(min=1) / (n_questions * spread**2)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        shared = _ridge(products[members].sum(axis=0), agreement[members].sum(axis=0), equal, penalty[members].sum())
        for target in members:
            weights[:, target] = _ridge(products[target], agreement[target], shared, penalty[target])
    return weights


def _ridge(products: FloatArray, agreement: FloatArray, prior: FloatArray, penalty: float) -> FloatArray:
    """Minimise w'Pw - 2 a'w + penalty |w - prior|^2 over w >= 0, scaled to sum to 1."""
    root = np.linalg.cholesky(products + penalty * np.eye(len(prior)))
    solved, _ = nnls(root.T, np.linalg.solve(root, agreement + penalty * prior))
    return solved / solved.sum() if solved.sum() > 0 else prior
