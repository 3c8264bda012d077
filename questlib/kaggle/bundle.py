"""The bundle: kernels and datasets, each a folder that the real client takes as it is."""

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
from slugify import slugify

from questlib.attached import WHEELS
from questlib.checks import refuse_unknown
from questlib.inference import find_folds
from questlib.kaggle.kernels import GPU_MINUTES, KERNEL_METADATA, KERNELS, OWNER, Kernel, refuse_no_user
from questlib.kaggle.manifest import DATASET_METADATA, read_fingerprint, write_manifest
from questlib.members import MEMBERS, load_member
from questlib.parameters import TAG, override, read_parameters, write_cell
from questlib.pretrained import PUBLISHED, find_encoder, list_files, refuse_damaged
from questlib.profiles import read_profile
from questlib.recipe import Recipe, TransformerRecipe
from questlib.run_folder import DONE, ENSEMBLE, RECIPE, fold_folder, read_json, write_json

RUN = "questlib-run"
_LONGEST_SLUG = 50


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be bundled."""

    project: Path  # its root, in which `make_wheels` was run
    kernel: str  # "train" or "predict"
    owner: str  # the Kaggle user
    profile: str | None = None  # what overrides the notebook's defaults; the kernel's own where None
    overrides: Mapping[str, Any] = field(default_factory=dict)  # what overrides the profile
    run: Path | None = None  # for "predict": a finished run's folder

    def __post_init__(self) -> None:
        refuse_no_user(self.owner)
        refuse_unknown([self.kernel], known=KERNELS, what="kernel")
        if self.run is not None and self.kernel != "predict":
            raise ValueError(
                f"a run is for the kernel predict, however: {self.kernel!r}; give KERNEL=predict, or no RUN"
            )

    @property
    def described(self) -> Kernel:
        """The kernel."""
        return KERNELS[self.kernel]

    def choose_parameters(self) -> dict[str, Any]:
        """Give every parameter of the notebook its value, encoders as they are named at home."""
        notebooks = self.project / "notebooks"
        profile = read_profile(notebooks / "profiles", self.profile or self.described.profile)
        return override(read_parameters(notebooks / self.described.notebook), profile, self.overrides)

    def name_encoders(self) -> dict[str, str]:
        """Name the dataset of each encoder that the members begin with: slugs by the encoder's name at home."""
        slugs: dict[str, str] = {}
        by_place: dict[Path, str] = {}
        for encoder in Recipe.from_parameters(self.choose_parameters()).encoders if self.kernel == "train" else ():
            slug = f"questlib-{slugify(Path(encoder).name)}"[:_LONGEST_SLUG].rstrip("-")
            names = itertools.chain([slug], (f"{slug[: _LONGEST_SLUG - 4]}-{number}" for number in itertools.count(2)))
            free = next(name for name in names if name not in (WHEELS, *slugs.values()))
            slugs[encoder] = by_place.setdefault(_locate(encoder), free)
        return slugs

    def list_datasets(self) -> list[str]:
        """Name the datasets that the kernel attaches, the wheels first."""
        return [WHEELS, *(dict.fromkeys(self.name_encoders().values()) if self.kernel == "train" else (RUN,))]


def _locate(encoder: str) -> Path:
    # One folder may be spelt in several ways. What is on the hub, or not installed yet, stands for itself.
    if encoder in PUBLISHED or Path(encoder).expanduser().is_dir():
        with contextlib.suppress(FileNotFoundError):
            return find_encoder(encoder).resolve()
    return Path(encoder)


def refuse_unready(order: Order) -> None:
    """Refuse, before anything takes time, an order whose parameters are unknown or whose run is not finished.

    Raises:
        FileNotFoundError: If the profile, or a file of the run, is missing.
        ValueError: If a parameter is unknown or has a value that it must not have, or no member has the encoder.
    """
    if order.kernel == "predict":
        _refuse_unfinished(order.run)
    encoder, named = order.choose_parameters().get("encoder"), order.name_encoders()
    if "encoder" in order.overrides and encoder not in named:
        raise ValueError(
            f"encoder must be that of a member, however all name their own: {encoder!r} is none of {list(named)}; "
            "give it to one as members.NAME.encoder, or leave it out"
        )


