"""The project's kernels: their names, whose they are, and what a push of one uploads."""

import re
from dataclasses import dataclass
from pathlib import Path

from questlib.kaggle.manifest import hash_files
from questlib.marks import fingerprint_of
from questlib.run_folder import read_json

COMPETITION = "google-quest-challenge"
KERNEL_METADATA = "kernel-metadata.json"
RECORD = "rehearsal.json"  # in a kernel's folder, what its rehearsal gave
OWNER = "OWNER"  # stands for the user in what is committed
GPU_MINUTES, CPU_MINUTES = 120, 540  # what the competition gives a kernel
USER = "[A-Za-z0-9][A-Za-z0-9_-]*"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One of the project's kernels."""

    notebook: str  # its file in notebooks/
    suffix: str  # what its slug and title add to those of kernel-metadata.json
    profile: str  # what overrides the notebook's defaults where no other is named, because Kaggle passes no parameters


KERNELS = {
    "train": Kernel(notebook="quest.ipynb", suffix="", profile="kaggle"),
    "predict": Kernel(notebook="predict.ipynb", suffix="predict", profile="kaggle-predict"),
}


def refuse_no_user(name: str) -> None:
    """Refuse what cannot be a user's name on Kaggle, and the word that stands for one here, by a ValueError."""
    if not re.fullmatch(USER, name) or name.upper() == OWNER:
        raise ValueError(
            "OWNER must be your user name on Kaggle, the last part of your profile's address "
            f"https://www.kaggle.com/NAME, of letters, digits, - and _, however: {name!r}; give OWNER=NAME"
        )


def hash_contents(bundle: Path, *, kernel: str) -> str:
    """Hash what a push of a kernel would upload, but what describes its datasets."""
    sources = read_json(bundle / kernel / KERNEL_METADATA).get("dataset_sources", [])
    folders = [bundle / kernel, *(bundle / "datasets" / str(source).split("/")[-1] for source in sources)]
    hashes = {
        f"{folder.name}/{name}": digest
        for folder in folders
        for name, digest in hash_files(folder).items()
        if name != RECORD
    }
    return fingerprint_of(hashes)


def refuse_unrehearsed(bundle: Path, *, kernel: str) -> None:
    """Refuse a kernel that was not rehearsed as it is, or failed.

    Args:
        bundle: What `write_bundle` wrote.
        kernel: "train" or "predict".

    Raises:
        RuntimeError: If so.
    """
    path = bundle / kernel / RECORD
    record = read_json(path) if path.is_file() else {}
    if not record.get("passed") or record.get("contents") != hash_contents(bundle, kernel=kernel):
        raise RuntimeError(
            f"{bundle / kernel} must have passed its rehearsal as it is, however it has not; rehearse it"
        )
