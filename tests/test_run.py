import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from questlib import run
from questlib.run import read_parameters, read_profile, run_notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PROFILES = sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))
PARAMETERS = """\
data: str = "nowhere"  # a folder
encoder: str = "bert"  # a folder
out: str = "/kaggle/working"  # run folder
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
    (tmp_path / "profiles" / "few.yaml").write_text("folds: 3\nshare: 0.5\n")
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
    return folder


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, toy_folder: Path, encoder: Path) -> list[dict[str, Any]]:
    """The parameters of each execution, which is not carried out."""
    monkeypatch.chdir(toy_folder.parent)
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run.papermill, "execute_notebook", lambda *_, parameters, **__: calls.append(parameters))
    return calls


# Parameters and profiles


def test_parameters_are_read_with_their_values(notebook: Path) -> None:
    assert read_parameters(notebook) == {
        "data": "nowhere",
        "encoder": "bert",
        "out": "/kaggle/working",
        "use_internet": False,
        "folds": 5,
        "share": 0.08,
        "target_weights": {},
        "stages": [
            {"name": "full", "trainable": ["*"], "learning_rate": 3e-5},
            {"name": "head # 2", "trainable": ["head.*"], "learning_rate": 0.0},
        ],
    }


def test_parameters_of_the_main_notebook_are_all_read() -> None:
    cells = nbformat.read(NOTEBOOKS / "quest.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    declared: dict[str, Any] = {}
    exec(source, declared)
    del declared["__builtins__"], declared["__annotations__"]
    assert read_parameters(NOTEBOOKS / "quest.ipynb") == declared
    assert len(declared) > 30


def test_parameters_of_a_notebook_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook .*absent.ipynb; run from the project's root, or name one"):
        read_parameters(tmp_path / "absent.ipynb")


def test_profile_is_its_file_and_may_be_empty(notebook: Path) -> None:
    assert read_profile(notebook.parent / "profiles", "few") == {"folds": 3, "share": 0.5}
    assert read_profile(notebook.parent / "profiles", "plain") == {}


def test_profile_that_is_unknown_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown profile: 'smaple' \(did you mean 'sample'\?\); known: .*seed"):
        read_profile(NOTEBOOKS / "profiles", "smaple")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- folds\n- 3\n", "few.yaml must map parameters to values, however"),
        ("folds: [3\n", "few.yaml must be YAML, however"),
    ],
)
def test_profile_that_is_no_mapping_is_refused_by_path(notebook: Path, text: str, message: str) -> None:
    (notebook.parent / "profiles" / "few.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_profile(notebook.parent / "profiles", "few")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_parameters_of_the_main_notebook_in_the_right_kind(profile: str, tmp_path: Path) -> None:
    # Their parameters are checked first, so a run that asks for the data has passed that.
    with pytest.raises(FileNotFoundError, match="no train.csv in the data folder"):
        run_notebook(NOTEBOOKS / "quest.ipynb", profile=profile, data=str(tmp_path), out=tmp_path / "out", overrides={})
    assert not (tmp_path / "out").exists()


def test_profiles_are_the_four_that_are_documented() -> None:
    assert PROFILES == ["cpu", "kaggle", "sample", "seed"]
    assert read_profile(NOTEBOOKS / "profiles", "kaggle") == {}


def test_seed_profile_is_the_recipe() -> None:
    given = read_profile(NOTEBOOKS / "profiles", "seed")
    recipe = {
        "encoder": "bert-base-uncased", "max_length": 512, "pooling": "cls", "batch_size": 8, "evaluate_every": 100,
        "patience": 3, "threshold": 1e-5, "optimizer": "adamw_8bit", "precision": "fp16", "seed": 42, "split": "random",
    }  # fmt: skip
    assert {name: given.get(name) for name in recipe} == recipe
    defaults = read_parameters(NOTEBOOKS / "quest.ipynb")
    assert (defaults | given)["head"] == "linear"
    full, head = given["stages"]
    assert (full["trainable"], full["epochs"], full["learning_rate"], full["weight_decay"]) == (["*"], 10, 4e-5, 0.02)
    assert (head["trainable"], head["epochs"], head["head_learning_rate"], head["weight_decay"]) == (
        ["head.*"], 20, 3e-5, 0.02,
    )  # fmt: skip


# What reaches the notebook


def test_overrides_win_over_the_profile_and_the_profile_over_the_notebook(
    notebook: Path, executed: list[dict[str, Any]]
) -> None:
    out = run_notebook(
        notebook, profile="few", data="toy", out=Path("new"), overrides={"share": 1, "encoder": "./bert"}
    )
    root = notebook.parent
    assert out == root / "new"
    assert executed == [
        {"folds": 3, "share": 1, "data": str(root / "toy"), "encoder": str(root / "bert"), "out": str(root / "new")}
    ]


def test_of_launched_processes_the_first_alone_leaves_a_run_folder(
    notebook: Path, executed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        run_notebook(notebook, profile="plain", data="toy", out=Path("new"), overrides={})
    folders = [Path(given["out"]) for given in executed]
    assert folders[1] == notebook.parent / "new"
    assert notebook.parent not in folders[0].parents
    assert [folder.exists() for folder in folders] == [False, True]


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
        ({"data": "absent"}, FileNotFoundError, "no train.csv in the data folder 'absent'"),
        ({"encoder": "./absent"}, FileNotFoundError, "the encoder folder './absent' does not exist"),
    ],
)
def test_parameters_are_refused_before_anything_is_made(
    notebook: Path, executed: list[dict[str, Any]], overrides: dict, error: type[Exception], message: str
) -> None:
    before = sorted(notebook.parent.iterdir())
    with pytest.raises(error, match=message):
        run_notebook(notebook, profile="plain", data="toy", out=None, overrides=overrides)
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
        FileExistsError, match="the run folder .*full must be new or empty, however it holds files; name"
    ):
        run_notebook(notebook, profile="plain", data="toy", out=kept.parent, overrides={})
    assert executed == []
    assert kept.read_text() == "precious"
    assert list(kept.parent.iterdir()) == [kept]


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
