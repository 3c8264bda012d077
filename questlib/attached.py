"""What is attached to a kernel: datasets of the version that the notebook was made for, and the wheels among them."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from questlib.inputs import describe_mounts, find_folder
from questlib.marks import fingerprint_of, list_changed
from questlib.run_folder import read_json

MANIFEST = "manifest.json"
WHEELS = "questlib-wheels"
REQUIREMENTS = "requirements.txt"


def find_attached(slug: str, *, fingerprint: str) -> Path:
    """Find the folder of an attached dataset; any version but that of the fingerprint, or a damaged one, is refused."""
    folder = find_folder(slug, marker=MANIFEST)
    if folder is None:
        raise FileNotFoundError(f"the dataset {slug} must be attached, however it is not: {describe_mounts()}")
    manifest = read_json(folder / MANIFEST)
    if manifest["fingerprint"] != fingerprint:
        raise RuntimeError(
            f"an older version of the dataset {slug} is mounted: its fingerprint must be {fingerprint[:12]}, however: "
            f"{manifest['fingerprint'][:12]}; attach the newest version, or wait until it is ready, and run again"
        )
    if fingerprint_of(manifest["files"]) != fingerprint:
        raise RuntimeError(
            f"the manifest of the dataset {slug} must be as it was uploaded, however its lines were changed"
        )
    damaged = list_changed(folder, manifest["files"])
    if damaged:
        raise RuntimeError(f"the dataset {slug} must be as it was uploaded, however missing or changed: {damaged[:5]}")
    return folder


def install_wheels(fingerprints: Mapping[str, str]) -> None:
    """Check every attached dataset and install the wheels, without an index and without moving any other package.

    `fingerprints` are by slug; nothing happens where there are none, because questlib is installed already.
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
