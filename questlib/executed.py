"""What an executed notebook tells of its run: its error, log and pictures, what it was given; and what it must not."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat import NotebookNode

from questlib.parameters import TAG, read_cell, read_given
from questlib.resume import flatten
from questlib.run_folder import read_json, write_json

_GIVEN = "injected-parameters"  # papermill's own tag
_COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error that a cell ended with, and the heading that it stands under."""

    name: str
    message: str
    heading: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture in a notebook: PNG in base64, and what it shows in words."""

    png: str
    alt: str


class Executed:
    """An executed notebook.

    Attributes:
        parameters: What it declares, and their defaults.
        failure: The error of the cell that failed; None where none did.
        is_ended: Whether every cell was executed.
    """

    def __init__(self, path: Path) -> None:
        self._cells: list[NotebookNode] = nbformat.read(path, as_version=4).cells
        code = [cell for cell in self._cells if cell.cell_type == "code" and cell.source.strip()]
        self.parameters = read_cell(self._source_of(TAG))
        self.failure = next(self._find_failures(), None)
        self.is_ended = self.failure is None and all(cell.execution_count for cell in code)

    @property
    def log(self) -> str:
        """All that was written while it ran, without colours; of a line that was written over, its last state."""
        texts = (output.text for _, output in self._outputs() if output.output_type == "stream")
        lines = _COLORS.sub("", "".join(texts)).split("\n")
        return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines).strip()

    def find_pictures(self, source: str) -> list[Shown]:
        """Find the pictures of the cells whose source holds some words."""
        return [
            Shown(
                png="".join(output.data["image/png"].split()),
                alt=output.metadata.get("image/png", {}).get("alt") or source.split(".")[-1].replace("_", " "),
            )
            for cell, output in self._outputs()
            if source in cell.source and "image/png" in output.get("data", {})
        ]

    def list_changes(self) -> pd.DataFrame:
        """List the parameters that were given and differ from the notebook's own."""
        own, given = self.parameters, dict[str, Any]()
        with suppress(LookupError, TypeError):  # what led nowhere ended the run in that cell
            given = read_given(self._source_of(_GIVEN), own)
        before = dict(flatten({name: own.get(name) for name in given}))
        after = dict(flatten(given))
        rows = [
            (name, _write(before, name), _write(after, name))
            for name in dict.fromkeys([*after, *before])
            if name != "out" and not name.endswith(".name") and _write(before, name) != _write(after, name)
        ]
        return pd.DataFrame(rows, columns=["parameter", "default", "here"])

    def _source_of(self, tag: str) -> str:
        return "\n".join(cell.source for cell in self._cells if tag in cell.metadata.get("tags", []))

    def _outputs(self) -> Iterator[tuple[NotebookNode, NotebookNode]]:
        for cell in self._cells:
            for output in cell.get("outputs", []):
                yield cell, output

    def _find_failures(self) -> Iterator[Failure]:
        heading = ""
        for cell in self._cells:
            if cell.cell_type == "markdown":
                heading = next((line.lstrip("# ") for line in cell.source.splitlines() if line[:1] == "#"), heading)
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    yield Failure(
                        name=output.ename,
                        message=output.evalue,
                        heading=heading,
                        traceback=_COLORS.sub("", "\n".join(output.traceback)),
                    )


def _write(values: dict[str, object], name: str) -> str:
    value = values.get(name, "")
    return value if isinstance(value, str) else json.dumps(value)


def forget_paths(executed: Path, *, out: Path, parameters: dict[str, Any]) -> None:
    """Take out of an executed notebook where things lie on this machine, and whose it is: notebooks are shown around.

    Args:
        executed: The notebook, which is written anew.
        out: The run folder, which becomes ".".
        parameters: What it was given; tables and encoders keep the last part of their paths.
    """
    places = {str(out): ".", str(Path.cwd()): ".", sys.prefix: "python", str(Path.home()): "~"}
    encoders = [member.get("encoder") for member in parameters.get("members", [])]
    for value in (parameters.get("data"), parameters.get("cache"), parameters.get("encoder"), *encoders):
        if isinstance(value, str) and Path(value).is_absolute():
            places[value] = Path(value).name
    # The root folder is everywhere, and nobody's. A path begins where a word does, or where a colour ends.
    named = sorted((place for place in places if len(place) > 1), key=len, reverse=True)
    pattern = re.compile(rf"(^|[^\w.~-]|{_COLORS.pattern})({'|'.join(map(re.escape, named))})(?![\w-])")

    def forget(content: Any) -> Any:  # noqa: ANN401  JSON
        if isinstance(content, str):
            return pattern.sub(lambda found: found[1] + places[found[2]], content)
        if isinstance(content, list):
            return [forget(each) for each in content]
        if isinstance(content, dict):  # a picture's letters are nobody's path
            return {name: each if name.startswith("image/") else forget(each) for name, each in content.items()}
        return content

    write_json(executed, forget(read_json(executed)))
