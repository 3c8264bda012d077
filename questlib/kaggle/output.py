"""What a kernel's latest run is doing, and what it left."""

import json
import re
import shutil
import tempfile
from pathlib import Path

from questlib.data import read_table
from questlib.kaggle.client import advise, run_client
from questlib.marks import list_changed
from questlib.run_folder import OUTPUTS, SUBMISSION, read_json
from questlib.schema import ID, TARGETS
from questlib.submission import check_submission


def fetch_status(kernel: str) -> str:
    """Tell how the latest run of a kernel stands.

    Args:
        kernel: Its owner/slug.

    Returns:
        Such as "RUNNING", "COMPLETE", or "ERROR: Notebook Threw Exception".

    Raises:
        RuntimeError: If the site does not say.
    """
    said = run_client("kernels", "status", kernel)
    state = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', said)
    if state is None:
        raise RuntimeError(f"the status of {kernel} must be told, however: {advise(said)}")
    message = re.search(r'Failure message: "(.*)"', said)
    return state[1] + (f": {message[1]}" if message else "")


def fetch_output(kernel: str, folder: Path) -> tuple[str, list[str]]:
    """Fetch what the latest run of a kernel left: its files, and its log as text.

    Of a run that came to its end they are those that it wrote, whole or not at all; of another, what was sent.

    Args:
        kernel: Its owner/slug.
        folder: Takes the files; what it held is replaced.

    Returns:
        How the run stands, as `fetch_status` tells it, and the names of the files.

    Raises:
        RuntimeError: If the run has not ended, or its output cannot be fetched.
        ValueError: If its submission is not what the competition takes.
    """
    state = fetch_status(kernel)
    if not state.startswith(("COMPLETE", "ERROR", "CANCEL")):
        raise RuntimeError(f"the run of {kernel} must have ended, however it is {state}; ask again later")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        fetched = Path(temporary) / "output"
        run_client("kernels", "output", kernel, "-p", str(fetched), "--page-size", "200")
        if state == "COMPLETE" or (fetched / OUTPUTS).is_file():  # else a run that failed, and what it had left by then
            refuse_unlike(fetched, kernel=kernel)
        for path in fetched.glob("*.log"):
            path.write_text(_render_log(path.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fetched.replace(folder)
    if (folder / SUBMISSION).is_file():
        _check_submission(folder / SUBMISSION)
    return state, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refuse_unsubmittable(kernel: str) -> None:
    """Refuse a kernel of which the latest run has not ended well, or left no submission that the competition takes.

    Args:
        kernel: Its owner/slug.

    Raises:
        RuntimeError: If the run is not complete, or its submission is not there, or not what the run wrote.
        ValueError: If its submission is not what the competition takes.
    """
    state = fetch_status(kernel)
    if state != "COMPLETE":
        raise RuntimeError(
            f"the run of {kernel} must be complete before it is submitted, however it is {state}; `make status` tells "
            "when it is, `make output` fetches its log"
        )
    with tempfile.TemporaryDirectory() as temporary:
        fetched, wanted = Path(temporary), (OUTPUTS, SUBMISSION)
        run_client("kernels", "output", kernel, "-p", temporary, "--file-pattern", rf"^({'|'.join(wanted)})$")
        refuse_unlike(fetched, kernel=kernel, only=wanted)
        _check_submission(fetched / SUBMISSION)


def refuse_unlike(fetched: Path, *, kernel: str, only: tuple[str, ...] = ()) -> None:
    """Refuse, by a RuntimeError, what was fetched if it is not what the run says it left: files named, or all."""
    # The client keeps whatever the site sends: an error's page, or half of a list, look like files.
    path = fetched / OUTPUTS
    if not path.is_file():
        raise RuntimeError(
            f"the run of {kernel} must leave {OUTPUTS} and {SUBMISSION}, however the first was not sent; ask again, or "
            "look at its log on the site"
        )
    try:
        files = read_json(path)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{OUTPUTS} of {kernel} must be what its run wrote, however: {error}; ask again") from error
    awaited = {name: digest for name, digest in files.items() if not only or name in only}
    wrong = ([] if SUBMISSION in files else [SUBMISSION]) + list_changed(fetched, awaited)
    if wrong:
        raise RuntimeError(
            f"the output of {kernel} must come as its run left it, however missing or not the same: {wrong[:5]}; the "
            "site may have sent an error in their place: ask again"
        )


def _check_submission(path: Path) -> None:
    submission = read_table(path, columns=(ID, *TARGETS))
    check_submission(submission, columns=[ID, *TARGETS], ids=submission[ID].to_numpy())


def _render_log(text: str) -> str:
    try:
        return "".join(f"{entry.get('time', 0):8.1f}  {entry['data']}" for entry in json.loads(text))
    except json.JSONDecodeError:
        return text  # text already
