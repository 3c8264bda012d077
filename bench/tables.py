"""Predict generated tables, whole and broken, through the command line, and count what went wrong in silence.

PYTHONPATH=tests python bench/tables.py --tables 2000 --json FILE
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from conftest import train_tables, write_tables
from hostile import build
from hostile_run import try_table

from questlib.recipe import LexicalRecipe, Recipe
from questlib.run_folder import write_json


def main() -> int:
    """Go through the tables; 1 where one of them was faulty."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first table")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    faults, kinds, start = {}, Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = Recipe(members=(LexicalRecipe(folds_to_train=2),), folds=3)
        run = train_tables(write_tables(folder / "toy"), folder, recipe)
        logging.disable(logging.INFO)
        for number in range(arguments.tables):
            seed = arguments.first + number
            table = build(seed)
            kinds["whole" if table.words is None else "broken"] += 1
            fault = try_table(table, run.run_folder, folder)
            if fault:
                faults[seed] = fault
                sys.stdout.write(f"table {seed}: {fault}\n")
            if (number + 1) % 500 == 0:
                sys.stdout.write(f"{number + 1} of {arguments.tables} tables, {len(faults)} faults\n")
                sys.stdout.flush()
    figures = {"tables": arguments.tables, **kinds, "faults": len(faults), "seconds": time.monotonic() - start}
    sys.stdout.write(f"{figures}\n")
    if arguments.json:
        write_json(arguments.json, figures | {"told": faults})
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
