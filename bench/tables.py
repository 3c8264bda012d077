"""Predict generated tables and train on generated folders, whole and broken, and count what went wrong in silence.

PYTHONPATH=tests python bench/tables.py --tables 2000 --folders 500 --json FILE
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_folders
from conftest import train_tables, write_tables
from hostile import build
from hostile_run import try_table

from questlib.recipe import LexicalRecipe, Recipe
from questlib.run_folder import write_json


def main() -> int:
    """Go through the tables and the folders; 1 where one of them was faulty."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=2_000)
    parser.add_argument("--folders", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first of each")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seeds = range(arguments.first, arguments.first + arguments.tables)
        tables = _count("table", seeds, _try_tables(seeds, folder))
        seeds = range(arguments.first, arguments.first + arguments.folders)
        folders = _count("folder", seeds, _try_folders(seeds, folder))
    figures = {"tables": tables, "folders": folders, "seconds": time.monotonic() - start}
    if arguments.json:
        write_json(arguments.json, figures)
    return bool(tables["faults"] or folders["faults"])


def _try_tables(seeds: range, folder: Path) -> Iterator[tuple[bool, str | None]]:
    recipe = Recipe(members=(LexicalRecipe(folds_to_train=2),), folds=3)
    run = train_tables(write_tables(folder / "toy"), folder, recipe)
    logging.disable(logging.INFO)
    for seed in seeds:
        table = build(seed)
        yield table.words is None, try_table(table, run.run_folder, folder)


def _try_folders(seeds: range, folder: Path) -> Iterator[tuple[bool, str | None]]:
    for seed in seeds:
        tables = hostile_folders.build(seed)
        yield not tables.words, hostile_folders.try_folder(tables, folder / "one")
        shutil.rmtree(folder / "one")


def _count(what: str, seeds: range, tried: Iterator[tuple[bool, str | None]]) -> dict[str, Any]:
    n_whole, faults = 0, {}
    for number, (seed, (is_whole, fault)) in enumerate(zip(seeds, tried, strict=True), start=1):
        n_whole += is_whole
        if fault:
            faults[seed] = fault
            sys.stdout.write(f"{what} {seed}: {fault}\n")
        if number % 100 == 0 or number == len(seeds):
            sys.stdout.write(f"{number} of {len(seeds)} {what}s, {n_whole} of them whole: {len(faults)} faults\n")
            sys.stdout.flush()
    return {"tried": len(seeds), "whole": n_whole, "faults": len(faults), "told": faults}


if __name__ == "__main__":
    sys.exit(main())
