import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questlib.artifacts import read_json, write_json
from questlib.kaggle.__main__ import main
from questlib.kaggle.bundle import set_parameters, write_bundle
from questlib.kaggle.rehearse import hash_contents, refuse_unrehearsed
from questlib.kaggle.twin import find_python, list_images

CELL = """data: str = "a folder"  # with "quotes" # and hashes
share: float = 0.5  # of rows
stages: list = [
    {"name": "full", "epochs": 3},
]  # fields
last: dict = {}"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values=st.dictionaries(st.sampled_from(["data", "share", "stages", "last"]), JSON))
def test_parameters_take_any_json_and_keep_the_rest_of_the_cell(values: dict) -> None:
    source = set_parameters(CELL, values)
    found = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    before = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(CELL).body}
    assert found == before | values
    for comment in ('# with "quotes" # and hashes', "# of rows", "# fields"):
        assert comment in source


def test_parameters_that_keep_their_value_keep_their_lines() -> None:
    assert set_parameters(CELL, {"stages": [{"name": "full", "epochs": 3}], "share": 0.5}) == CELL


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": "tarin"}, "did you mean 'train'"),
        ({"kernel": "predict"}, "needs a finished run's folder"),
        ({"profile": "kagle"}, "did you mean 'kaggle'"),
    ],
)
def test_a_bundle_that_cannot_be_is_refused_and_leaves_nothing(
    options: dict, words: str, encoder_folder: Path, tmp_path: Path
) -> None:
    known = {"kernel": "train", "owner": "alice", "encoder": str(encoder_folder), "run": None, "profile": "kaggle"}
    project = Path(__file__).parent.parent
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        write_bundle(project, out=tmp_path / "out", **known | options)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_encoder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"as safetensors, however it holds: \['config.json'\]"):
        write_bundle(
            Path(__file__).parent.parent,
            kernel="train",
            owner="alice",
            encoder=str(tmp_path / "encoder"),
            run=None,
            profile="kaggle",
            out=tmp_path / "out",
        )


def test_only_what_passed_its_rehearsal_as_it_is_may_be_pushed(tmp_path: Path) -> None:
    for name in ("train", "datasets/questlib-wheels", "datasets/questlib-encoder"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "train/quest.ipynb").write_text("{}")
    with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
        refuse_unrehearsed(tmp_path, kernel="train")
    record = {"contents": hash_contents(tmp_path, kernel="train"), "passed": True}
    write_json(tmp_path / "train/rehearsal.json", record)
    refuse_unrehearsed(tmp_path, kernel="train")
    write_json(tmp_path / "train/rehearsal.json", record | {"passed": False})
    with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
        refuse_unrehearsed(tmp_path, kernel="train")
    write_json(tmp_path / "train/rehearsal.json", record)
    (tmp_path / "datasets/questlib-encoder/vocab.txt").write_text("changed since")
    with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
        refuse_unrehearsed(tmp_path, kernel="train")


def test_commands_that_need_a_bundle_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["push", "--owner", "alice"]) == 1
    assert "must be written for alice, however: it is not there" in capsys.readouterr().err


def test_images_pin_the_runner_that_kaggle_has() -> None:
    images = list_images()
    assert list(images) == ["3.12", "3.13"]
    for pinned in images.values():
        assert (pinned["nbclient"], pinned["nbconvert"]) == ("0.5.13", "6.4.5")
        assert {"torch", "transformers", "pandas", "scikit-learn"} <= set(pinned)
    assert find_python("3.999") is None


def test_template_names_what_the_bundle_attaches() -> None:
    template = read_json(Path(__file__).parent.parent / "kernel-metadata.json")
    assert template["dataset_sources"] == ["OWNER/questlib-wheels", "OWNER/questlib-encoder"]
