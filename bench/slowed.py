"""A run on a machine that is slower than this one, in one of several ways: a helper of `stress.py`."""

import io
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

SAMPLE = Path(__file__).parents[1] / "notebooks/sample"


def copy_rows(frame: pd.DataFrame, n_copies: int) -> pd.DataFrame:
    """Repeat a table, with ids of its own for each copy."""
    ids = frame["qa_id"].astype(str)
    return pd.concat([frame.assign(qa_id=ids + "-x" * copy) for copy in range(n_copies)], ignore_index=True)


def slow_down(how: str, seconds: float) -> None:
    """Let each step, each hash of a file, or the installation take so much longer; anything else is left as it is."""
    from questlib import marks
    from questlib.training.trainer import QuestTrainer

    if how == "install":
        time.sleep(seconds)
    if how == "steps":
        differentiate = QuestTrainer._differentiate

        def slowly(self: QuestTrainer, model: object, inputs: dict) -> object:
            time.sleep(seconds)
            return differentiate(self, model, inputs)

        QuestTrainer._differentiate = slowly
    if how == "disk":
        hash_file = marks.hash_file

        def hash_slowly(path: Path) -> str:
            time.sleep(seconds)
            return hash_file(path)

        marks.hash_file = hash_slowly


def main() -> None:
    """Run what the first argument asks for, in JSON."""
    asked = json.loads(sys.argv[1])
    from questlib import report
    from questlib.clock import Clock, find_session_start
    from questlib.data import read_tables
    from questlib.folds import train_members
    from questlib.page import write_page
    from questlib.parameters import override, read_parameters
    from questlib.profiles import read_profile
    from questlib.recipe import Recipe

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s")
    slow_down(asked["how"], asked["slowness"])
    notebooks = SAMPLE.parent
    members = [{"name": "tiny", "kind": "transformer"}, {"name": "words", "kind": "lexical"}]
    changes = {
        "members": members, "folds_to_train": 4, "max_length": 64, "stages.full.epochs": 60, "patience": 0,
        "encoder": asked["encoder"],
    }  # fmt: skip
    parameters = override(
        read_parameters(notebooks / "quest.ipynb"), read_profile(notebooks / "profiles", "sample"), changes
    )
    tables = read_tables(str(SAMPLE))
    if asked["how"] == "test":
        test, sample_submission = (copy_rows(each, 10) for each in (tables.test, tables.sample_submission))
        tables = replace(tables, test=test, sample_submission=sample_submission)
    out = Path(asked["out"])
    clock = Clock(out, limit_minutes=asked["limit"] / 60, session_start=find_session_start())
    clock.finish_step("read and check")
    recipe = Recipe.from_parameters(parameters)
    train_members(tables, recipe, run_folder=out, cache_folder=out.parent / "cache", clock=clock)
    # What the notebook and `make run` do after it, which the clock leaves time for.
    for picture in report.plot_learning_curves(out):
        picture.savefig(io.BytesIO(), dpi=200)
    for show in (report.show_scores, report.show_targets, report.show_run_ties, report.show_run_distributions):
        show(out)
    write_page(out)
    clock.finish_step("end")


if __name__ == "__main__":
    main()
