import json
import subprocess
import sys
from pathlib import Path

import pytest

from questlib import attached, inputs
from questlib.attached import WHEELS, find_attached, install_wheels
from questlib.kaggle.manifest import read_fingerprint, write_manifest


@pytest.fixture(params=["", "datasets/alice/"], ids=["old layout", "new layout"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset, mounted in either layout, its files one folder deeper in one of them."""
    folder = tmp_path / "input" / request.param / WHEELS / ("version" if request.param else "")
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text("")
    write_manifest(folder)
    monkeypatch.setattr(inputs, "MOUNT", tmp_path / "input")
    return folder


def test_a_dataset_of_the_wanted_version_is_found(dataset: Path) -> None:
    assert find_attached(WHEELS, fingerprint=read_fingerprint(dataset)) == dataset


def test_an_older_version_is_refused_in_words(dataset: Path) -> None:
    wanted = read_fingerprint(dataset)
    (dataset / "requirements.txt").write_text("older")
    write_manifest(dataset)
    with pytest.raises(RuntimeError, match=f"an older version of the dataset {WHEELS} is mounted.*{wanted[:12]}"):
        install_wheels({WHEELS: wanted})


def test_a_damaged_file_is_named(dataset: Path) -> None:
    (dataset / "requirements.txt").write_text("damaged")
    with pytest.raises(RuntimeError, match=r"missing or changed: \['requirements.txt'\]"):
        find_attached(WHEELS, fingerprint=read_fingerprint(dataset))


def test_a_dataset_that_is_not_attached_is_told_with_what_is(dataset: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"questlib-run must be attached, however it is not: .*{WHEELS}"):
        find_attached("questlib-run", fingerprint="x")


def test_nothing_is_installed_where_nothing_is_asserted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    install_wheels({})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        # An index would know of versions, or be told of as out of reach.
        (f"einops==9.9 --hash=sha256:{'0' * 64}", r"ERROR: Could not find .* einops==9.9 \(from versions: none\)"),
        ("toy==1.0", "ERROR: Hashes are required"),
    ],
    ids=["no index", "no hash"],
)
def test_wheels_are_installed_without_an_index_and_by_hash(line: str, told: str, dataset: Path) -> None:
    (dataset / "requirements.txt").write_text(f"{line}\n")
    (dataset / "toy-1.0-py3-none-any.whl").touch()
    write_manifest(dataset)
    with pytest.raises(RuntimeError, match=f"must install, however: {told}"):
        install_wheels({WHEELS: read_fingerprint(dataset)})


def test_manifest_names_every_file_but_what_describes_the_dataset(dataset: Path) -> None:
    (dataset / "fold-0").mkdir()
    (dataset / "fold-0/config.json").write_text("{}")
    (dataset / "dataset-metadata.json").write_text("{}")
    before = read_fingerprint(dataset)
    assert write_manifest(dataset) != before
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert set(manifest["files"]) == {"requirements.txt", "fold-0/config.json"}
    assert write_manifest(dataset) == manifest["fingerprint"]  # the same files, the same fingerprint


def test_library_alone_knows_no_kaggle_tools() -> None:
    code = (
        "import sys, questlib.attached; assert not [name for name in sys.modules if name.startswith('questlib.kaggle')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_file_that_was_changed_together_with_its_line_is_refused(dataset: Path) -> None:
    fingerprint = read_fingerprint(dataset)
    (dataset / "requirements.txt").write_text("evil==6.6.6")
    write_manifest(dataset)
    manifest = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": fingerprint}))
    with pytest.raises(RuntimeError, match="its lines were changed"):
        install_wheels({WHEELS: fingerprint})


def test_manifest_names_the_commit_and_is_the_same_version_whatever_that_is(dataset):
    before = write_manifest(dataset)
    assert write_manifest(dataset, commit="abc") == before
    assert json.loads((dataset / "manifest.json").read_text())["commit"] == "abc"
