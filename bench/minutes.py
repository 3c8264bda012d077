"""Draw the score of what a run would have submitted against its minutes, beside published models on the same rows.

    python bench/minutes.py RUN_FOLDER... --data FOLDER --oof FOLDER --picture FILE.svg

Rows are those of the runs' first fold, one per question; blend and ties are fitted on other questions. The published
out-of-fold predictions of the 6th place get the same ties on the same rows.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from ties import TRANSFORMERS

from questlib.charts import GREY, clean, new_figure
from questlib.data import question_of, read_tables
from questlib.predictions import read_member
from questlib.run_folder import TIMELINE, read_json
from questlib.schema import TARGETS
from questlib.scores import combine_members, score_nested

STEP = "submission of "


def follow(run_folder: Path, data: Path) -> pd.DataFrame:
    """Score what stood after each finished fold: minute, members, mean of 29 targets; by the first fold's rows."""
    tables, rows = read_tables(str(data)), []
    for step in read_json(run_folder / TIMELINE)["steps"]:
        name = step["step"].removeprefix(STEP)
        if name == step["step"]:
            continue
        members = [part.rsplit(" ", 1)[0] for part in name.split(", ")]
        combined = combine_members(tables, {each: [0] for each in members}, run_folder=run_folder, leaks=False)
        assert combined is not None
        score = combined.scores["nested"]["scores"]["tied"]["mean_without_rare"]
        rows.append(((step["start"] + step["seconds"]) / 60, " + ".join(members), score))
    table = pd.DataFrame(rows, columns=["minute", "members", "score"])
    return table.drop_duplicates("members")  # a member's second fold is not seen by the first fold's rows


def score_published(run_folder: Path, data: Path, oof: Path) -> dict[str, float]:
    """Score two published models, and four together, on the rows of the run's first fold."""
    tables = read_tables(str(data))
    member = next(path.name for path in sorted((run_folder / "members").iterdir()))
    known = read_member(run_folder, member, folds=[0], tables=tables).known
    train = tables.train[known]
    with np.load(oof / "sixth_place.npz", allow_pickle=False) as stored:
        four = {name: stored[name][known].astype(np.float64) for name in TRANSFORMERS}
    chosen = {"BERT-base": [four["bert"]], "RoBERTa-base": [four["roberta"]], "four transformers": list(four.values())}
    scores = {}
    for name, predictions in chosen.items():
        nested = score_nested(
            {"mean": np.mean(predictions, axis=0)},
            train[list(TARGETS)].to_numpy(dtype=np.float64),
            questions=question_of(train),
            hosts=train["host"].to_numpy(dtype=str),
            folds=np.zeros(len(train), dtype=int),
        )
        scores[name] = nested["scores"]["tied"]["mean_without_rare"]
    return scores


def main() -> int:
    """Write the picture and its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--oof", type=Path, required=True, help="folder of sixth_place.npz")
    parser.add_argument("--picture", type=Path, required=True, help="SVG to write")
    arguments = parser.parse_args()
    followed = {run.name: follow(run, arguments.data) for run in arguments.runs}
    published = score_published(arguments.runs[0], arguments.data, arguments.oof)
    figure = new_figure(width=8, height=4.2)
    axes = clean(figure.subplots(), grid="y")
    last = max(table["minute"].iloc[-1] for table in followed.values())
    for number, (name, table) in enumerate(followed.items()):
        axes.step(table["minute"], table["score"], "o-", where="post", color=f"C{number}", label=name)
        side, align = (6, "left") if number == 0 else (-6, "right")
        for row in table.iloc[0 if number == 0 else 1 :].itertuples():  # all begin with the same
            axes.annotate(
                f"{row.members}\n{row.score:.3f}", (row.minute, row.score), xytext=(side, -24), ha=align,
                textcoords="offset points", fontsize=8, color=f"C{number}", bbox={"color": "white", "pad": 1},
            )  # fmt: skip
    for name, score in published.items():
        axes.axhline(score, color=GREY, lw=1, ls="--")
        axes.annotate(
            f"6th place's {name}, {score:.3f}", (0, score), xytext=(2, 3), textcoords="offset points", fontsize=8
        )
    axes.margins(y=0.12)  # room below the first for its name
    axes.set(xlabel="minutes on 2 CPU cores", ylabel="mean Spearman of 29 targets", xlim=(-1, 1.4 * last))
    axes.set_title("What a run would have submitted, on questions that nothing was fitted on", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(arguments.picture, metadata={"Date": None})
    for name, table in followed.items():
        sys.stdout.write(f"{name}\n{table.round(4).to_string(index=False)}\n")
    sys.stdout.write(f"{published}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
