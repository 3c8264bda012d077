"""Compare tie rules and blends on real out-of-fold predictions, on questions that were not fitted.

    python bench/ties.py --oof FOLDER --data FOLDER --json FILE

Every rule is fitted on three folds and applied to the fourth; a fold is scored with one row per question, over 20
draws, and folds are averaged. Peers' rules are written from their descriptions. `worst` is the lowest difference of a
target to its raw score, `seconds` one fit and transform, on average over folds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata
from sklearn.cluster import KMeans

from questlib.blending import Blend
from questlib.hosts import HostRates
from questlib.metrics import one_row_per_question, spearman_by_target
from questlib.run_folder import write_json
from questlib.schema import ANSWER_TARGETS, QUESTION, QUESTION_TARGETS, RARE_TARGET, TARGETS
from questlib.ties import RankTies

Array = npt.NDArray[np.float64]
Rule = Callable[[Array, Array, npt.NDArray, Array], Array]  # known predictions, targets, questions; unseen predictions

TRANSFORMERS = ("albert", "bert", "roberta", "xlnet")
MATCHED_BY_FIRST_PLACE = (
    "question_conversational",
    "question_type_compare",
    "question_type_definition",
    "question_type_entity",
    "question_has_commonly_accepted_answer",
    "question_type_consequence",
    "question_type_spelling",
)


def match_shares(names: tuple[str, ...]) -> Rule:
    """Give each level the share of rows it has among the ratings, at least one row each (1st place)."""

    def rule(known: Array, targets: Array, questions: npt.NDArray, unseen: Array) -> Array:
        matched = unseen.copy()
        for column in [TARGETS.index(name) for name in names]:
            levels, counts = np.unique(targets[:, column], return_counts=True)
            n_rows = np.maximum(np.round(counts / len(targets) * len(unseen)), 1).astype(int)
            n_rows[0] = max(len(unseen) - n_rows[1:].sum(), 1)
            assigned = np.repeat(levels, n_rows)[: len(unseen)]
            matched[np.argsort(unseen[:, column], kind="stable"), column] = assigned
        return matched

    return rule


def _average_score(columns: Array, targets: Array, drawn: list[npt.NDArray]) -> Array:
    return np.mean([np.nan_to_num(spearman_by_target(columns[rows], targets[rows])) for rows in drawn], axis=0)


def clip_both_ends(known: Array, targets: Array, questions: npt.NDArray, unseen: Array) -> Array:
    """Clip below a and above b, the best pair of quantiles over draws of one row per question (2nd and 3rd places)."""
    drawn = one_row_per_question(questions, draws=20, seed=1)
    shares = np.unique(np.concatenate([np.linspace(0, 1, 65), 1 - np.geomspace(3e-4, 1 / 16, 16)]))
    clipped = unseen.copy()
    for column in range(known.shape[1]):
        ends = np.unique(np.quantile(known[:, column], shares, method="lower"))
        low, high = np.triu_indices(len(ends), 1)
        score = np.zeros(len(low))
        for rows in drawn:
            values = np.sort(known[rows, column])
            order = np.argsort(known[rows, column], kind="stable")
            middle = (len(values) + 1) / 2
            rated = rankdata(targets[rows, column])[order] - middle
            ranks = rankdata(values) - middle
            gain_to, spread_to, rated_to = (
                np.concatenate([[0], np.cumsum(amount)]) for amount in (ranks * rated, ranks**2, rated)
            )
            below = np.searchsorted(values, ends[low], side="right")
            above = np.maximum(np.searchsorted(values, ends[high], side="left"), below)
            rank_low, rank_high = (below - len(values)) / 2, above / 2
            gain = rank_low * rated_to[below] + gain_to[above] - gain_to[below] - rank_high * rated_to[above]
            spread = rank_low**2 * below + spread_to[above] - spread_to[below] + rank_high**2 * (len(values) - above)
            score += np.divide(gain, np.sqrt(spread), out=np.zeros(len(low)), where=spread > 0)
        best = int(score.argmax())
        clipped[:, column] = np.clip(unseen[:, column], ends[low[best]], ends[high[best]])
    return clipped


def choose_step(snap: Callable[[Array, int], Array], steps: tuple[int, ...]) -> Rule:
    """Snap each column to the step that scores highest on the known questions, or not at all."""

    def rule(known: Array, targets: Array, questions: npt.NDArray, unseen: Array) -> Array:
        drawn = one_row_per_question(questions, draws=5, seed=1)
        score = [_average_score(known, targets, drawn)]
        score += [_average_score(snap(known, step), targets, drawn) for step in steps]
        snapped = unseen.copy()
        for column, best in enumerate(np.argmax(score, axis=0)):
            if best:
                snapped[:, column] = snap(unseen[:, column], steps[best - 1])
        return snapped

    return rule


def cluster_values(known: Array, targets: Array, questions: npt.NDArray, unseen: Array) -> Array:
    """Replace values by the centres of 1-D k-means over known and unseen rows, where that gains 0.001 (10th place)."""
    drawn = one_row_per_question(questions, draws=5, seed=1)
    raw = _average_score(known, targets, drawn)
    clustered = unseen.copy()
    for column in range(known.shape[1]):
        both = np.concatenate([known[:, column], unseen[:, column]])[:, None]
        best = raw[column] + 0.001
        for n_clusters in (2, 3, 4, 6, 9, 14, 20):
            model = KMeans(n_clusters, n_init=1, random_state=0).fit(both)
            snapped = model.cluster_centers_[model.labels_, 0]
            score = _average_score(snapped[: len(known), None], targets[:, [column]], drawn)[0]
            if score > best:
                best, clustered[:, column] = score, snapped[len(known) :]
    return clustered


def tie_ranks(known: Array, targets: Array, questions: npt.NDArray, unseen: Array) -> Array:
    """Apply this library's rule."""
    return RankTies().fit(known, targets, questions=questions).transform(unseen)


