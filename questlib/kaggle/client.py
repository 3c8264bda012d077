"""The real Kaggle client, wrapped so that what it refuses is an error and what it saved is read back.

Credentials stay where the client finds them: they are in no argument here, and no text of the client's leaves this
module before they are struck out.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from questlib.attached import MANIFEST
from questlib.data import read_table
from questlib.kaggle.bundle import KERNEL_METADATA
from questlib.kaggle.manifest import read_fingerprint
from questlib.marks import list_changed
from questlib.run_folder import OUTPUTS, SUBMISSION, read_json
from questlib.schema import ID, TARGETS
from questlib.submission import check_submission

logger = logging.getLogger(__name__)

_POLL = 10.0  # seconds
# The client's words, and what to do about them.
_REMEDIES = {
    r"session count": "wait until a running kernel ends, or cancel it",
    r"not valid (dataset|competition|kernel|model) sources": "attach only what exists, by owner and slug",
    r"not valid tags": "use tags that exist, or none",
    r"does not resolve": "make the title one whose slug is that of the id",
    r"409|Conflict": "another notebook or dataset has that slug: choose another title and id",
    r"403|404|[Nn]ot found|denied": "the id must be yours: write the bundle for the OWNER whose credentials these are",
    r"400": "the notebook may be too large, or a field not as the site wants it",
    r"authenticat|credentials|kaggle\.json|API token": "log in: `kaggle auth login`, or put your token where it says",
}
_COMPARED = ("id", "title", "is_private", "enable_gpu", "enable_tpu", "enable_internet", "machine_shape")
_SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")


def push(bundle: Path, *, kernel: str, patience: float) -> str:
    """Upload a kernel's datasets where they changed, then the kernel, and make sure that it is what was sent.

    Args:
        bundle: What `write_bundle` wrote.
        kernel: "train" or "predict".
        patience: Seconds until an uploaded dataset must be ready.

    Returns:
        Where to watch the run.

    Raises:
        RuntimeError: If anything is refused, or saved otherwise than it was sent.
    """
    folder = bundle / kernel
    metadata = read_json(folder / KERNEL_METADATA)
    for source in metadata["dataset_sources"]:
        dataset = bundle / "datasets" / source.split("/")[1]
        if dataset.is_dir():
            _upload(dataset, name=source, patience=patience)
    said = _run("kernels", "push", "-p", str(folder))
    pushed = re.search(r"successfully pushed\.\s+Please check\s+progress at (\S+)", said)
    if pushed is None or re.search(r"not valid|does not resolve", said):
        raise RuntimeError(f"the push of {metadata['id']} must be accepted whole, however: {_advise(said)}")
    _read_back(folder, metadata)
    return pushed[1]


def fetch_status(kernel: str) -> str:
    """Tell how the latest run of a kernel stands.

    Args:
        kernel: Its owner/slug.

    Returns:
        Such as "RUNNING", "COMPLETE", or "ERROR: Notebook Threw Exception".

    Raises:
        RuntimeError: If the site does not say.
    """
    said = _run("kernels", "status", kernel)
    state = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', said)
    if state is None:
        raise RuntimeError(f"the status of {kernel} must be told, however: {_advise(said)}")
    message = re.search(r'Failure message: "(.*)"', said)
    return state[1] + (f": {message[1]}" if message else "")


def fetch_output(kernel: str, folder: Path) -> list[str]:
    """Fetch what the latest run of a kernel left, whole or not at all: its files, and its log as text.

    Args:
        kernel: Its owner/slug.
        folder: Takes the files; what it held is replaced.

    Returns:
        The names of the files.

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
        _run("kernels", "output", kernel, "-p", str(fetched), "--page-size", "200")
        _refuse_unlike(fetched, kernel=kernel, state=state)
        for path in fetched.glob("*.log"):
            path.write_text(_render_log(path.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fetched.replace(folder)
    if (folder / SUBMISSION).is_file():
        submission = read_table(folder / SUBMISSION, columns=(ID, *TARGETS))
        check_submission(submission, columns=[ID, *TARGETS], ids=submission[ID].to_numpy())
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _refuse_unlike(fetched: Path, *, kernel: str, state: str) -> None:
    # The client keeps whatever the site sends: an error's page, or half of a list, look like files.
    path = fetched / OUTPUTS
    if not path.is_file():
        if state != "COMPLETE":  # what a run that failed had left by then
            return
        raise RuntimeError(
            f"the run of {kernel} must leave {OUTPUTS} and {SUBMISSION}, however the first was not sent; ask again, or "
            "look at its log on the site"
        )
    try:
        files = read_json(path)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{OUTPUTS} of {kernel} must be what its run wrote, however: {error}; ask again") from error
    wrong = ([] if SUBMISSION in files else [SUBMISSION]) + list_changed(fetched, files)
    if wrong:
        raise RuntimeError(
            f"the output of {kernel} must come as its run left it, however missing or not the same: {wrong[:5]}; the "
            "site may have sent an error in their place: ask again"
        )


def check_client() -> str:
    """Start the client.

    Returns:
        Its version.

    Raises:
        RuntimeError: If it does not start.
    """
    return _run("--version").strip()


def _upload(folder: Path, *, name: str, patience: float) -> None:
    fingerprint, before = read_fingerprint(folder), _remote_fingerprint(name)
    if before == fingerprint:
        logger.info("%s: unchanged", name)
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    logger.info("%s: uploading %.0f MB", name, size)
    action = ["create"] if before is None else ["version", "-m", fingerprint[:12]]
    said = _run("datasets", *action, "-p", str(folder), "-r", "zip", "-q")
    if "is being created" not in said or "not valid" in said:
        raise RuntimeError(f"the upload of {name} must be accepted, however: {_advise(said)}")
    # A kernel that is pushed before the new version is ready gets the one before, and nobody says so.
    deadline = time.monotonic() + patience
    while "ready" not in _run("datasets", "status", name, fails=True) or _remote_fingerprint(name) != fingerprint:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} must be ready within {patience:.0f} s, however it is not; push again later")
        logger.info("%s: not ready yet", name)
        time.sleep(min(_POLL, patience / 4))


def _remote_fingerprint(name: str) -> str | None:
    with tempfile.TemporaryDirectory() as temporary:
        _run("datasets", "download", name, "-f", MANIFEST, "-p", temporary, "-q", "-o", fails=True)
        path = Path(temporary) / MANIFEST
        return read_fingerprint(path.parent) if path.is_file() else None


def _read_back(folder: Path, metadata: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        _run("kernels", "pull", metadata["id"], "-p", temporary, "-m")
        kept = read_json(Path(temporary) / KERNEL_METADATA)
        kept_text = (Path(temporary) / kept["code_file"]).read_text(encoding="utf-8")
    wrong = [
        f"{name} was {metadata[name]!r} and is {kept[name]!r}"
        for name in _COMPARED
        if kept.get(name) not in (None, "", metadata[name])
    ]
    wrong += [
        f"{name} were {metadata[name]} and are {kept.get(name)}"
        for name in _SOURCES
        if sorted(metadata[name]) != sorted(kept.get(name) or [])
    ]
    if _cell_sources(kept_text) != _cell_sources((folder / metadata["code_file"]).read_text(encoding="utf-8")):
        wrong.append("the cells differ")
    if wrong:
        raise RuntimeError(f"{metadata['id']} must be saved as it was sent, however: {'; '.join(wrong)}")


def _cell_sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]


def _render_log(text: str) -> str:
    try:
        return "".join(f"{entry.get('time', 0):8.1f}  {entry['data']}" for entry in json.loads(text))
    except json.JSONDecodeError:
        return text  # text already


def _run(*arguments: str, fails: bool = False) -> str:
    client = Path(sys.executable).with_name("kaggle")
    if not client.is_file():
        raise RuntimeError("the kaggle client must be installed, however it is not; run `make install`")
    done = subprocess.run([str(client), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    said = _strike_out(f"{done.stdout}\n{done.stderr}".strip())
    if done.returncode and not fails:
        raise RuntimeError(f"kaggle {' '.join(arguments[:2])} must succeed, however: {_advise(said)}")
    return said


def _advise(said: str) -> str:
    remedies = [remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, said)]
    shown = "\n".join(said.splitlines()[-8:])
    return shown + (f" ({remedies[0]})" if remedies else "")


def _strike_out(said: str) -> str:
    secrets = [os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN")]
    folders = [Path(os.environ["KAGGLE_CONFIG_DIR"])] if os.environ.get("KAGGLE_CONFIG_DIR") else []
    for folder in [*folders, Path.home() / ".kaggle", Path.home() / ".config/kaggle"]:
        if (folder / "access_token").is_file():
            secrets.append((folder / "access_token").read_text(encoding="utf-8").strip())
        if (folder / "kaggle.json").is_file():
            secrets += re.findall(r'"key"\s*:\s*"([^"]+)"', (folder / "kaggle.json").read_text(encoding="utf-8"))
    for secret in (secret for secret in secrets if secret):
        said = said.replace(secret, "***")
    return said
