"""Datasets as a session sees them: changed by the upload, then mounted in one of the layouts that are live."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from questlib.kaggle.archives import unpack


@dataclass(frozen=True)
class Mounted:
    """How inputs are laid out."""

    layout: str  # "old": <slug>; "new": <kind>/<owner>/<slug>
    is_deeper: bool  # whether weights lie one folder deeper than their dataset

    def __str__(self) -> str:
        return f"{self.layout} layout, weights {'one folder deeper' if self.is_deeper else 'at the top'}"


MOUNTS = [Mounted(layout, is_deeper) for layout in ("new", "old") for is_deeper in (True, False)]


def mangle(source: Path, target: Path) -> None:
    """Copy a dataset's folder as the upload leaves it.

    Names lose plus, tilde and whatever is not ASCII; archives are unpacked, weights that are archives too; a lone top
    folder is dissolved.

    Args:
        source: The dataset.
        target: Is made.
    """
    target.mkdir(parents=True)
    entries = sorted(source.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        entries = sorted(entries[0].iterdir())
    for path in entries:
        name = "".join(letter for letter in path.name if letter.isascii() and letter not in "+~")
        if path.is_dir():
            shutil.copytree(path, target / name)
        elif tarfile.is_tarfile(path):
            unpack(path, target / name.split(".")[0])
        elif path.suffix in (".zip", ".pt", ".pth") and zipfile.is_zipfile(path):
            unpack(path, target / name.rsplit(".", 1)[0])
        elif path.suffix == ".gz":
            unpack(path, target / name.removesuffix(".gz"))
        else:
            shutil.copyfile(path, target / name)


def mount(
    datasets: Iterable[Path], competition: Path | None, *, owner: str, layout: str, deeper: Iterable[str], target: Path
) -> None:
    """Lay out /kaggle/input.

    Args:
        datasets: Folders named by their slugs.
        competition: The folder of the competition's tables, named by its slug; None where it is not attached.
        owner: The datasets' owner.
        layout: "old" or "new".
        deeper: Slugs of datasets whose files lie one folder deeper.
        target: Is made.
    """
    target.mkdir(parents=True)
    if competition is not None:
        shutil.copytree(competition, target / ("" if layout == "old" else "competitions") / competition.name)
    for folder in datasets:
        place = target / (folder.name if layout == "old" else f"datasets/{owner}/{folder.name}")
        mangle(folder, place / "version" if folder.name in set(deeper) else place)
