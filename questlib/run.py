"""The main job from the command line: a notebook with checked parameters, executed by papermill, and its report."""

import ast
import logging
import os
import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from questlib.artifacts import written_whole
from questlib.config import refuse_unknown
from questlib.data import read_tables
from questlib.pretrained import find_encoder

logger = logging.getLogger(__name__)

REPORT = "report.html"


def run_notebook(
    notebook: Path, *, profile: str, data: str | None, out: Path | None, overrides: dict[str, Any]
) -> Path:
    """Execute the notebook with a profile and leave it, with its report, in the run folder.

    Args:
        notebook: The notebook; `profiles/` beside it holds the profiles.
        profile: The name of a profile, or "kaggle" for the notebook's own defaults.
        data: A folder of tables, or the slug of an attached one; the profile's or the notebook's where None.
        out: The run folder, which must be new or empty; `runs/<time>-<profile>` where None.
        overrides: Parameters that win over the profile's.

    Returns:
        The run folder.

    Raises:
        FileNotFoundError: If the data or the encoder is missing.
        FileExistsError: If the run folder holds something.
        TypeError: If a parameter is not of its default's kind.
        ValueError: If the profile or a parameter is unknown, or the data is bad.
        RuntimeError: If a cell fails; the run folder keeps the notebook as far as it came.
    """
    defaults = read_parameters(notebook)
    given = read_profile(notebook.parent / "profiles", profile) | ({"data": data} if data else {}) | overrides
    refuse_unknown(given, known=defaults, what="parameter")
    _refuse_other_kinds(given, defaults)
    if "out" in given:
        raise ValueError(f"the run folder must be named with --out, however the parameter out is {given['out']!r}")
    # Of the processes that a launcher started, the first leaves the run folder; the others only train with it.
    helps = os.environ.get("RANK", "0") != "0"
    if helps:
        out = Path(tempfile.mkdtemp(prefix="questlib-"))
    out = (out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}").resolve()
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"the run folder {out} must be new or empty, however it holds files; name another")
    parameters = defaults | given
    # The notebook checks these too; asked here first, a mistake costs a second and leaves nothing behind.
    if "use_internet" in parameters:
        os.environ["HF_HUB_OFFLINE"] = str(int(not parameters["use_internet"]))
    for name, resolve in (("data", lambda value: read_tables(value)), ("encoder", find_encoder)):
        resolve(parameters[name])
    given = {name: _absolute(value) if name in ("data", "encoder") else value for name, value in given.items()}
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    executed = out / notebook.name
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters=given | {"out": str(out)},
            cwd=str(out),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=None if helps else sys.stdout,
            stderr_file=None if helps else sys.stderr,
        )
    except PapermillExecutionError as error:
        raise RuntimeError(
            f"cell {error.exec_count} of {notebook} failed with {error.ename}: {error.evalue}; {executed} shows where"
        ) from error
    finally:
        if helps:
            shutil.rmtree(out)
        elif executed.exists():
            write_report(executed, out / REPORT)
    if not helps:
        logger.info("done in %.1f min: %s", (time.monotonic() - start) / 60, out)
    return out


def _refuse_other_kinds(given: dict[str, Any], defaults: dict[str, Any]) -> None:
    # The word "False" counts as true, and 2.5 folds fail late: better to say so before anything is made.
    for name, value in given.items():
        kind = type(defaults[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise TypeError(f"parameter {name} must be of type {kind.__name__}, however: {value!r}")


def _absolute(value: str) -> str:
    # The notebook runs in the run folder, where a relative path would mean something else.
    path = Path(value).expanduser()
    return str(path.resolve()) if path.is_dir() else value


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Read the parameters a notebook declares and their defaults.

    Args:
        notebook: Has a cell tagged `parameters` with plain assignments.

    Returns:
        Defaults by name.

    Raises:
        FileNotFoundError: If the notebook is missing.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}; run from the project's root, or name one with --notebook")
    cells = nbformat.read(notebook, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    declared = {}
    # papermill's own inspection goes line by line: a "#" in a string or a "=" in a comment misleads it.
    for statement in ast.parse(source).body:
        match statement:
            case (
                ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id=name)], value=value)
            ):
                declared[name] = ast.literal_eval(value)
    return declared


def read_profile(folder: Path, name: str) -> dict[str, Any]:
    """Read a profile.

    Args:
        folder: Holds a YAML file per profile.
        name: The file's name without its ending; "kaggle" overrides nothing.

    Returns:
        Parameters by name.

    Raises:
        ValueError: If there is no such profile, or it is not YAML, or not a mapping.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    refuse_unknown([name], known=known, what="profile")
    try:
        content = yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{known[name]} must be YAML, however: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{known[name]} must map parameters to values, however: {type(content)=}")
    return content


def write_report(notebook: Path, path: Path) -> None:
    """Turn an executed notebook into one HTML file that opens without a network.

    Args:
        notebook: The executed notebook.
        path: The HTML file.
    """
    # The basic template has no scripts or styles of its own: the others fetch both from the network.
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    # One block per stream and cell: the kernel sends every line of the log as an output of its own.
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    with written_whole(path) as temporary:
        temporary.write_text(_PAGE.format(title=notebook.stem, style=_STYLE, body=body), encoding="utf-8")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><main>{body}</main></body>
</html>
"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2430; background: #f6f7f9; margin: 0; }
main { max-width: 1080px; margin: 2rem auto; padding: 1rem 2.5rem; background: #fff; box-shadow: 0 1px 4px #0002; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #dde1e8; padding-bottom: .3rem; }
img { max-width: 100%; } .anchor-link { display: none; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: .25rem .8rem; text-align: right; }
th { background: #eef1f5; } tr:nth-child(even) td { background: #f8f9fb; }
pre { font-size: 12px; background: #f6f7f9; padding: .6rem; overflow: auto; max-height: 22rem; }
"""
