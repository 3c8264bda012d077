"""What stands around a run, a shell's variables, folders' names, other runs, decides nothing of it in silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from questlib import run_folder
from questlib.processes import Launched, find_launched
from questlib.run import run_notebook
from questlib.run_folder import SESSION_LOCK, held_alone

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLOW_TO_ANSWER = """
import time
handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]
async def answer_slowly(*request):
    await answer(*request)
    time.sleep(2)
handlers["kernel_info_request"] = answer_slowly
"""
WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def notebook(tmp_path, monkeypatch, toy_folder):
    """A notebook that writes which Python runs it, and fails if told to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "plain.yaml").write_text("# nothing\n")
    parameters = 'data: str = "nowhere"  # a folder\nout: str = "/x"  # a folder\nfails: bool = False  # whether\n'
    source = "import json, sys\nfrom pathlib import Path\n"
    source += "if fails:\n    raise ValueError('the real error')\n"
    source += "Path(out, 'timeline.json').write_text(json.dumps({'python': sys.executable}))"
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(source)]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "work.ipynb")
    return tmp_path / "work.ipynb"


def execute(notebook, toy_folder, **options):  # noqa: ANN003
    options = {"out": None, "overrides": {}} | options
    return run_notebook(notebook, profile="plain", data=str(toy_folder), **options)


@pytest.mark.parametrize(
    "left",
    [
        {"OMPI_COMM_WORLD_SIZE": "2"}, {"PMI_SIZE": ""}, WHOLE | {"MV2_COMM_WORLD_SIZE": "4"},
        {"ACCELERATE_MIXED_PRECISION": "bf16"}, {"ACCELERATE_DYNAMO_BACKEND": "inductor"},
        WHOLE | {"ACCELERATE_USE_FSDP": "true"}, {"ACCELERATE_TORCH_DEVICE": "meta"}, {"ACCELERATE_USE_CPU": ""},
    ],
)  # fmt: skip
def test_launcher_does_not_change_how_a_run_trains(left, monkeypatch):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    name, value = list(left.items())[-1]
    with pytest.raises(RuntimeError, match=f"must not change how a run trains, .* {name}={value!r}; unset"):
        find_launched()


def test_what_a_launcher_sets_by_itself_is_believed(monkeypatch):
    own = {"OMPI_COMM_WORLD_SIZE": "2", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}
    for name, value in (WHOLE | own | {"ACCELERATE_USE_CPU": "False", "ACCELERATE_CPU_AFFINITY": "1"}).items():
        monkeypatch.setenv(name, value)
    assert find_launched().size == 2


def test_launcher_is_believed_when_all_of_its_variables_agree(monkeypatch):
    assert find_launched() == Launched()
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert find_launched() == Launched(rank=1, local_rank=1, size=2, by_launcher=True)


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "1"}, {"RANK": ""}, {"LOCAL_RANK": ""}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "2"},
        WHOLE | {"RANK": "2"}, WHOLE | {"LOCAL_RANK": "-1"}, WHOLE | {"WORLD_SIZE": "two"}, WHOLE | {"MASTER_PORT": ""},
        WHOLE | {"RANK": "0"},
    ],
)  # fmt: skip
def test_variables_left_over_from_a_launcher_are_named_and_refused(left, tmp_path, toy_folder):
    done = subprocess.run(
        [sys.executable, "-m", "questlib", "run", "--data", toy_folder, "--out", tmp_path / "out"],
        env=os.environ | left, capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("questlib run: a launcher's variables must all be set, or none, however ")
    assert all(f"{name}={value!r}" in line for name, value in left.items())
    assert not (tmp_path / "out").exists()


def test_a_terminal_shows_a_runs_own_words_alone(notebook, toy_folder, capfd):
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(new_code_cell("import questlib.members.transformer\nprint('of the run')"))
    nbformat.write(content, notebook)
    execute(notebook, toy_folder)
    shown = capfd.readouterr()
    assert shown.out == "of the run\n"
    assert shown.err == ""


def test_a_kernel_that_is_slow_with_its_last_answer_ends_without_a_word(notebook, toy_folder, capfd):
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(new_code_cell(SLOW_TO_ANSWER))
    nbformat.write(content, notebook)
    execute(notebook, toy_folder)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["o-{lr}", "{", "a}b", "{{x}}", "out {0}"])
def test_braces_in_a_folders_name_are_letters(name, notebook, toy_folder, tmp_path):
    out = execute(notebook, toy_folder, out=tmp_path / name)
    assert out == tmp_path / name
    assert (tmp_path / name / "work.ipynb").is_file()
    assert (tmp_path / name / "report.html").is_file()


def test_runs_that_start_in_one_second_have_folders_of_their_own(notebook, toy_folder, monkeypatch):
    class Still(run_folder.datetime):
        @classmethod
        def now(cls):  # noqa: ANN206
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_folder, "datetime", Still)
    outs = [execute(notebook, toy_folder) for _ in range(3)]
    assert [out.name for out in outs] == [f"20260102-030405-plain{end}" for end in ("", "-2", "-3")]


def test_run_folder_in_which_another_run_is_at_work_is_refused_and_left_alone(notebook, toy_folder, tmp_path):
    with held_alone(tmp_path / "out", name=SESSION_LOCK):
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(RuntimeError, match="must have one process at work, however another one is"):
            execute(notebook, toy_folder, out=tmp_path / "out")
        assert sorted((tmp_path / "out").iterdir()) == before
    execute(notebook, toy_folder, out=tmp_path / "out")


def test_real_error_is_the_one_that_is_told_where_the_report_fails_too(notebook, toy_folder, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("questlib.page.write_page", full)
    with pytest.raises(RuntimeError, match="failed with ValueError: the real error"):
        execute(notebook, toy_folder, out=tmp_path / "out", overrides={"fails": True})


def test_notebook_runs_in_this_python_whatever_else_is_called_python3(notebook, toy_folder, tmp_path, monkeypatch):
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    out = execute(notebook, toy_folder, out=tmp_path / "out")
    assert json.loads((out / "timeline.json").read_text())["python"] == sys.executable
