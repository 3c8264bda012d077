"""Write the table of one change at a time, each beside the setting that they all change.

    python bench/ablation.py SWEEP_FOLDER --data FOLDER > bench/ablation.md

The folder is that of `sweeps/ablation.yaml` after `make sweep` and `make sweep-report`.
"""

import argparse
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from questlib.data import read_tables
from questlib.paired import compare, read_tied
from questlib.record import describe_machine
from questlib.run_folder import SCORES, read_json
from questlib.sweeps.results import ABOUT

_HEAD = """# One change at a time

`make ablation DATA=folder`, {date}, {cores} cores of {cpu}, seeds {seeds}; seconds are of a whole run, which
other work may have shared the machine with. `sweeps/ablation.yaml` says what all runs have in common. Means of 29
targets, one row per question, on questions that nothing was fitted on: the transformer alone, and blended with the
other members and tied. The gain is that of the last, paired by question and seed, with its standard error; below two of
these it may be luck.

| change | transformer | submitted | gain | seconds |
|---|---|---|---|---|
"""


def compare_with_first(trials: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Lay out a row per setting, the first as it is and then by gain: change, scores, gain, its error, seconds."""
    done = trials[trials["state"] == "complete"]
    parameters = [name for name in trials if name not in ABOUT]
    first = done[done["setting"] == done["setting"].min()].set_index("seed")
    rows = []
    for _, group in done.groupby("setting"):
        changed = [name for name in parameters if str(group[name].iloc[0]) != str(first[name].iloc[0])]
        scores = [read_json(Path(folder) / SCORES)["nested"]["scores"] for folder in group["folder"]]
        pairs = [
            compare(train, read_tied(Path(first["folder"][trial.seed])), read_tied(Path(trial.folder)))
            for trial in group.itertuples()
            if trial.seed in first.index
        ]
        gains, errors, _ = np.transpose(pairs)
        of_seeds = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
        rows.append({
            "change": ", ".join(f"{name}: {group[name].iloc[0]}" for name in changed),
            "transformer": np.mean([score["transformer"]["mean_without_rare"] for score in scores]),
            "submitted": np.mean([score["tied"]["mean_without_rare"] for score in scores]),
            "gain": gains.mean(), "error": np.hypot(errors.mean(), of_seeds), "seconds": group["seconds"].mean(),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return pd.concat([table[table["change"] == ""], table[table["change"] != ""].sort_values("gain", ascending=False)])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, with trials.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    arguments = parser.parse_args()
    trials, machine = pd.read_csv(arguments.sweep / "trials.csv", dtype={"trial": str}), describe_machine()
    trials["seed"] = trials["seed"].fillna(0)  # the recipe's own
    seeds = ", ".join(sorted({str(read_json(Path(each) / "recipe.json")["seed"]) for each in trials["folder"]}))
    date = f"{datetime.fromtimestamp((arguments.sweep / 'trials.csv').stat().st_mtime):%d %B %Y}"
    sys.stdout.write(_HEAD.format(date=date, cores=machine["cores"], cpu=machine["cpu"], seeds=seeds))
    for row in compare_with_first(trials, read_tables(arguments.data).train).itertuples():
        gain = f"{row.gain:+.4f} ± {row.error:.4f}" if row.change else ""
        change = f"`{row.change}`" if row.change else "none"
        sys.stdout.write(f"| {change} | {row.transformer:.4f} | {row.submitted:.4f} | {gain} | {row.seconds:.0f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
