"""The bundle: kernels and datasets, each a folder that the real client takes as it is."""

import ast
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from questlib.artifacts import CONFIG, ENSEMBLE, TOKENIZER, read_json, write_json
from questlib.attached import WHEELS
from questlib.config import refuse_unknown
from questlib.inference import find_folds
from questlib.kaggle.manifest import DATASET_METADATA, read_fingerprint, write_manifest
from questlib.pretrained import find_encoder
from questlib.run import read_parameters, read_profile

OWNER = "OWNER"
KERNEL_METADATA = "kernel-metadata.json"
ENCODER, RUN = "questlib-encoder", "questlib-run"
_ENCODER_FILES = (
    "config.json",
    "*.safetensors",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map*",
)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One of the project's kernels.

    Args:
        notebook: Its file in notebooks/.
        suffix: What its slug and title add to those of kernel-metadata.json.
        weights: The dataset of weights that is attached beside the wheels.
    """

    notebook: str
    suffix: str
    weights: str


KERNELS = {
    "train": Kernel(notebook="quest.ipynb", suffix="", weights=ENCODER),
    "predict": Kernel(notebook="predict.ipynb", suffix="predict", weights=RUN),
}


def write_bundle(
    project: Path, *, kernel: str, owner: str, encoder: str, run: Path | None, profile: str, out: Path
) -> None:
    """Write one kernel's folder and those of its datasets, all or none of them.

    Args:
        project: The project's root, in which `make_wheels` was run.
        kernel: "train" or "predict".
        owner: The Kaggle user.
        encoder: For "train": a folder, "all-MiniLM-L6-v2", or a hub name.
        run: For "predict": a finished run's folder.
        profile: For "train": what overrides the notebook's defaults, because Kaggle passes no parameters.
        out: Takes <kernel>/ and datasets/<slug>/; what it held of these is replaced.

    Raises:
        FileNotFoundError: If wheels, encoder or run are missing.
        ValueError: If the kernel or the profile is unknown, or the encoder holds no safetensors.
    """
    refuse_unknown([kernel], known=KERNELS, what="kernel")
    described = KERNELS[kernel]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        made = Path(temporary)
        shutil.copytree(project / "wheels", made / "datasets" / WHEELS)
        _describe_dataset(made / "datasets" / WHEELS, owner=owner)
        weights = made / "datasets" / described.weights
        weights.mkdir()
        if described.weights == ENCODER:
            _copy_encoder(find_encoder(encoder), weights)
        else:
            _copy_run(run, weights)
        write_manifest(weights)
        _describe_dataset(weights, owner=owner)
        _write_kernel(project, made, kernel=kernel, owner=owner, profile=profile)
        for folder in (made / kernel, *(made / "datasets").iterdir()):
            target = out / folder.relative_to(made)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            folder.replace(target)


def production_parameters(project: Path, *, kernel: str, profile: str, datasets: Path) -> dict[str, Any]:
    """Tell what the parameters of a kernel must be.

    Args:
        project: The project's root.
        kernel: "train" or "predict".
        profile: The name of a profile, for "train".
        datasets: The bundle's folder of datasets, whose fingerprints the kernel asserts.

    Returns:
        Every parameter's value by name.
    """
    described = KERNELS[kernel]
    notebooks = project / "notebooks"
    values = read_parameters(notebooks / described.notebook)
    if kernel == "train":
        values |= read_profile(notebooks / "profiles", profile) | {"encoder": ENCODER}
    slugs = (WHEELS, described.weights)
    return values | {"fingerprints": {slug: read_fingerprint(datasets / slug) for slug in slugs}}


def set_parameters(source: str, values: dict[str, Any]) -> str:
    """Replace the values in a cell of parameters and keep everything else of it.

    Args:
        source: One annotated assignment per parameter.
        values: The new value by name; of JSON types.

    Returns:
        The cell's new source.
    """
    lines = source.splitlines(keepends=True)
    for statement in reversed(ast.parse(source).body):  # from the end, so that places before stay what they are
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name in values:
                if ast.literal_eval(value) == values[name] or value.end_lineno is None:
                    continue
                before = lines[value.lineno - 1].encode()[: value.col_offset].decode()
                after = lines[value.end_lineno - 1].encode()[value.end_col_offset :].decode()
                lines[value.lineno - 1 : value.end_lineno] = [before + repr(values[name]) + after]
    return "".join(lines)


def _write_kernel(project: Path, made: Path, *, kernel: str, owner: str, profile: str) -> None:
    described = KERNELS[kernel]
    folder = made / kernel
    folder.mkdir()
    values = production_parameters(project, kernel=kernel, profile=profile, datasets=made / "datasets")
    notebook = nbformat.read(project / "notebooks" / described.notebook, as_version=4)
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in tags:
            cell.source = set_parameters(cell.source, values)
    nbformat.write(notebook, folder / described.notebook)
    metadata = read_json(project / KERNEL_METADATA)
    named = f"{metadata['id']} {described.suffix}".strip().replace(" ", "-").replace(OWNER, owner)
    write_json(
        folder / KERNEL_METADATA,
        metadata
        | {
            "id": named,
            "title": f"{metadata['title']} {described.suffix}".strip(),
            "code_file": described.notebook,
            "dataset_sources": [f"{owner}/{slug}" for slug in (WHEELS, described.weights)],
        },
    )


def _describe_dataset(folder: Path, *, owner: str) -> None:
    path = folder / DATASET_METADATA
    slug = folder.name
    described: dict[str, Any] = {
        "id": f"{OWNER}/{slug}",
        "title": slug.replace("-", " "),
        "licenses": [{"name": "other"}],
    }
    if path.exists():  # the wheels' own is committed
        described = read_json(path)
    write_json(path, described | {"id": described["id"].replace(OWNER, owner)})


def _copy_encoder(source: Path, folder: Path) -> None:
    paths = sorted({path for pattern in _ENCODER_FILES for path in source.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in paths):
        held = sorted(path.name for path in source.iterdir())
        raise ValueError(f"the encoder {source} must hold its weights as safetensors, however it holds: {held}")
    for path in paths:
        shutil.copyfile(path, folder / path.name)


def _copy_run(run: Path | None, folder: Path) -> None:
    if run is None or not (run / ENSEMBLE).is_file():
        raise FileNotFoundError(f"the kernel predict needs a finished run's folder, however: {run}; name one with RUN=")
    for name in (CONFIG, ENSEMBLE):
        shutil.copyfile(run / name, folder / name)
    shutil.copytree(run / TOKENIZER, folder / TOKENIZER)
    for fold in find_folds(run):
        (folder / fold.name).mkdir()
        for path in (path for path in sorted(fold.iterdir()) if path.suffix in (".json", ".safetensors")):
            shutil.copyfile(path, folder / fold.name / path.name)
