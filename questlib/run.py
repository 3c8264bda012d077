"""The main job from the command line: a notebook with checked parameters, executed by papermill, and its report."""

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
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from questlib.data import read_tables
from questlib.parameters import override, read_parameters, read_profile
from questlib.pretrained import find_encoder
from questlib.recipe import Recipe
from questlib.run_folder import written_whole

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
        overrides: Parameters that win over the profile's, by name or dotted name.

    Returns:
        The run folder. What is missing, unknown or bad is refused before it is made; if a cell fails, it keeps the
        notebook as far as it came.
    """
    defaults = read_parameters(notebook)
    own = read_profile(notebook.parent / "profiles", profile)
    parameters = override(defaults, own, {"data": data} if data else {}, overrides)
    if parameters.get("out") != defaults.get("out"):
        raise ValueError(f"the run folder must be named with --out, however the parameter out is {parameters['out']!r}")
    # Of the processes that a launcher started, the first leaves the run folder; the others only train with it.
    helps = os.environ.get("RANK", "0") != "0"
    if helps:
        out = Path(tempfile.mkdtemp(prefix="questlib-"))
    out = (out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}").resolve()
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"the run folder {out} must be new or empty, however it holds files; name another")
    _check_inputs(parameters)
    given = {name: value for name, value in _absolute(parameters).items() if value != defaults[name]}
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


def _check_inputs(parameters: dict[str, Any]) -> None:
    # The notebook checks these too; asked here first, a mistake costs a second and leaves nothing behind.
    encoders = [parameters["encoder"]] if "encoder" in parameters else []
    if "members" in parameters:
        encoders = Recipe.from_parameters(parameters).encoders
    if "use_internet" in parameters:
        os.environ["HF_HUB_OFFLINE"] = str(int(not parameters["use_internet"]))
    read_tables(parameters["data"])
    for encoder in encoders:
        find_encoder(encoder)


def _absolute(parameters: dict[str, Any]) -> dict[str, Any]:
    # The notebook runs in the run folder, where a relative path would mean something else.
    paths = {name: _resolve(parameters[name]) for name in ("data", "encoder") if name in parameters}
    members = [
        entry | {"encoder": _resolve(entry["encoder"])} if "encoder" in entry else entry
        for entry in parameters.get("members", [])
    ]
    return parameters | paths | ({"members": members} if members else {})


def _resolve(value: str) -> str:
    path = Path(value).expanduser()
    return str(path.resolve()) if path.is_dir() else value


def write_report(notebook: Path, path: Path) -> None:
    """Turn an executed notebook into one HTML file that opens without a network."""
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
