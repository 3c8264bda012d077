import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from safetensors.numpy import save_file

from questlib import run
from questlib.data import read_tables
from questlib.parameters import override, read_parameters
from questlib.pretrained import LOCAL_ENCODER
from questlib.profiles import read_profile
from questlib.recipe import Recipe, is_unread
from questlib.resume import keep_inputs
from questlib.run import run_notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PARAMETERS = """\
data: str = "nowhere"  # a folder
encoder: str = "bert"  # a folder
out: str = "/kaggle/working"  # run folder
cache: str = "~/.cache/questlib"  # a folder
use_internet: bool = False  # whether the hub may be asked
folds: int = 5  # a number of folds; folds = 2 is the least
share = 0.08  # a share
target_weights: dict = {}  # a weight by name
stages: list = [
    {"name": "full", "trainable": ["*"], "learning_rate": 3e-5},
    {"name": "head # 2", "trainable": ["head.*"], "learning_rate": 0.0},
]  # over several lines
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook of two cells, and profiles beside it."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "plain.yaml").write_text("# nothing\n")
    (tmp_path / "profiles" / "few.yaml").write_text("folds: 3\nshare: 0.5\nstages.full.learning_rate: 0.1\n")
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("before = 1"), cell])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "work.ipynb"
    nbformat.write(content, path)
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, toy_folder: Path, encoder: Path) -> list[dict[str, Any]]:
    """The parameters of each execution, which is not carried out."""
    monkeypatch.chdir(toy_folder.parent)
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run.papermill, "execute_notebook", lambda *_, parameters, **__: calls.append(parameters))
    return calls


# What reaches the notebook


def test_overrides_win_over_the_profile_and_the_profile_over_the_notebook(
    notebook: Path, executed: list[dict[str, Any]]
) -> None:
    overrides = {"share": 1, "encoder": "./bert", "stages.head # 2.learning_rate": 0.2, "folds": 5}
    out = run_notebook(notebook, profile="few", data="toy", out=Path("new"), overrides=overrides)
    root = notebook.parent
    assert out == root / "new"
    stages = [
        {"name": "full", "trainable": ["*"], "learning_rate": 0.1},
        {"name": "head # 2", "trainable": ["head.*"], "learning_rate": 0.2},
    ]
    expected = {"share": 1, "stages": stages, "data": str(root / "toy"), "encoder": str(root / "bert")}
    assert executed == [expected | {"out": str(root / "new")}]  # what is the notebook's own default is not injected


def test_members_are_checked_and_their_encoders_found_before_anything_is_made(
    toy_folder: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run.papermill, "execute_notebook", lambda *_, parameters, **__: calls.append(parameters))
    monkeypatch.chdir(toy_folder.parent)

    def call(*members: dict[str, Any]) -> None:
        overrides = {"members": list(members)}
        run_notebook(NOTEBOOKS / "quest.ipynb", profile="sample", data="toy", out=tmp_path / "out", overrides=overrides)

    with pytest.raises(
        ValueError, match=r"unknown parameter of transformer member 'a': 'encodr' \(did you mean 'encoder'"
    ):
        call({"name": "a", "kind": "transformer", "encodr": "bert"})
    with pytest.raises(FileNotFoundError, match="the encoder folder './absent' does not exist"):
        call({"name": "a", "kind": "transformer", "encoder": "./absent"})
    assert calls == []
    assert not (tmp_path / "out").exists()
    call({"name": "a", "kind": "transformer", "encoder": "./bert"}, {"name": "b", "kind": "lexical"})
    assert [member.get("encoder") for member in calls[0]["members"]] == [str(encoder), None]


def test_a_parameter_that_no_member_reads_is_told(
    executed: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {"members": [{"name": "a", "kind": "lexical"}], "stages.full.learning_rate": "2e-5x", "folds": 3}
    run_notebook(NOTEBOOKS / "quest.ipynb", profile="sample", data="toy", out=tmp_path / "out", overrides=overrides)
    told = [message for message in caplog.messages if "changes nothing" in message]
    assert len(told) == 1
    assert "stages.full.learning_rate" in told[0]
    assert executed


def test_a_parameter_of_a_profile_that_none_of_its_members_reads_is_told(
    executed: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("sample"))
    profile = tmp_path / "notebooks/profiles/own.yaml"
    profile.write_text("members: [{name: a, kind: lexical}]\nfolds_to_train: 3\nmax_length: 64\n")
    notebook = tmp_path / "notebooks/quest.ipynb"
    run_notebook(notebook, profile="own", data="toy", out=tmp_path / "out", overrides={})
    assert [message.split()[1] for message in caplog.messages if "changes nothing" in message] == ["max_length"]


@pytest.mark.parametrize("profile", ["sample", "cpu", "cpu-best", "kaggle", "kaggle-cpu", "seed"])
def test_every_parameter_of_a_profile_that_ships_is_read(profile: str) -> None:
    defaults = read_parameters(NOTEBOOKS / "quest.ipynb", needed=("data", "out"))
    own = read_profile(NOTEBOOKS / "profiles", profile)
    parameters = override(defaults, own)
    assert not [name for name in own if is_unread(name, parameters)]


def test_of_launched_processes_the_first_alone_leaves_a_run_folder(
    notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0"):
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}
        for name, value in launched.items():
            monkeypatch.setenv(name, value)
        run_notebook(notebook, profile="plain", data="toy", out=Path("new"), overrides={})
    folders = [Path(given["out"]) for given in executed]
    assert folders[1] == notebook.parent / "new"
    assert notebook.parent not in folders[0].parents
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_cache_is_where_its_relative_path_leads_from_here(
    toy_folder: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run.papermill, "execute_notebook", lambda *_, parameters, **__: calls.append(parameters))
    monkeypatch.chdir(tmp_path)
    overrides = {"encoder": str(encoder), "members.transformer.encoder": str(encoder)}
    for cache in ("mine", "/mine", "~/mine"):
        run_notebook(
            NOTEBOOKS / "quest.ipynb", profile="sample", data=str(toy_folder), out=None,
            overrides=overrides | {"cache": cache},
        )  # fmt: skip
    assert [given["cache"] for given in calls] == [str(tmp_path / "mine"), "/mine", "~/mine"]


def test_a_published_encoder_is_known_by_its_name_whatever_lies_here(
    notebook: Path, executed: list[dict[str, Any]], encoder: Path
) -> None:
    shutil.copytree(encoder, LOCAL_ENCODER)
    run_notebook(notebook, profile="plain", data="toy", out=Path("new"), overrides={"encoder": LOCAL_ENCODER})
    assert executed[0]["encoder"] == LOCAL_ENCODER


@pytest.mark.parametrize("spelling", ["toy/../bert", "./bert", "link", "./link", "{here}/link"])
def test_the_same_command_goes_on_however_it_spells_its_encoder(
    spelling: str, notebook: Path, toy_folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, out = notebook.parent, notebook.parent / "out"
    monkeypatch.chdir(here)
    Path("link").symlink_to(encoder)

    def execute(*_: str, parameters: dict[str, Any], **__: object) -> None:
        given = read_parameters(NOTEBOOKS / "quest.ipynb") | parameters
        keep_inputs(out, Recipe.from_parameters(given), read_tables(given["data"]))

    monkeypatch.setattr(run.papermill, "execute_notebook", execute)
    overrides = {"encoder": spelling.format(here=here), "members": [{"name": "a", "kind": "transformer"}]}
    for _ in range(2):
        run_notebook(NOTEBOOKS / "quest.ipynb", profile="sample", data="toy", out=out, overrides=overrides)


def test_run_folder_is_named_after_the_profile(notebook: Path, executed: list[dict[str, Any]]) -> None:
    out = run_notebook(notebook, profile="plain", data="toy", out=None, overrides={})
    assert out.parent == notebook.parent / "runs"
    assert out.name.endswith("-plain")
    assert executed[0]["out"] == str(out)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            {"fold": 3, "shares": 1},
            ValueError,
            r"unknown parameter: 'fold' .*'folds'\?\), 'shares' \(did you mean 'share'",
        ),
        ({"folds": "three"}, TypeError, "parameter folds must be of type int, however: 'three'"),
        ({"folds": 2.5}, TypeError, "parameter folds must be of type int, however: 2.5"),
        ({"folds": True}, TypeError, "parameter folds must be of type int, however: True"),
        ({"folds": None}, TypeError, "parameter folds must be of type int, however: None"),
        ({"share": "NaN"}, TypeError, "parameter share must be of type float, however: 'NaN'"),
        ({"use_internet": "False"}, TypeError, "parameter use_internet must be of type bool, however: 'False'"),
        ({"use_internet": 1}, TypeError, "parameter use_internet must be of type bool, however: 1"),
        ({"encoder": 123}, TypeError, "parameter encoder must be of type str, however: 123"),
        ({"stages": "[{"}, TypeError, r"parameter stages must be of type list, however: '\[\{'"),
        ({"out": "there"}, ValueError, "run folder must be named with --out, however the parameter out is 'there'"),
        ({"cache": ""}, ValueError, "cache must name a folder, however it is empty"),
        ({"cache": "new/mine"}, ValueError, "must lie outside the run folder, however new/mine lies in new; name anot"),
        ({"data": "absent"}, FileNotFoundError, "no train.csv in the data folder 'absent'"),
        ({"encoder": "./absent"}, FileNotFoundError, "the encoder folder './absent' does not exist"),
    ],
)
def test_parameters_are_refused_before_anything_is_made(
    notebook: Path, executed: list[dict[str, Any]], overrides: dict, error: type[Exception], message: str
) -> None:
    before = sorted(notebook.parent.iterdir())
    with pytest.raises(error, match=message):
        run_notebook(notebook, profile="plain", data="toy", out=Path("new"), overrides=overrides)
    assert executed == []
    assert sorted(notebook.parent.iterdir()) == before


def test_profile_with_a_misspelt_parameter_is_refused(notebook: Path, executed: list[dict[str, Any]]) -> None:
    (notebook.parent / "profiles" / "few.yaml").write_text(yaml.safe_dump({"foldz": 3}))
    with pytest.raises(ValueError, match=r"unknown parameter: 'foldz' \(did you mean 'folds'\?\)"):
        run_notebook(notebook, profile="few", data="toy", out=None, overrides={})
    assert executed == []


def test_run_folder_that_holds_something_is_refused_and_kept(notebook: Path, executed: list[dict[str, Any]]) -> None:
    kept = notebook.parent / "full" / "submission.csv"
    kept.parent.mkdir()
    kept.write_text("precious")
    with pytest.raises(
        FileExistsError,
        match=r"run folder .*full must be new, empty or one run's, however it holds files: \['submission.csv'\]",
    ):
        run_notebook(notebook, profile="plain", data="toy", out=kept.parent, overrides={})
    assert executed == []
    assert kept.read_text() == "precious"
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize(
    "names",
    [
        [".unfinished-timeline.json-x1"],
        ["timeline.json"],
        ["timeline.json", ".lock", ".unfinished-recipe.json-x1"],
        ["timeline.json", ".lock", "recipe.json", ".unfinished-inputs.json-x1"],
    ],
)
def test_folder_of_a_run_that_was_killed_at_its_very_beginning_goes_on(
    notebook: Path, executed: list[dict[str, Any]], names: list[str]
) -> None:
    out = notebook.parent / "begun"
    out.mkdir()
    shutil.copy(notebook, out)
    for name in ["report.html", *names]:
        (out / name).write_text("{}")
    run_notebook(notebook, profile="plain", data="toy", out=out, overrides={})
    assert len(executed) == 1


def test_hub_is_asked_only_with_use_internet(
    notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(notebook.parent / "bert"))
    given = {"encoder": "owner/model"}
    with pytest.raises(
        FileNotFoundError, match=r"no encoder 'owner/model': .*the hub may not be asked .* use_internet"
    ):
        run_notebook(notebook, profile="plain", data="toy", out=None, overrides=given)
    assert executed == []
    run_notebook(notebook, profile="plain", data="toy", out=None, overrides=given | {"use_internet": True})
    assert executed[0]["encoder"] == "owner/model"
    assert os.environ["HF_HUB_OFFLINE"] == "0"  # the kernel inherits it


@pytest.mark.parametrize(("own", "expected"), [(None, "1"), ("4", "4")])
def test_a_kernels_threads_share_one_arena_unless_the_user_says_how_many(
    own: str | None, expected: str, notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if own is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", own)
    run_notebook(
        notebook, profile="plain", data=str(notebook.parent / "toy"), out=notebook.parent / "out", overrides={}
    )
    assert os.environ["MALLOC_ARENA_MAX"] == expected


def test_run_folder_that_is_removed_while_its_run_is_at_work_is_named(
    notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = notebook.parent / "out"

    def remove(*_: str, **__: object) -> None:
        shutil.rmtree(out)
        os.stat(out)

    monkeypatch.setattr(run.papermill, "execute_notebook", remove)
    with pytest.raises(FileNotFoundError, match=f"the run folder {out} must stay while its run is at work, however it"):
        run_notebook(notebook, profile="plain", data="toy", out=out, overrides={})


def test_cell_that_fails_is_told_in_one_message_and_its_report_is_written(
    notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str, target: str, **_: object) -> None:
        nbformat.write(nbformat.read(source, as_version=4), target)
        raise PapermillExecutionError(
            cell_index=1, exec_count=2, source="x", ename="ValueError", evalue="max_length is 9", traceback=["line\n"]
        )  # fmt: skip

    monkeypatch.setattr(run.papermill, "execute_notebook", fail)
    out = notebook.parent / "out"
    message = f"cell 2 of {notebook} failed with ValueError: max_length is 9; {out / notebook.name} shows where$"
    with pytest.raises(RuntimeError, match=message):
        run_notebook(notebook, profile="plain", data="toy", out=out, overrides={})
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "work.ipynb"]
