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


def main() -> None:
    """Run what the first argument asks for, in JSON."""
    asked = json.loads(sys.argv[1])
    if asked["how"] == "install":
        time.sleep(asked["slowness"])
    from questlib import report, run_folder
    from questlib.clock import Clock, find_session_start
    from questlib.data import read_tables
    from questlib.folds import train_members
    from questlib.page import write_page
    from questlib.parameters import override, read_parameters
    from questlib.profiles import read_profile
    from questlib.recipe import Recipe
    from questlib.training.trainer import QuestTrainer

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s")
    if asked["how"] == "steps":
        differentiate = QuestTrainer._differentiate

        def slowly(self: QuestTrainer, model: object, inputs: dict) -> object:
            time.sleep(asked["slowness"])
            return differentiate(self, model, inputs)

        QuestTrainer._differentiate = slowly
    if asked["how"] == "disk":
        hash_file = run_folder.hash_file

        def hash_slowly(path: Path) -> str:
            time.sleep(asked["slowness"])
            return hash_file(path)

        run_folder.hash_file = hash_slowly
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