RULES: dict[str, Rule] = {
    "raw": lambda known, targets, questions, unseen: unseen,
    "matching, 7 columns (1st)": match_shares(MATCHED_BY_FIRST_PLACE),
    "matching, all columns": match_shares(TARGETS),
    "clip low and high (2nd, 3rd)": clip_both_ends,
    "floor to 1/d (6th)": choose_step(lambda values, step: np.floor(values * step) / step, (4, 8, 16, 32, 64)),
    "voters, round to 1/n (4th)": choose_step(lambda values, step: np.round(values * step) / step, tuple(range(1, 41))),
    "k-means (10th)": cluster_values,
    "RankTies": tie_ranks,
}


class Folds:
    """Scores what a rule makes of each unseen fold."""

    def __init__(self, fold: npt.NDArray, targets: Array, questions: npt.NDArray) -> None:
        self.targets, self.questions = targets, questions
        self.splits = [(np.flatnonzero(fold != name), np.flatnonzero(fold == name)) for name in np.unique(fold)]
        self.drawn = [one_row_per_question(questions[unseen], draws=20, seed=0) for _, unseen in self.splits]

    def score(self, predict: Callable[[npt.NDArray, npt.NDArray], Array]) -> dict:
        """Score `predict(known_rows, unseen_rows)`, averaged over folds, per target."""
        by_fold, start = [], time.perf_counter()
        predicted = [predict(*split) for split in self.splits]
        seconds = (time.perf_counter() - start) / len(self.splits)
        for (_, unseen), drawn, columns in zip(self.splits, self.drawn, predicted, strict=True):
            rated = self.targets[unseen]
            by_draw = np.array([spearman_by_target(columns[rows], rated[rows]) for rows in drawn])
            seen = ~np.isnan(by_draw)  # a draw without any rare rating cannot be scored on it
            by_fold.append(np.where(seen, by_draw, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1))
        by_fold = np.array(by_fold)  # (n_folds, n_targets)
        common = np.array(TARGETS) != RARE_TARGET
        return {
            "mean": by_fold.mean(),
            "mean_without_rare": by_fold[:, common].mean(),
            "folds_without_rare": by_fold[:, common].mean(axis=1).tolist(),
            "seconds": seconds,
            "by_target": dict(zip(TARGETS, by_fold.mean(axis=0).tolist(), strict=True)),
        }


