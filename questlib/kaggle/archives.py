"""Archives are looked at before a byte of them is written: names that leave the folder, links, and sizes."""

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

_MOST_BYTES = 20 * 1000**3
_LINK = 0o120000  # of the upper half of a zip entry's attributes


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar, zip or gzip file.

    Args:
        archive: The file.
        target: A folder; for gzip, which holds one file, that file.

    Raises:
        ValueError: If an entry would lie outside the folder, is neither file nor folder, or all are too large.
    """
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for entry in tar.getmembers():
                _check(archive, entry.name, is_plain=entry.isfile() or entry.isdir())
            _check_size(archive, sum(entry.size for entry in tar.getmembers()))
            # Python before 3.11.4 knows no filters; what it would filter has been refused above.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(target)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                _check(archive, info.filename, is_plain=info.external_attr >> 16 & 0o170000 != _LINK)
            _check_size(archive, sum(info.file_size for info in packed.infolist()))
            packed.extractall(target)
    else:
        with gzip.open(archive) as stream:
            size = 0
            while block := stream.read(2**20):
                size += len(block)
                _check_size(archive, size)
            stream.seek(0)
            with target.open("wb") as out:
                shutil.copyfileobj(stream, out)


def _check(archive: Path, name: str, *, is_plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(part.endswith(":") for part in path.parts[:1]):
        raise ValueError(f"every entry of {archive.name} must stay in its folder, however: {name!r}")
    if not is_plain:
        raise ValueError(f"every entry of {archive.name} must be a file or a folder, however: {name!r}")


def _check_size(archive: Path, n_bytes: int) -> None:
    if n_bytes > _MOST_BYTES:
        raise ValueError(f"{archive.name} must unpack to {_MOST_BYTES} bytes at most, however to {n_bytes} or more")
