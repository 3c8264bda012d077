import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from questlib import inputs
from questlib.inputs import describe_mounts, find_folder

SCANNED: list[str] | None = None


def _note_scan(event: str, arguments: tuple) -> None:
    if SCANNED is not None and event in ("os.scandir", "os.listdir"):
        SCANNED.append(str(arguments[0]))


@pytest.fixture
def scanned() -> Iterator[list[str]]:
    """The folders that are listed during the test, seen by the interpreter itself."""
    global SCANNED
    if not hasattr(sys, "_questlib_hooked"):
        sys.addaudithook(_note_scan)  # for good: a hook cannot be taken off, only left idle
        sys._questlib_hooked = True
    SCANNED = []
    yield SCANNED
    SCANNED = None


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /kaggle/input is in a kernel; the current folder is elsewhere."""
    folder = tmp_path / "input"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(inputs, "MOUNT", folder)
    return folder


def put(folder: Path, marker: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / marker).write_text("{}")
    return folder


@pytest.mark.parametrize(
    "layout",
    [
        "{slug}",
        "competitions/{slug}",
        "datasets/owner/{slug}",
        "models/owner/{slug}",
        "notebooks/owner/{slug}",
        "m/owner/{slug}",
    ],
)
@pytest.mark.parametrize("below", ["", "top", "transformers/default/1", "pytorch/base/3/uploaded"])
def test_folder_is_found_in_every_mount_layout(mount: Path, layout: str, below: str) -> None:
    wanted = put(mount / layout.format(slug="roberta-base") / below)
    put(mount / layout.format(slug="roberta-large") / below)
    put(mount / layout.format(slug="roberta-base") / below, marker="other.json")
    assert find_folder("roberta-base", marker="config.json") == wanted


def test_folder_nearest_the_name_wins(mount: Path) -> None:
    put(mount / "bert" / "a" / "b")
    wanted = put(mount / "bert" / "z")
    assert find_folder("bert", marker="config.json") == wanted
    assert find_folder("bert", marker="config.json") != put(mount / "bert")


def test_folder_too_deep_or_without_the_marker_is_not_found(mount: Path) -> None:
    put(mount / "bert" / "1" / "2" / "3" / "4" / "5")
    put(mount / "datasets" / "owner" / "t5", marker="weights.bin")
    assert find_folder("bert", marker="config.json") is None
    assert find_folder("t5", marker="config.json") is None
    assert find_folder("absent", marker="config.json") is None


@pytest.mark.parametrize("name", ["{}", "./{}", "../elsewhere/{}"])
def test_local_folder_wins_over_an_attached_one(mount: Path, name: str) -> None:
    put(mount / "bert")
    put(Path("bert"))
    assert find_folder(name.format("bert"), marker="config.json") == Path(name.format("bert"))


def test_local_folder_may_be_absolute_or_at_home(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mount.parent))
    wanted = put(mount.parent / "models" / "bert")
    assert find_folder(str(wanted), marker="config.json") == wanted
    assert find_folder("~/models/bert", marker="config.json") == wanted


def test_local_folder_is_not_searched_below(mount: Path) -> None:
    put(Path("bert") / "deeper")
    assert find_folder("bert", marker="config.json") is None
    assert find_folder(str(Path("bert").resolve()), marker="config.json") is None


@pytest.mark.parametrize("name", ["*", "b*", "ber?", "[b]ert", "", ".", "..", "**"])
def test_name_is_no_pattern(mount: Path, name: str) -> None:
    put(mount / "bert")
    put(mount / "datasets" / "owner" / "bert")
    assert find_folder(name, marker="config.json") is None


def test_name_may_hold_what_a_pattern_would_read_otherwise(mount: Path) -> None:
    wanted = put(mount / "bert[v2]{3}")
    assert find_folder("bert[v2]{3}", marker="config.json") == wanted


def test_search_walks_only_what_has_the_name(mount: Path, scanned: list[str]) -> None:
    wanted = put(mount / "models" / "owner" / "bert" / "transformers" / "base" / "1")
    for number in range(30):
        put(mount / "datasets" / "owner" / "photos" / str(number) / "deep")
        put(mount / f"unrelated-{number}" / "deep")
    del scanned[:]
    assert find_folder("bert", marker="config.json") == wanted
    assert any("bert" in folder for folder in scanned)  # the hook does see the search
    assert [folder for folder in scanned if "photos" in folder or "unrelated" in folder] == []


def test_mounts_are_described_for_an_error(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_mounts() == f"attached under {mount}: nothing"
    put(mount / "competitions" / "google-quest-challenge", marker="train.csv")
    put(mount / "datasets" / "owner" / "bert" / "base")
    assert describe_mounts() == (
        f"attached under {mount}: competitions, competitions/google-quest-challenge, datasets, datasets/owner/bert"
    )
    for number in range(40):
        put(mount / f"{number:02}")
    assert describe_mounts().count(", ") == 19
    monkeypatch.setattr(inputs, "MOUNT", mount / "absent")
    assert describe_mounts() == f"no {mount / 'absent'} here"
