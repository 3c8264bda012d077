"""What is attached to a kernel: datasets of the version that the notebook was made for, and the wheels among them."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from questlib.inputs import describe_mounts, find_folder

MANIFEST = "manifest.json"
WHEELS = "questlib-wheels"
REQUIREMENTS = "requirements.txt"


def hash_file(path: Path) -> str:
    """Hash a file's content.

    Args:
        path: The file.

    Returns:
        Its SHA-256 in hexadecimal.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_attached(slug: str, *, fingerprint: str) -> Path:
    """Find an attached dataset and refuse any version of it but one.

    Args:
        slug: The dataset's slug.
        fingerprint: That of the wanted version's manifest.

    Returns:
        The folder that holds the manifest.

    Raises:
        FileNotFoundError: If the dataset is not attached.
        RuntimeError: If it is of another version, or a file of it is missing or damaged.
    """
    folder = find_folder(slug, marker=MANIFEST)
    if folder is None:
        raise FileNotFoundError(f"the dataset {slug} must be attached, however it is not: {describe_mounts()}")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["fingerprint"] != fingerprint:
        raise RuntimeError(
            f"an older version of the dataset {slug} is mounted: its fingerprint must be {fingerprint[:12]}, however: "
            f"{manifest['fingerprint'][:12]}; attach the newest version, or wait until it is ready, and run again"
        )
    damaged = [
        name
        for name, expected in manifest["files"].items()
        if not (folder / name).is_file() or hash_file(folder / name) != expected
    ]
    if damaged:
        raise RuntimeError(f"the dataset {slug} must be as it was uploaded, however missing or changed: {damaged[:5]}")
    return folder


def install_wheels(fingerprints: Mapping[str, str]) -> None:
    """Check every attached dataset and install the wheels, without an index and without moving any other package.

    Args:
        fingerprints: By slug; nothing happens where it is empty, because questlib is installed already.

    Raises:
        FileNotFoundError: If a dataset is not attached.
        RuntimeError: If a dataset is of another version or damaged, or the wheels cannot be installed.
    """
    folders = {slug: find_attached(slug, fingerprint=fingerprint) for slug, fingerprint in fingerprints.items()}
    if not folders:
        return
    wheels = folders[WHEELS]
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--require-hashes", "--find-links", str(wheels)]
    done = subprocess.run([*pip, *options, "--requirement", wheels / REQUIREMENTS], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the wheels in {wheels} must install, however: {done.stderr.strip()}")
