"""Predict a table through the command line, and tell what is wrong with what came of it."""

import contextlib
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
from hostile import Table

from questlib.__main__ import main
from questlib.inference import predict_table
from questlib.schema import ID, INPUT_COLUMNS


def try_table(table: Table, run_folder: Path, folder: Path) -> str | None:
    """Give the fault in words, None where the table was predicted as it was written, or refused as it must be."""
    path, out = folder / f"table{table.suffix}", folder / "out.csv"
    out.unlink(missing_ok=True)
    table.write(path)
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        status = main(["predict", str(run_folder), str(path), str(out), "--cache", str(folder / "cache")])
    line = told.getvalue().strip()
    if table.words is not None:
        if status != 1 or out.exists():
            return f"must be refused by {table.words!r}, however it was predicted"
        if table.words not in line or str(path) not in line or "\n" in line:
            return f"must be refused in one line with {table.words!r} and the file, however: {line!r}"
        return None
    if status != 0:
        return f"must be predicted, however refused: {line!r}"
    with out.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    ids = [row[table.header.index(ID)] for row in table.rows]
    if [row[0] for row in rows] != ids:
        return f"ids must come out as they went in, however {ids} became {[row[0] for row in rows]}"
    known = {name: [row[table.header.index(name)] or None for row in table.rows] for name in INPUT_COLUMNS}
    expected = predict_table(run_folder, pd.DataFrame(known, dtype=object), cache_folder=folder / "cache")
    found = np.array([[float(value) for value in row[1:]] for row in rows])
    if not np.array_equal(found, expected):
        return (
            f"fields must be read as they were written, however predictions differ by {np.abs(found - expected).max()}"
        )
    return None
