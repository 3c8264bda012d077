"""Checks 1 to 6: what kernel-metadata.json may say, beyond what the client refuses by itself."""

import json
import re
from pathlib import Path
from typing import Any

from slugify import slugify

from questlib.kaggle.findings import Check, Finding, judge
from questlib.kaggle.kernels import KERNEL_METADATA, OWNER, USER

_KEYS = {
    "id", "id_no", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu",
    "enable_internet", "machine_shape", "dataset_sources", "competition_sources", "kernel_sources", "model_sources",
    "keywords", "docker_image", "docker_image_pinning_type",
}  # fmt: skip
# A retired or unknown shape is replaced in silence. "NvidiaTeslaT4" means two of them.
_SHAPES = ("NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaL4", "NvidiaL4X1", "NvidiaTeslaA100", "NvidiaH100",
           "NvidiaRtxPro6000")  # fmt: skip
_SLUG = "[a-z0-9][a-z0-9-]*"
# As in an address of the site, where the owner is the second part; the client takes it for the owner itself.
_OWNER = rf"(?!(datasets|d|c|competitions|code|kernels|notebooks|models|m)/){USER}"
_SOURCES = {
    "dataset_sources": rf"{_OWNER}/{_SLUG}(/\d+)?",
    "competition_sources": _SLUG,
    "kernel_sources": rf"{_OWNER}/[a-z0-9-]{{5,}}",
    "model_sources": rf"{_OWNER}/[^/]+/[^/]+/[^/]+/\d+",
}


def check_metadata(folder: Path) -> list[Finding]:
    """Check a kernel's metadata.

    Args:
        folder: The kernel's folder in the bundle.

    Returns:
        Findings of checks 1 to 6; of check 1 alone where the file cannot be read.
    """
    try:
        metadata = json.loads((folder / KERNEL_METADATA).read_bytes().decode("utf-8"))  # a BOM is refused as not JSON
        if not isinstance(metadata, dict):
            raise ValueError(f"it is no mapping, but {metadata!r:.50}")
    except (OSError, ValueError) as error:
        return [
            judge(
                Check.METADATA,
                [f"{KERNEL_METADATA} must be JSON in UTF-8 without a BOM, however: {error}"],
                evidence="",
            )
        ]
    unknown = sorted(set(metadata) - _KEYS)
    missing = sorted(_KEYS - {"id_no", "docker_image", "machine_shape"} - set(metadata))
    wrong = [f"unknown keys, which the client would ignore: {unknown}"] if unknown else []
    wrong += [f"keys to be stated: {missing}"] if missing else []
    if metadata.get("docker_image_pinning_type", "original") not in ("original", "latest"):
        pinned = metadata["docker_image_pinning_type"]
        wrong.append(f"docker_image_pinning_type must be original or latest, however: {pinned!r}")
    if not isinstance(metadata.get("keywords", []), list):
        wrong.append(f"keywords must be a list, however: {metadata['keywords']!r}")
    return [
        judge(Check.METADATA, wrong, evidence=f"{len(metadata)} keys, all known"),
        judge(Check.INTERNET_OFF, _judge_internet(metadata), evidence="enable_internet is false"),
        judge(Check.NAMES, _judge_names(metadata), evidence=f"{metadata.get('id')}, titled {metadata.get('title')!r}"),
        judge(
            Check.CODE_FILE,
            _judge_code(metadata, folder=folder),
            evidence=f"python notebook {metadata.get('code_file')}",
        ),
        judge(Check.SOURCES, _judge_sources(metadata), evidence=", ".join(_list_sources(metadata))),
        judge(Check.MACHINE, _judge_machine(metadata), evidence=_describe_machine(metadata)),
    ]


def _judge_internet(metadata: dict[str, Any]) -> list[str]:
    if "enable_internet" not in metadata:
        return ["enable_internet is missing, and the client then sends true: state false"]
    if metadata["enable_internet"] is not False:
        return [f"enable_internet must be false, however: {metadata['enable_internet']!r}"]
    return []


def _judge_names(metadata: dict[str, Any]) -> list[str]:
    name, title = str(metadata.get("id", "")), str(metadata.get("title", ""))
    owner, _, slug = name.partition("/")
    wrong = []
    if not re.fullmatch(rf"{USER}/[a-z0-9][a-z0-9-]{{3,48}}[a-z0-9]", name) or owner == OWNER or "INSERT" in name:
        wrong.append(f"id must be owner/slug with a slug of 5 to 50 of a-z, 0-9 and -, however: {name!r}")
    if "id_no" in metadata:
        wrong.append(
            f"id_no must be left out, for the client follows it in place of id, however: {metadata['id_no']!r}"
        )
    if not 5 <= len(title) <= 50:
        wrong.append(f"title must have 5 to 50 characters, however: {title!r}")
    if slugify(title) != slug:
        wrong.append(f"the title's slug must be the id's, or the kernel lands elsewhere: {slugify(title)!r}, {slug!r}")
    return wrong


def _judge_code(metadata: dict[str, Any], *, folder: Path) -> list[str]:
    wrong = []
    for name, value in (("language", "python"), ("kernel_type", "notebook"), ("is_private", True)):
        if metadata.get(name) != value:
            wrong.append(f"{name} must be {value!r}, however: {metadata.get(name)!r}")
    code = str(metadata.get("code_file", ""))
    if not code.endswith(".ipynb") or Path(code).is_absolute() or not (folder / code).is_file():
        wrong.append(f"code_file must be a notebook beside the metadata, however: {code!r}")
    return wrong


def _judge_sources(metadata: dict[str, Any]) -> list[str]:
    wrong = []
    for name, pattern in _SOURCES.items():
        sources = metadata.get(name, [])
        if not isinstance(sources, list):
            wrong.append(f"{name} must be a list, however: {sources!r}")
            continue
        bad = [source for source in sources if not re.fullmatch(pattern, str(source))]
        if bad:
            wrong.append(f"{name} must be named without prefix or address, however: {bad}")
    return wrong


def _list_sources(metadata: dict[str, Any]) -> list[str]:
    return [str(source) for name in _SOURCES if isinstance(metadata.get(name), list) for source in metadata[name]]


def _describe_machine(metadata: dict[str, Any]) -> str:
    return f"{metadata['machine_shape']}, GPU on" if "machine_shape" in metadata else "a CPU, which has nine hours"


def _judge_machine(metadata: dict[str, Any]) -> list[str]:
    shape, wrong = metadata.get("machine_shape"), []
    if shape is None and metadata.get("enable_gpu") is False and metadata.get("enable_tpu") is False:
        return []  # a kernel that has nine hours, and no GPU
    if shape not in _SHAPES:
        wrong.append(f"machine_shape must be one of {', '.join(_SHAPES)}, however: {shape!r}")
    if metadata.get("enable_gpu") is not True or metadata.get("enable_tpu") is not False:
        wrong.append("enable_gpu must be true and enable_tpu false, to agree with the machine")
    return wrong
