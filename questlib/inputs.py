"""Where a named input lies: a local folder, or a folder attached to a Kaggle kernel in either mount layout."""

from argparse import Namespace
from glob import escape
from pathlib import Path

MOUNT = Path("/kaggle/input")
# Both layouts are live: <slug> alone, and <kind>/<owner>/<slug>. Models carry framework, variation and version below.
_PATTERNS = (
    "{slug}",
    "competitions/{slug}",
    "datasets/*/{slug}",
    "models/*/{slug}",
    "notebooks/*/{slug}",
    "m/*/{slug}",
)
# A model's files lie four folders below its name at most, one deeper where the upload kept its own top folder.
_MAX_DEPTH = 4


def expand_homes(parsed: Namespace) -> None:
    """Let `~` be a home in every path of a command line, also where no shell has seen to it."""
    for name, value in vars(parsed).items():
        if isinstance(value, Path):
            setattr(parsed, name, value.expanduser())
        elif isinstance(value, list) and all(isinstance(each, Path) for each in value):
            setattr(parsed, name, [each.expanduser() for each in value])


def find_folder(name: str, *, marker: str) -> Path | None:
    """Find the folder that holds a marker file, such as config.json, by its path or as `find_attached` does."""
    local = Path(name).expanduser()
    if any(local.glob(marker)):
        return local
    # A path is never a slug.
    return None if local.is_absolute() or name.startswith(".") or not name else find_attached(name, marker=marker)


def find_attached(slug: str, *, marker: str) -> Path | None:
    """Find the folder that holds a marker file by the slug of what is attached.

    It is the first within four levels below the attached folder; None where nothing matches. Only what matches the slug
    is walked: a large mount beside it costs nothing.
    """
    # A slug is a name, not a pattern.
    for folder in (folder for each in _PATTERNS for folder in sorted(MOUNT.glob(each.format(slug=escape(slug))))):
        for depth in range(_MAX_DEPTH + 1):
            for found in sorted(folder.glob("*/" * depth + marker)):
                return found.parent
    return None


def describe_mounts() -> str:
    """Name what is attached, for an error message: at most twenty folders, in either layout."""
    if not MOUNT.is_dir():
        return f"no {MOUNT} here"
    paths = {path for pattern in _PATTERNS for path in MOUNT.glob(pattern.format(slug="*")) if path.is_dir()}
    folders = sorted(str(path.relative_to(MOUNT)) for path in paths)
    return f"attached under {MOUNT}: {', '.join(folders[:20]) or 'nothing'}"
