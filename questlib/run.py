"""The main job from the command line: a notebook with checked parameters, executed by papermill, and its report."""

import itertools
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
import papermill
import psutil
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from questlib.clock import check_limit
from questlib.comparison import PROFILE
from questlib.data import read_tables
from questlib.executed import forget_paths
from questlib.parameters import override, read_parameters
from questlib.pretrained import PUBLISHED, find_encoder, refuse_damaged
from questlib.processes import die_with_parent, find_launched
from questlib.profiles import read_profile
from questlib.recipe import Recipe, is_unread
from questlib.resume import refuse_changed, refuse_foreign, refuse_shared_resume
from questlib.run_folder import SESSION_LOCK, held_alone, make_run_folder, write_text

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 10  # for a kernel that is interrupted
_SECONDS_TO_START = 600  # several that start at once on a busy machine import torch one after the other


class Interrupted(Exception):
    """The run was told to end, by SIGINT or SIGTERM; what it has is kept in its folder."""

    def __init__(self, number: int, run_folder: Path) -> None:
        super().__init__(f"interrupted; {run_folder} holds what is finished, and where to go on")
        self.number = number
        self.run_folder = run_folder


class _KernelManager(AsyncKernelManager):
    """Starts a kernel of this Python, whatever others are called so, that is killed at once when this process ends."""

    transport_encryption = "auto" if zmq.has("curve") else "disabled"  # nobody else on the machine reads along

    @property
    def kernel_spec(self) -> KernelSpec:
        """How a kernel is started."""
        return KernelSpec(**get_kernel_dict())

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:  # noqa: ANN401
        command, options = await super()._async_pre_start_kernel(**options)
        return command, options | {"preexec_fn": die_with_parent}

    async def _async_interrupt_kernel(self) -> None:
        # A kernel that is told to end is not interrupted first: it may still be in its last answer, and would say so.
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


def run_notebook(
    notebook: Path, *, profile: str, data: str | None, out: Path | None, overrides: dict[str, Any]
) -> Path:
    """Execute the notebook with a profile and leave it, with its report, in the run folder.

    Args:
        notebook: The notebook; `profiles/` beside it holds the profiles.
        profile: The name of a profile, or "kaggle" for the notebook's own defaults.
        data: A folder of tables, or the slug of an attached one; the profile's or the notebook's where None.
        out: The run folder, new, empty, or that of the same run, which goes on; `runs/<time>-<profile>` where None.
        overrides: Parameters that win over the profile's, by name or dotted name.

    Returns:
        The run folder. What is missing, unknown or bad is refused before it is made; if a cell fails, it keeps the
        notebook as far as it came.

    Raises:
        Interrupted: If the process was told to end; the same call goes on.
    """
    defaults = read_parameters(notebook, needed=("data", "out"))
    own = read_profile(notebook.parent / "profiles", profile)
    parameters = override(defaults, own, {"data": data} if data else {}, overrides)
    if parameters.get("out") != defaults.get("out"):
        raise ValueError(f"the run folder must be named with --out, however the parameter out is {parameters['out']!r}")
    # Of the processes that a launcher started, the first leaves the run folder; the others only train with it.
    helps = find_launched().rank != 0
    if out is not None:
        refuse_foreign(out)
        if not helps:
            refuse_shared_resume(out)
    _check_inputs(parameters, out=out)
    named = overrides if "members" in overrides else own | overrides  # a profile is written for members of its own
    for name in named if "members" in parameters else ():
        if is_unread(name, parameters):
            logger.warning("parameter %s changes nothing: each member has a value of its own, or no use for any", name)
    absolute = _absolute(parameters)
    given = {name: value for name, value in absolute.items() if value != defaults[name]}
    start = time.monotonic()
    os.environ[PROFILE] = Path(profile).stem
    # glibc reads it as the kernel starts: in memory of each thread's own, 64 MB at a time, large tensors leave gaps.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    if helps:
        with tempfile.TemporaryDirectory(prefix="questlib-") as folder:
            _run_once(notebook, Path(folder) / notebook.name, given=given, parameters=absolute, helps=True)
            return Path(folder)
    out = (out or make_run_folder(Path(profile).stem)).resolve()
    with held_alone(out, name=SESSION_LOCK):
        _run_once(notebook, out / notebook.name, given=given, parameters=absolute, helps=False)
    logger.info("done in %.1f min: %s", (time.monotonic() - start) / 60, out)
    return out


def explore_tables(notebook: Path, *, data: str, out: Path | None) -> Path:
    """Execute the notebook that looks at tables, and give the page made of it: `explore.html` in `out`.

    `out` is `runs/<time>-explore` where None. Tables that cannot be read are refused before it is made.
    """
    read_tables(data)
    out = (out or make_run_folder("explore")).resolve()
    executed, parameters = out / notebook.name, {"data": _resolve(data)}
    out.mkdir(parents=True, exist_ok=True)
    _execute(notebook, executed, parameters=parameters, is_quiet=True)
    forget_paths(executed, out=out, parameters=parameters)
    write_report(executed, executed.with_suffix(".html"))
    return executed.with_suffix(".html")


def _run_once(
    notebook: Path, executed: Path, *, given: dict[str, Any], parameters: dict[str, Any], helps: bool
) -> None:
    try:
        _execute(notebook, executed, parameters=given | {"out": str(executed.parent)}, is_quiet=helps)
    except Exception:
        if not helps and executed.exists():
            try:
                _leave_report(executed, parameters=parameters)
            except (OSError, ValueError) as error:  # what happened before is the error to be told
                logger.warning("there is no report of it: %s", error)
        raise
    if not helps:
        _leave_report(executed, parameters=parameters)


