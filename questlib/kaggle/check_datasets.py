"""Checks 17 and 19 to 22: what the datasets of a bundle hold, before they are uploaded."""

import re
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from questlib.attached import MANIFEST, REQUIREMENTS, WHEELS
from questlib.kaggle.findings import UNCHECKED, Check, Finding, judge
from questlib.kaggle.manifest import DATASET_METADATA, hash_files, hash_source, read_manifest
from questlib.kaggle.twin import list_images
from questlib.kaggle.wheels import LOCK, read_lock
from questlib.marks import fingerprint_of, hash_file
from questlib.run_folder import read_json

# A second copy of these breaks what the image was built with, and takes minutes to install.
_HEAVY = {
    "torch", "torchvision", "torchaudio", "triton", "numpy", "pandas", "scipy", "scikit-learn", "pyarrow",
    "transformers", "tokenizers", "accelerate", "datasets", "matplotlib", "safetensors", "huggingface-hub",
}  # fmt: skip
_PICKLED = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"}
_PACKED = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}


def check_datasets(project: Path, folder: Path, *, slugs: list[str]) -> list[Finding]:
    """Check a bundle's datasets.

    Args:
        project: The project's root.
        folder: The bundle's folder of datasets.
        slugs: Those that the kernel attaches.

    Returns:
        Findings of checks 17 and 19 to 22.
    """
    missing = [slug for slug in slugs if not (folder / slug).is_dir()]
    if missing:
        return [
            judge(Check.DATASETS, [f"the bundle must hold the datasets {missing}, however it does not"], evidence="")
        ]
    files = [path for slug in slugs for path in sorted((folder / slug).rglob("*")) if path.is_file()]
    wheels = [path for path in files if path.suffix == ".whl"]
    return [
        judge(
            Check.WHEELS,
            list(_judge_wheel_names(project, folder / WHEELS)),
            evidence=", ".join(path.name for path in wheels),
        ),
        *_check_packages(wheels),
        judge(Check.MANGLED, list(_judge_names(files, folder)), evidence=f"the names of {len(files)} files survive"),
        judge(
            Check.DATASETS,
            list(_judge_metadata(folder, slugs)),
            evidence=f"{', '.join(slugs)} are described within the rules",
        ),
        judge(
            Check.VERSIONS,
            list(_judge_manifests(project, folder, slugs)),
            evidence="manifests agree with files and source",
        ),
    ]


def _judge_wheel_names(project: Path, folder: Path) -> Iterator[str]:
    wheels = sorted(folder.glob("*.whl"))
    own = [path for path in wheels if path.name.startswith("questlib-")]
    if len(own) != 1 or not own[0].name.endswith("-py3-none-any.whl"):
        yield f"one pure wheel of questlib must be there, however: {[path.name for path in own]}"
    for path in wheels:
        try:
            parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            yield f"{path.name} is no wheel's name: {error}"
    locked = read_lock(project / "wheels" / LOCK)
    hashes = {hash_file(path): path.name for path in wheels}
    lost = sorted(name for name, digest in locked.items() if digest not in hashes)
    if lost:
        yield f"the locked wheels {lost} must be there with their hash, however there is: {sorted(hashes.values())}"
    named = read_lock(folder / REQUIREMENTS) if (folder / REQUIREMENTS).is_file() else {}
    unlike = sorted(name for name, digest in named.items() if digest not in hashes)
    if unlike or not named:
        yield f"{REQUIREMENTS} must name the wheels with their hashes, however it does not for {unlike or 'any'}"


def _check_packages(wheels: list[Path]) -> Iterator[Finding]:
    images, wrong, unknown = list_images(), [], []
    for path in wheels:
        name = canonicalize_name(path.name.split("-")[0])
        if name in _HEAVY:
            wrong.append(f"{path.name} is in the image already: do not ship it")
        metadata = _read_metadata(path)
        for image, pinned in images.items():
            versions = {canonicalize_name(one): version for one, version in pinned.items()}
            if not SpecifierSet(metadata["Requires-Python"] or "").contains(f"{image}.0"):
                wrong.append(f"{path.name} needs Python {metadata['Requires-Python']}, however an image has {image}")
            for needed in map(Requirement, metadata.get_all("Requires-Dist") or []):
                if needed.marker is not None and not needed.marker.evaluate(_describe_image(image)):
                    continue
                version = versions.get(canonicalize_name(needed.name))
                if version is None:
                    unknown.append(needed.name)
                elif not needed.specifier.contains(version, prereleases=True):
                    wrong.append(f"{path.name} needs {needed}, however the image of Python {image} has {version}")
    evidence = f"nothing heavy; what they need, the images of Python {' and '.join(images)} have"
    yield judge(Check.PACKAGES, wrong, evidence=evidence)
    if unknown:
        names = ", ".join(sorted(set(unknown)))
        yield Finding(
            check=Check.PACKAGES, state=UNCHECKED, evidence=f"the images' versions of {names} are not published"
        )


def _describe_image(image: str) -> dict[str, str]:
    # A marker asks for the image's Python, not for the one that runs this.
    here = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    return here | {"python_version": image, "python_full_version": f"{image}.0", "extra": ""}


def _read_metadata(wheel: Path) -> Message:
    try:
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            return HeaderParser().parsestr(archive.read(name).decode())
    except (zipfile.BadZipFile, ValueError):  # check 22 tells of a file that is not what it was
        return Message()


def _judge_names(files: list[Path], folder: Path) -> Iterator[str]:
    for path in files:
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in _PICKLED:
            yield f"{name} may be pickled, which runs code when read and is unpacked when uploaded: ship safetensors"
        if path.suffix.lower() in _PACKED:
            yield f"{name} would be unpacked by the upload: ship what is in it"
        if re.search(r"[^A-Za-z0-9._/-]", name):
            yield f"{name} would lose characters of its name: use letters, digits, dots, hyphens and underscores"


def _judge_metadata(folder: Path, slugs: list[str]) -> Iterator[str]:
    for slug in slugs:
        path = folder / slug / DATASET_METADATA
        if not path.is_file():
            yield f"{slug} must hold {DATASET_METADATA}"
            continue
        described = read_json(path)
        owner, _, name = str(described.get("id", "")).partition("/")
        if name != slug or owner in ("", "OWNER") or not 6 <= len(name) <= 50:
            yield f"the id of {slug} must be owner/{slug} with a slug of 6 to 50, however: {described.get('id')!r}"
        if not 6 <= len(str(described.get("title", ""))) <= 50:
            yield f"the title of {slug} must have 6 to 50 characters, however: {described.get('title')!r}"
        licences = described.get("licenses")
        if not isinstance(licences, list) or len(licences) != 1 or "name" not in licences[0]:
            yield f"{slug} must name exactly one licence, however: {licences!r}"


def _judge_manifests(project: Path, folder: Path, slugs: list[str]) -> Iterator[str]:
    for slug in slugs:
        path = folder / slug / MANIFEST
        if not path.is_file():
            yield f"{slug} must hold {MANIFEST}"
            continue
        manifest, found = read_manifest(path.parent), hash_files(folder / slug)
        names = sorted(name for name in {*found, *manifest["files"]} if found.get(name) != manifest["files"].get(name))
        if names:
            yield f"{slug} must be as its manifest says, however missing, changed or new: {names[:5]}"
        elif manifest["fingerprint"] != fingerprint_of(found):
            yield f"the fingerprint of {slug} must be that of its files: write the bundle again"
        if slug == WHEELS and manifest.get("source") != hash_source(project):
            yield "the wheel is older than the source: run make wheels"