def write_bundle(order: Order, out: Path) -> None:
    """Write one kernel's folder and those of its datasets; what was there stays until all of them are made.

    Args:
        order: What to write.
        out: Takes <kernel>/ and datasets/<slug>/; what it held of these is replaced.

    Raises:
        FileNotFoundError: If wheels, an encoder or the run are missing.
        ValueError: If a parameter or the profile is unknown, or an encoder holds no safetensors.
    """
    refuse_unready(order)
    encoders = {slug: find_encoder(name) for name, slug in order.name_encoders().items()}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        made = Path(temporary)
        datasets = made / "datasets"
        shutil.copytree(order.project / "wheels", datasets / WHEELS)
        for slug, source in encoders.items():
            _copy_encoder(source, datasets / slug)
        if order.run is not None:
            _copy_run(order.run, datasets / RUN)
        else:
            _try_encoders(order, datasets)
        for slug in order.list_datasets():
            if slug != WHEELS:
                write_manifest(datasets / slug)
            _describe_dataset(datasets / slug, owner=order.owner)
        _write_kernel(order, made)
        for folder in (made / order.kernel, *datasets.iterdir()):
            target = out / folder.relative_to(made)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            folder.replace(target)


def production_parameters(order: Order, *, datasets: Path) -> dict[str, Any]:
    """Tell what the parameters of a kernel must be: encoders by their slugs, and the fingerprints it asserts."""
    values, slugs = order.choose_parameters(), order.name_encoders()
    for place in (values, *values.get("members", ())):
        if place.get("encoder") in slugs:
            place["encoder"] = slugs[place["encoder"]]
    return values | {"fingerprints": {slug: read_fingerprint(datasets / slug) for slug in order.list_datasets()}}


def _write_kernel(order: Order, made: Path) -> None:
    folder, described = made / order.kernel, order.described
    folder.mkdir()
    values = production_parameters(order, datasets=made / "datasets")
    notebook = nbformat.read(order.project / "notebooks" / described.notebook, as_version=4)
    kept = ("kernelspec", "language_info")
    notebook.metadata = {name: each for name, each in notebook.metadata.items() if name in kept}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if TAG in tags:
            cell.source = write_cell(cell.source, values)
    nbformat.write(notebook, folder / described.notebook)
    metadata = read_json(order.project / KERNEL_METADATA)
    if values["time_limit_minutes"] > GPU_MINUTES:  # only a kernel without a GPU may run for so long
        metadata = {name: value for name, value in metadata.items() if name != "machine_shape"} | {"enable_gpu": False}
    named = f"{metadata['id']} {described.suffix}".strip().replace(" ", "-").replace(OWNER, order.owner)
    write_json(
        folder / KERNEL_METADATA,
        metadata
        | {
            "id": named,
            "title": f"{metadata['title']} {described.suffix}".strip(),
            "code_file": described.notebook,
            "dataset_sources": [f"{order.owner}/{slug}" for slug in order.list_datasets()],
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
    refuse_damaged(source)
    folder.mkdir()
    for path in list_files(source):
        shutil.copyfile(path, folder / path.name)


def _try_encoders(order: Order, datasets: Path) -> None:
    # What arrives must load; a kernel would find out minutes later, and not here.
    slugs = order.name_encoders()
    for recipe in Recipe.from_parameters(order.choose_parameters()).members:
        if isinstance(recipe, TransformerRecipe):
            there = replace(recipe, encoder=str(datasets / slugs[str(recipe.encoder)]))
            MEMBERS[recipe.kind](there).check()


def _copy_run(run: Path, folder: Path) -> None:
    folder.mkdir()
    for name in (ENSEMBLE, DONE):
        shutil.copyfile(run / name, folder / name)
    for fold in (fold for folds in find_folds(run).values() for fold in folds):
        shutil.copytree(fold, folder / fold.relative_to(run))
        load_member(folder / fold.relative_to(run))


def _refuse_unfinished(run: Path | None) -> None:
    if run is None or not run.is_dir():
        told = "none was given" if run is None else f"there is no folder {run}"
        raise FileNotFoundError(f"the kernel predict needs a finished run's folder, however {told}; name one with RUN=")
    # What the run stands on where it got so far, else what it was asked for.
    if (run / ENSEMBLE).is_file():
        folds = read_json(run / ENSEMBLE)["folds"]
    else:
        asked = read_json(run / RECIPE)["members"] if (run / RECIPE).is_file() else []
        folds = {member["name"]: range(member["folds_to_train"]) for member in asked}
    marks = [fold_folder(run, name, fold) / DONE for name, each in folds.items() for fold in each]
    missing = [path.relative_to(run).as_posix() for path in (run / ENSEMBLE, run / DONE, *marks) if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"the run in {run} must be finished, however these files are missing: {', '.join(missing)}; go on with it "
            "by `make run OUT=` and this folder, or name another with RUN="
        )