def write_line(line: str) -> None:
    """Show a line at once, for the whole takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_table(title: str, scores: dict[str, dict]) -> None:
    """Write one line per rule, and add to each what it does to its worst target."""
    raw = next(iter(scores.values()))["by_target"]
    write_line(f"\n{title:<42} mean 30  mean 29  worst    seconds  per fold (29)")
    for name, score in scores.items():
        score["worst_difference"] = min(score["by_target"][target] - raw[target] for target in TARGETS)
        folds = " ".join(f"{value:.4f}" for value in score["folds_without_rare"])
        write_line(
            f"{name:<42} {score['mean']:.4f}   {score['mean_without_rare']:.4f}   {score['worst_difference']:+.4f}"
            f"  {score['seconds']:7.2f}  {folds}"
        )


def main() -> None:
    """Read the data, write the tables, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oof", type=Path, required=True, help="folder of sixth_place.npz")
    parser.add_argument("--data", type=Path, required=True, help="folder of train.csv")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    with np.load(arguments.oof / "sixth_place.npz", allow_pickle=False) as stored:
        targets, fold = stored["targets"], stored["fold"]
        models = {name: stored[name].astype(np.float64) for name in (*TRANSFORMERS, "use")}
    table = pd.read_csv(arguments.data / "train.csv", usecols=[QUESTION, "host"], dtype=str)
    questions, hosts = table[QUESTION].to_numpy(dtype=str), table["host"].to_numpy(dtype=str)
    folds = Folds(fold, targets, questions)
    four = np.mean([models[name] for name in TRANSFORMERS], axis=0)

    def fit_rule(rule: Rule, predictions: Array) -> dict:
        return folds.score(
            lambda known, unseen: rule(predictions[known], targets[known], questions[known], predictions[unseen])
        )

    rules = {name: fit_rule(rule, four) for name, rule in RULES.items()}
    write_table("ties on the equal mean of four", rules)

    groups = [0] * len(QUESTION_TARGETS) + [1] * len(ANSWER_TARGETS)

    def blend(known: npt.NDArray, unseen: npt.NDArray) -> tuple[Array, Array]:
        fitted = Blend(groups=groups).fit(
            [one[known] for one in models.values()], targets[known], questions=questions[known]
        )
        of_known, of_unseen = (fitted.transform([one[rows] for one in models.values()]) for rows in (known, unseen))
        return of_known, of_unseen

    def finish(combine: Callable[[npt.NDArray, npt.NDArray], tuple[Array, Array]], *, use_hosts: bool) -> dict:
        def predict(known: npt.NDArray, unseen: npt.NDArray) -> Array:
            of_known, of_unseen = combine(known, unseen)
            if use_hosts:
                rates = HostRates().fit(hosts[known], targets[known])
                of_known, of_unseen = rates.transform(of_known, hosts[known]), rates.transform(of_unseen, hosts[unseen])
            return tie_ranks(of_known, targets[known], questions[known], of_unseen)

        return folds.score(predict)

    five = np.mean(list(models.values()), axis=0)
    means = {"equal mean of four": four, "equal mean of five": five}
    combined = {name: (lambda known, unseen, mean=mean: (mean[known], mean[unseen])) for name, mean in means.items()}
    combined["Blend of five"] = blend
    blends = {
        name: folds.score(lambda *split, combine=combine: combine(*split)[1]) for name, combine in combined.items()
    }
    for suffix, use_hosts in ((", RankTies", False), (", HostRates, RankTies", True)):
        blends |= {name + suffix: finish(combine, use_hosts=use_hosts) for name, combine in combined.items()}
    write_table("blends", blends)

    write_json(arguments.json, {"ties": rules, "blends": blends})


if __name__ == "__main__":
    main()