def _leave_report(executed: Path, *, parameters: dict[str, Any]) -> None:
    if executed.exists():
        forget_paths(executed, out=executed.parent, parameters=parameters)
        from questlib.page import write_page  # pictures take a while to import, and a run begins without

        write_page(executed.parent)


def _execute(notebook: Path, executed: Path, *, parameters: dict[str, Any], is_quiet: bool) -> None:
    out = executed.parent
    with _forwarded_signals() as received:
        try:
            papermill.execute_notebook(
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, executed)),  # no templates
                parameters=parameters,
                cwd=str(out),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=None if is_quiet else sys.stdout,
                stderr_file=None if is_quiet else sys.stderr,
                kernel_manager_class=_KernelManager,
                start_timeout=_SECONDS_TO_START,
            )
        except FileNotFoundError as error:  # papermill writes it before the first cell and after each
            if executed.exists():
                raise
            raise FileNotFoundError(
                f"the run folder {out} must stay while its run is at work, however it was removed; begin in a new one"
            ) from error
        except (PapermillExecutionError, RuntimeError, KeyboardInterrupt) as error:
            if received:
                raise Interrupted(received[0], out) from error
            if isinstance(error, PapermillExecutionError):
                told = f"{error.ename}: {error.evalue}"
                raise RuntimeError(
                    f"cell {error.exec_count} of {notebook} failed with {told}; {executed} shows where"
                ) from error
            if isinstance(error, RuntimeError):
                raise RuntimeError(
                    f"the kernel died, as it does when memory runs out ({error}); {out} holds what is finished: the "
                    f"same command with --out {out} goes on"
                ) from error
            raise


@contextmanager
def _forwarded_signals() -> Iterator[list[int]]:
    # The kernel leads a session of its own, so that a terminal's Ctrl-C does not reach it. It is told, keeps its state,
    # and its cell then fails. Between two cells it hears nothing, and it may only just begin: it is told again and
    # again, and in the end killed.
    received: list[int] = []
    ended = threading.Event()

    def tell() -> None:
        for second in itertools.count():
            for kernel in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    kernel.send_signal(signal.SIGINT if second < _SECONDS_TO_END else signal.SIGKILL)
            if ended.wait(1):
                return

    def handle(number: int, frame: FrameType | None) -> None:
        if not psutil.Process().children():
            raise KeyboardInterrupt
        if not received:
            threading.Thread(target=tell, daemon=True).start()
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {each: signal.signal(each, handle) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_inputs(parameters: dict[str, Any], *, out: Path | None) -> None:
    # The notebook checks these too; asked here first, a mistake costs a second and leaves nothing behind.
    encoders = [parameters["encoder"]] if "encoder" in parameters else []
    recipe = Recipe.from_parameters(parameters) if "members" in parameters else None
    if "use_internet" in parameters:
        os.environ["HF_HUB_OFFLINE"] = str(int(not parameters["use_internet"]))
    cache = parameters.get("cache", "~")
    if not cache:
        raise ValueError("cache must name a folder, however it is empty; leave it out, or name one for the cache alone")
    if out is not None and not cache.startswith("~") and Path(cache).resolve().is_relative_to(out.resolve()):
        raise ValueError(f"cache must lie outside the run folder, however {cache} lies in {out}; name another")
    if "time_limit_minutes" in parameters:
        check_limit(parameters["time_limit_minutes"])
    tables = read_tables(parameters["data"])
    for encoder in encoders if recipe is None else recipe.encoders:
        refuse_damaged(find_encoder(encoder))
    if recipe is not None and out is not None:
        refuse_changed(out, Recipe.from_parameters(_absolute(parameters)), tables)  # so did the kernel write it


def _absolute(parameters: dict[str, Any]) -> dict[str, Any]:
    # The notebook runs in the run folder, where a relative path would mean something else.
    paths: dict[str, str] = {name: _resolve(parameters[name]) for name in ("data", "encoder") if name in parameters}
    if not parameters.get("cache", "~").startswith("~"):
        paths["cache"] = str(Path(parameters["cache"]).absolute())  # there, or to be made
    members = [
        entry | {"encoder": _resolve(entry["encoder"])} if "encoder" in entry else entry
        for entry in parameters.get("members", [])
    ]
    return parameters | paths | ({"members": members} if members else {})


def _resolve(value: str) -> str:
    path = Path(value).expanduser()
    return str(path.resolve()) if path.is_dir() and value not in PUBLISHED else value


def write_report(notebook: Path, path: Path) -> None:
    """Turn an executed notebook into one HTML file that opens without a network."""
    # The basic template has no scripts or styles of its own: the others fetch both from the network.
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    # One block per stream and cell: the kernel sends every line of the log as an output of its own.
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    heading = re.search(r"<h1[^>]*>([^<]*)", body)
    write_text(path, _PAGE.format(title=heading[1] if heading else notebook.stem, style=_STYLE, body=body))


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>{body}</main></body></html>
"""
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --ground: #f6f7f9; --paper: #fff; --line: #dde1e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --ground: #0f1216; --paper: #171b21; --line: #2e353f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 2.5rem); background: var(--paper); }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .5rem; } .anchor-link { display: none; }
table { border-collapse: collapse; font-size: 14px; display: block; overflow-x: auto; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
pre { font-size: 12px; background: var(--ground); padding: .6rem; overflow: auto; max-height: 22rem; }
"""
