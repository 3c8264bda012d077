from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from questlib.executed import Executed, forget_paths

OWN = 'folds: int = 5  # folds\nstages: list = [{"name": "full", "epochs": 2}, {"name": "head", "epochs": 1}]  # all\n'
GIVEN = "stages = [{'name': 'full', 'epochs': 3}]\nfolds = 5\nout = '.'\n"


@pytest.fixture
def read(tmp_path):
    """Read a notebook of some cells."""

    def call(*cells: object):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "work.ipynb")
        return Executed(tmp_path / "work.ipynb")

    return call


def test_parameters_that_were_given_are_told_where_they_differ(read):
    executed = read(
        new_code_cell(OWN, metadata={"tags": ["parameters"]}),
        new_code_cell(GIVEN, metadata={"tags": ["injected-parameters"]}),
    )
    rows = executed.list_changes().to_numpy().tolist()
    assert rows == [
        ["stages", '["full", "head"]', '["full"]'],
        ["stages.full.epochs", "2", "3"],
        ["stages.head.epochs", "1", ""],
    ]
    assert read(new_code_cell("1")).list_changes().empty


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ("stages[0]['epochs'] = 3\n", [["stages.full.epochs", "2", "3"]]),
        (
            GIVEN + "stages[0]['epochs'] = 2\n",
            [["stages", '["full", "head"]', '["full"]'], ["stages.head.epochs", "1", ""]],
        ),
        ("stages[5]['epochs'] = 3\n", []),  # which the run ended with
    ],
)
def test_parameters_that_papermill_was_given_a_part_of_are_told_by_it(given, rows, read):
    executed = read(
        new_code_cell(OWN, metadata={"tags": ["parameters"]}),
        new_code_cell(given, metadata={"tags": ["injected-parameters"]}),
    )
    assert executed.list_changes().to_numpy().tolist() == rows


def test_log_has_the_last_state_of_lines_that_were_written_over(read):
    texts = ["begun\n", "\r 10 %", "\r 20 %\r", "\n\x1b[32mended\x1b[0m\r\n"]
    outputs = [new_output("stream", name="stderr", text=text) for text in texts]
    assert read(new_code_cell("1", outputs=outputs)).log == "begun\n 20 %\nended"


def test_failure_is_told_with_the_heading_it_stands_under(read):
    error = new_output("error", ename="ValueError", evalue="bad", traceback=["\x1b[0;31mone\x1b[0m", "two"])
    executed = read(
        new_markdown_cell("# All\n\ntext"), new_markdown_cell("## Part\n"), new_code_cell("1", outputs=[error])
    )
    failure = executed.failure
    assert (failure.name, failure.message, failure.heading) == ("ValueError", "bad", "Part")
    assert failure.traceback == "one\ntwo"
    assert not executed.is_ended


def test_notebook_is_ended_where_every_cell_was_executed(read):
    assert read(new_code_cell("1", execution_count=1), new_code_cell(" ")).is_ended
    assert not read(new_code_cell("1", execution_count=1), new_code_cell("2")).is_ended


def test_pictures_are_found_by_the_cell_that_draws_them(read):
    pictures = [
        new_output("display_data", {"image/png": "aGk=\n"}, metadata={"image/png": {"alt": "All fit"}}),
        new_output("execute_result", {"image/png": "aGk="}),
    ]
    executed = read(new_code_cell("explore.plot_coverage(1)", outputs=pictures), new_code_cell("2", outputs=pictures))
    assert [(each.png, each.alt) for each in executed.find_pictures("explore.plot_coverage")] == [
        ("aGk=", "All fit"),
        ("aGk=", "plot coverage"),
    ]


@pytest.mark.parametrize("place", ["/work", "/d", "/home/alice/data", "/srv/app"])
def test_paths_of_a_machine_are_forgotten_and_nothing_else(place, tmp_path, monkeypatch):
    picture = f"iVBOR{place}abc/d{place}+x"
    text = (
        f"read {place}/train.csv at \x1b[32m{place}/x.py\x1b[0m; /kaggle/working{place}shop, a{place}, file://{place}"
    )
    shown = new_output("display_data", data={"image/png": picture, "text/plain": text})
    cell = new_code_cell(f"data = {place!r}  # where empty, /kaggle/working\n", outputs=[shown])
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "work.ipynb")
    forget_paths(tmp_path / "work.ipynb", out=tmp_path, parameters={"data": place})
    [cell] = nbformat.read(tmp_path / "work.ipynb", as_version=4).cells
    name = Path(place).name
    assert cell.source == f"data = '{name}'  # where empty, /kaggle/working\n"
    assert cell.outputs[0].data["image/png"] == picture
    assert cell.outputs[0].data["text/plain"] == (
        f"read {name}/train.csv at \x1b[32m{name}/x.py\x1b[0m; /kaggle/working{place}shop, a{place}, file://{name}"
    )
