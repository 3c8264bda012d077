"""The page of a run, finished, failed or broken off: complete, whole in itself, and readable by everybody."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from questlib.__main__ import main
from questlib.clock import Clock
from questlib.marks import list_outputs
from questlib.page import write_page
from questlib.pieces import ANSWER_COLOR, QUESTION_COLOR
from questlib.record import record_run
from questlib.run_folder import BLENDED, ENSEMBLE, INPUTS, RECIPE, RUN, SCORES, SUBMISSION, TIED, read_json, write_json
from questlib.schema import TARGETS

PARAMETERS = (
    'data: str = "here"  # a folder\nfolds: int = 5  # folds\nmembers: list = []\nout: str = "/x"  # a folder\n'
)
PNG = base64.b64encode(b"\x89PNG").decode()
SECTIONS = [
    "Scores", "Members", "Learning curves", "Scores per target", "Ties", "Distributions", "Coverage of tokens", "Time",
    "Course", "Parameters that differ from the defaults", "All parameters", "Versions", "Log",
]  # fmt: skip


class Page(HTMLParser):
    """What a page holds: its headings, texts, pictures, links, and tables with what they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.pictures: list[str | None] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.loose_tables = 0
        self.title = ""
        self._open: list[tuple[str, dict]] = []
        self.feed(text.replace("<wbr>", ""))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.pictures.append(given.get("alt"))
        if tag == "svg":
            self.pictures.append(given.get("aria-label") if given.get("role") == "img" else None)
        if tag in ("script", "link", "iframe", "object"):
            self.scripts.append(tag)
        if tag == "table":
            self.loose_tables += "overflow-x: auto" not in (self._open[-1][1].get("style") or "")
        self.links += [given[name] or "" for name in ("src", "href", "srcset", "xlink:href") if name in given]
        if tag not in ("img", "meta", "br", "use", "path", "rect", "link"):
            self._open.append((tag, given))

    def handle_endtag(self, tag):
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data):
        where = self._open[-1][0] if self._open else ""
        if where == "title":
            self.title += data
        elif where in ("h1", "h2"):
            self.headings.append(data)
        if where not in ("style", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def write_notebook(folder: Path, *outputs: object, source: str = "train()", is_executed: bool = True) -> None:
    """Write a notebook as it is left: parameters, pictures, and a cell with some outputs."""
    picture = new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "Half of the rows fit"}})
    cells = [
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, execution_count=1),
        new_code_cell("folds = 3\nout = '.'", metadata={"tags": ["injected-parameters"]}, execution_count=2),
        new_code_cell("explore.plot_coverage(x)", outputs=[picture], execution_count=3),
        new_markdown_cell("## Train, predict\n\nNow."),
        new_code_cell(source, outputs=list(outputs), execution_count=4 if is_executed else None),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "quest.ipynb")


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """The folder of a run that came to its end, with its page."""
    folder = shutil.copytree(trained.run_folder, tmp_path_factory.mktemp("runs") / "my <run>")
    log = new_output("stream", name="stdout", text="\x1b[31mbegun\x1b[0m\n 1 %\r 99 %\nended\n")
    write_notebook(folder, log)
    clock = Clock(folder)
    clock.note("toy, fold 1: a batch was <halved>")
    namespace = {"__annotations__": {"data": str, "folds": int}, "data": "/somewhere/tables", "folds": 3}
    record_run(folder, namespace, tables=trained.tables, clock=clock)
    list_outputs(folder)
    write_page(folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / finished.name)


