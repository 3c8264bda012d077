"""From a bundle to a kernel that runs at the site: uploaded where it changed, pushed, and read back."""

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from questlib.attached import MANIFEST
from questlib.kaggle.client import advise, run_client
from questlib.kaggle.kernels import KERNEL_METADATA, hash_contents
from questlib.kaggle.manifest import read_fingerprint
from questlib.run_folder import read_json, write_json

logger = logging.getLogger(__name__)

_POLL = 10.0  # seconds
_SETTLED = ("ready", "failed", "deleted")  # of a dataset's status; what else there is goes on to one of these
_COMPARED = ("id", "title", "is_private", "enable_gpu", "enable_tpu", "enable_internet", "machine_shape")
_SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A version of a kernel that was pushed."""

    id: str  # owner/slug
    version: int  # as the site counts
    url: str  # where to watch its run
    contents: str  # what `hash_contents` gave


def push(bundle: Path, *, kernel: str, patience: float) -> Pushed:
    """Upload a kernel's datasets where they changed, then the kernel, which runs at once.

    Args:
        bundle: What `write_bundle` wrote.
        kernel: "train" or "predict".
        patience: Seconds until an uploaded dataset must be ready.

    Returns:
        What was pushed.

    Raises:
        RuntimeError: If anything is refused.
    """
    folder = bundle / kernel
    metadata = read_json(folder / KERNEL_METADATA)
    for source in metadata["dataset_sources"]:
        dataset = bundle / "datasets" / source.split("/")[1]
        if dataset.is_dir():
            _upload(dataset, name=source, patience=patience)
    said = run_client("kernels", "push", "-p", str(folder))
    pushed = re.search(r"version (\d+) successfully pushed\.\s+Please check\s+progress at (\S+)", said)
    if pushed is None or re.search(r"not valid|does not resolve", said):
        raise RuntimeError(f"the push of {metadata['id']} must be accepted whole, however: {advise(said)}")
    contents = hash_contents(bundle, kernel=kernel)
    return Pushed(id=metadata["id"], version=int(pushed[1]), url=pushed[2], contents=contents)


def read_back(bundle: Path, *, kernel: str) -> None:
    """Refuse, by a RuntimeError, a kernel that the site saved otherwise than it was sent: it is not remembered."""
    wrong = _list_differences(bundle / kernel)
    if wrong:
        _name_memory(bundle, kernel).unlink(missing_ok=True)  # or it would be what is submitted
        name = read_json(bundle / kernel / KERNEL_METADATA)["id"]
        raise RuntimeError(f"{name} must be saved as it was sent, however: {'; '.join(wrong)}")


def remember(pushed: Pushed, bundle: Path, *, kernel: str) -> None:
    """Write down beside a kernel which version of it was pushed last."""
    write_json(_name_memory(bundle, kernel), asdict(pushed))


def recall(bundle: Path, *, kernel: str) -> Pushed | None:
    """Read which version of a kernel was pushed last; None where none was, or nobody wrote it down."""
    path = _name_memory(bundle, kernel)
    return Pushed(**read_json(path)) if path.is_file() else None


def find_same(bundle: Path, *, kernel: str) -> Pushed | None:
    """Find the version that a push would repeat: the one pushed last, if neither bundle nor site changed since."""
    pushed = recall(bundle, kernel=kernel)
    if pushed is None or pushed.contents != hash_contents(bundle, kernel=kernel):
        return None
    return None if _list_differences(bundle / kernel, fails=True) else pushed


def _name_memory(bundle: Path, kernel: str) -> Path:
    return bundle / f"pushed-{kernel}.json"  # outside of the kernel's folder, which each bundle replaces


def _upload(folder: Path, *, name: str, patience: float) -> None:
    fingerprint, before = read_fingerprint(folder), _remote_fingerprint(name)
    # Without a manifest there is none yet, or one whose making was not seen to its end: that one cannot be made again.
    is_made = before is not None or _read_status(name) != ""
    if is_made and before is None:
        _await(name, lambda: _read_status(name) in _SETTLED, patience=patience)
        before = _remote_fingerprint(name)
    if before == fingerprint:
        logger.info("%s: unchanged", name)
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    logger.info("%s: uploading %.0f MB", name, size)
    action = ["version", "-m", fingerprint[:12]] if is_made else ["create"]
    said = run_client("datasets", *action, "-p", str(folder), "-r", "zip", "-q")
    if "is being created" not in said or "not valid" in said:
        raise RuntimeError(f"the upload of {name} must be accepted, however: {advise(said)}")
    # A kernel that is pushed before the new version is ready gets the one before, and nobody says so.
    _await(
        name,
        lambda: _read_status(name) == "ready" and _remote_fingerprint(name) == fingerprint,
        patience=patience,
    )


def _await(name: str, is_ready: Callable[[], bool], *, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not is_ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} must be ready within {patience:.0f} s, however it is not; push again later")
        logger.info("%s: not ready yet", name)
        time.sleep(min(_POLL, patience / 4))


def _read_status(name: str) -> str:
    """Read how a dataset stands, in the site's word; empty where it says none, as of one that it does not know."""
    said = re.search(r"^[a-z_]+$", run_client("datasets", "status", name, fails=True), re.MULTILINE)
    return said[0] if said else ""


def _remote_fingerprint(name: str) -> str | None:
    with tempfile.TemporaryDirectory() as temporary:
        run_client("datasets", "download", name, "-f", MANIFEST, "-p", temporary, "-q", "-o", fails=True)
        with suppress(OSError, ValueError):  # what somebody else made there, or an error's page, is no version of ours
            return read_fingerprint(Path(temporary))
    return None


def _list_differences(folder: Path, *, fails: bool = False) -> list[str]:
    """Say what the site keeps otherwise than a bundle's kernel has it; where it `fails` to give it, that."""
    metadata = read_json(folder / KERNEL_METADATA)
    with tempfile.TemporaryDirectory() as temporary:
        run_client("kernels", "pull", metadata["id"], "-p", temporary, "-m", fails=fails)
        path = Path(temporary) / KERNEL_METADATA
        if not path.is_file():
            return ["it is not there"]
        kept = read_json(path)
        kept_text = (Path(temporary) / kept["code_file"]).read_text(encoding="utf-8")
    wrong = [
        f"{name} was {metadata[name]!r} and is {kept[name]!r}"
        for name in _COMPARED
        if name in metadata and kept.get(name) not in (None, "", metadata[name])
    ]
    wrong += [
        f"{name} were {metadata[name]} and are {kept.get(name)}"
        for name in _SOURCES
        if sorted(metadata[name]) != sorted(kept.get(name) or [])
    ]
    if _cell_sources(kept_text) != _cell_sources((folder / metadata["code_file"]).read_text(encoding="utf-8")):
        wrong.append("the cells differ")
    return wrong


def _cell_sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