def read_page(folder: Path) -> Page:
    return Page(write_page(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def text(finished):
    return (finished / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_begins_with_the_score_and_has_every_section_in_order(page, finished):
    score = read_json(finished / RUN)["score"]
    assert page.headings == ["my <run>", *SECTIONS]
    assert page.title == f"my <run>: {score['mean']:.4f} - report of a QUEST run"
    before_sections = page.text[: page.text.index("All on the same questions")]
    encoder = read_json(finished / RUN)["encoders"][0]
    for words in (
        f"{score['mean']:.4f}", f"{score['mean_without_rare']:.4f}", "folds grouped by question",
        f"{encoder['name']} ({encoder['sha256'][:8]})", "toy (transformer), lexical",
        "20 rows to learn from, 6 to predict", "stands, 6 rows, blended and tied: 2 folds of toy, 2 folds of lexical",
        "toy, fold 1: a batch was <halved>", "cores of",
    ):  # fmt: skip
        assert words in before_sections, words


def test_every_picture_says_what_it_shows(page):
    assert len(page.pictures) == 1 + 2 + 30 + 30  # coverage, learning curves, ties, distributions
    assert all(page.pictures)
    assert "Half of the rows fit" in page.pictures
    assert [alt for alt in page.pictures if alt.startswith("toy: loss")]


def test_page_needs_nothing_from_elsewhere(page, text):
    assert page.scripts == []
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)


def test_every_table_scrolls_and_no_text_is_cut(page):
    assert page.loose_tables == 0
    assert "..." not in page.text
    assert "…" not in page.text
    for target in TARGETS:
        assert target in page.text


def test_pictures_keep_their_shape_and_dark_pages_are_readable(text):
    assert "prefers-color-scheme: dark" in text
    assert "height: auto" in text
    curves = re.findall(r"<figure>(<svg.*?</svg>)</figure>", text, flags=re.DOTALL)
    assert len(curves) == 2
    for curve in curves:
        assert "currentColor" in curve
        assert not re.search(r"#000000|#ffffff", curve)


def test_page_shows_raw_and_submitted_scores_of_each_target(page, finished):
    scores = read_json(finished / SCORES)["nested"]["scores"]
    for name in ("toy", "lexical", "blended", "tied"):
        assert f"{scores[name]['by_target']['answer_helpful']:.3f}" in page.text
    for head in ("target", "toy", "blended", "submitted"):
        assert head in page.texts


def test_page_names_what_differs_from_the_defaults_and_ends_with_the_log(page):
    place = page.texts.index("folds", page.texts.index("default"))
    assert page.texts[place : place + 3] == ["folds", "5", "3"]
    assert page.text.endswith("begun 99 % ended")


def test_notebooks_of_ones_own_in_the_run_folder_are_not_taken_for_the_runs(copied, finished):
    declared = new_code_cell("data: str = 'x'\n", metadata={"tags": ["parameters"]})
    for name, cell in (("Untitled", new_code_cell("1 + 1", execution_count=1)), ("explore", declared)):
        nbformat.write(new_notebook(cells=[cell]), copied / f"{name}.ipynb")
    assert read_page(copied).text == Page((finished / "report.html").read_text(encoding="utf-8")).text


def test_failed_run_begins_with_its_error_and_shows_what_there_is(copied):
    for name in (RUN, SCORES, ENSEMBLE, BLENDED, TIED, SUBMISSION):
        (copied / name).unlink()
    error = new_output("error", ename="ValueError", evalue="the <disk> is full", traceback=["\x1b[31mline\x1b[0m 7"])
    write_notebook(copied, error)
    page = read_page(copied)
    assert page.headings[:2] == ["my <run>", "failed: ValueError: the <disk> is full"]
    assert page.title == "my <run>: failed - report of a QUEST run"
    assert 'under "Train, predict"' in page.text
    assert "line 7" in page.text
    assert "none was written" in page.text
    assert {"Learning curves", "Time", "All parameters"} < set(page.headings)
    assert not {"Scores", "Ties"} & set(page.headings)


@pytest.mark.parametrize(
    ("outputs", "is_executed", "told"),
    [
        ([new_output("error", ename="KeyboardInterrupt", evalue="", traceback=[])], True, "was interrupted"),
        ([], False, "was broken off"),
    ],
)
def test_run_without_an_end_says_so(copied, outputs, is_executed, told):
    (copied / RUN).unlink()
    write_notebook(copied, *outputs, is_executed=is_executed)
    assert f"The run {told}: scores and submission" in read_page(copied).text


def test_run_without_a_notebook_is_finished_where_it_left_its_last_word(copied):
    (copied / "quest.ipynb").unlink()
    assert "The run" not in read_page(copied).text
    (copied / "outputs.json").unlink()
    (copied / RUN).unlink()
    page = read_page(copied)
    assert page.title == "my <run>: unfinished - report of a QUEST run"
    assert "The run left no outputs.json, its last word: scores and submission, if there are any, are of" in page.text
    assert "older questlib" not in page.text
    timeline = read_json(copied / "timeline.json")
    del timeline["notes"]
    write_json(copied / "timeline.json", timeline)
    assert "Everything went as asked" not in read_page(copied).text


def test_run_of_an_older_questlib_says_what_it_lacks(copied):
    (copied / RUN).unlink()
    scores = read_json(copied / SCORES)
    del scores["ratings"]
    write_json(copied / SCORES, scores)
    page = read_page(copied)
    assert "There is no run.json: this run is of an older questlib" in page.text
    assert "Distributions" in page.headings
    assert "Versions" not in page.headings


def test_encoders_in_folders_of_one_name_are_each_told_with_their_weights(copied):
    (copied / RUN).unlink()
    recipe, inputs = read_json(copied / RECIPE), read_json(copied / INPUTS)
    first, *_ = recipe["members"]
    others = [first | {"name": name, "encoder": f"/{name}/model"} for name in "ab"]
    write_json(copied / RECIPE, recipe | {"members": [*recipe["members"], *others]})
    hashes = inputs["encoder"] | {f"{number} (model)": str(number) * 64 for number in (1, 2)}
    write_json(copied / INPUTS, inputs | {"encoder": hashes})
    assert "), model (11111111), model (22222222)" in read_page(copied).text


def test_leaking_split_is_told_loudly(copied):
    (copied / RUN).unlink()
    scores = read_json(copied / SCORES) | {"leaks": True}
    write_json(copied / SCORES, scores)
    page = read_page(copied).text
    assert "The split leaks" in page
    assert "All on the same rows, of whose questions members, blend and ties have seen others." in page
    assert "Spearman on rows that nothing was fitted on" in page
    assert "which no member, blend or tie has seen" not in page


@pytest.mark.parametrize("name", [SCORES, ENSEMBLE, RECIPE, BLENDED, "members/toy/fold-0/history.json"])
def test_finished_run_of_which_a_file_was_changed_is_refused_by_its_name(name, copied, capsys):
    content = (copied / name).read_text()
    (copied / name).write_text(content.replace("0", "1", 1))
    before = (copied / "report.html").read_text()
    assert main(["report", str(copied)]) == 1
    assert f"however missing or changed: ['{name}']; copy it anew" in capsys.readouterr().err
    assert (copied / "report.html").read_text() == before


def test_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a run folder, however it holds none of a run's files"):
        write_page(tmp_path)


def test_command_makes_the_page_anew(copied, capsys):
    assert main(["report", str(copied)]) == 0
    assert capsys.readouterr().out == f"{copied / 'report.html'}\n"
    assert (copied / "report.html").is_file()


def test_colours_are_those_that_a_notebook_shows_where_it_is_light(copied):
    light = write_page(copied).read_text().partition("prefers-color-scheme")[0]
    for colour in (QUESTION_COLOR, ANSWER_COLOR):
        name, _, value = colour.removeprefix("var(").removesuffix(")").partition(", ")
        assert f"{name}: {value};" in light
