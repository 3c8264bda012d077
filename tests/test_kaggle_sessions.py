"""Sessions in the sandbox, with small notebooks in this environment: what they may do, and what is seen of the rest."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from questlib.kaggle import sandbox, sessions
from questlib.kaggle.findings import FAILED, PASSED, UNCHECKED, Check
from questlib.kaggle.hidden import SWAPS, cut_tables, swap_test
from questlib.kaggle.judgements import judge_outcomes
from questlib.kaggle.mounts import mangle, mount
from questlib.kaggle.sessions import Outcome, Session, run_session
from questlib.kaggle.twin import Twin
from questlib.schema import ID, QUESTION, TARGETS, TEXT_COLUMNS

SAMPLE = Path(__file__).parent.parent / "notebooks/sample"
HERE = Twin(image="here", folder=Path(sys.prefix), versions="this environment", stands_in="")
pytestmark = pytest.mark.skipif(
    bool(sandbox.why_not()) or sys.prefix == sys.base_prefix, reason=str(sandbox.why_not() or "no virtual environment")
)
SUBMIT = "import shutil; shutil.copyfile(next(Path('/kaggle/input').rglob('sample_sub*')), 'submission.csv')"
END = "from questlib.marks import list_outputs; list_outputs(Path())"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables whose sample submission could be submitted: no column of it is constant."""
    folder = cut_tables(SAMPLE, tmp_path_factory.mktemp("tables") / "google-quest-challenge", n_questions=5)
    sample = pd.read_csv(folder / "sample_submission.csv")
    for name in TARGETS:
        sample[name] = [row / 10 for row in range(len(sample))]
    sample.to_csv(folder / "sample_submission.csv", index=False)
    return folder


def run_cells(*sources: str, folder: Path, tables: Path) -> Outcome:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in ("from pathlib import Path", *sources, END)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}},
    )
    session = Session(
        text=json.dumps(notebook),
        twin=HERE,
        owner="alice",
        datasets=(),
        competition=tables,
    )
    return run_session(session, folder, threads=1)


def failed_checks(outcome: Outcome) -> set[Check]:
    # No wheel is installed by these notebooks, so that check is not looked at.
    return {one.check for one in judge_outcomes([outcome]) if one.state == FAILED} - {Check.INSTALL}


def test_a_session_that_submits_passes(tables: Path, tmp_path: Path) -> None:
    outcome = run_cells(SUBMIT, folder=tmp_path / "session", tables=tables)
    assert outcome.find_fault() == ""
    assert failed_checks(outcome) == set()
    assert outcome.first_submission is not None
    passed = {one.check for one in judge_outcomes([outcome]) if one.state == PASSED}
    assert {one.number for one in passed} >= {9, 15, 20, 23, 25, 26, 29, 30}
    [unseen] = [one for one in judge_outcomes([outcome]) if one.check is Check.MOUNTS and one.state == UNCHECKED]
    assert "old layout, weights one folder deeper" in unseen.evidence


def test_output_that_could_not_be_fetched_or_came_late_fails_a_session(tables: Path, tmp_path: Path) -> None:
    outcome = run_cells("Path('extra.json').write_text('{}')", SUBMIT, folder=tmp_path / "session", tables=tables)
    late = replace(outcome, first_submission=0.9 * outcome.seconds)
    assert failed_checks(late) == set()  # a kernel that only predicts leaves it at its end
    assert failed_checks(replace(late, session=replace(late.session, trains=True))) == {Check.TIME}
    early = replace(outcome, first_submission=0.1 * outcome.seconds)
    assert failed_checks(replace(early, session=replace(early.session, trains=True))) == set()
    (outcome.working / "extra.json").write_text("changed after the last cell had listed it")
    assert failed_checks(outcome) == {Check.RUNS}
    (outcome.working / "outputs.json").unlink()
    assert failed_checks(outcome) == {Check.RUNS}


def test_a_long_session_tells_how_far_it_is(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "_TOLD_EVERY", 0.2)
    timeline = {"steps": [{"step": "toy, fold 0"}], "plan": [{"plan": "fits: 2 folds of toy; ends at minute 3"}]}
    written = f"Path('timeline.json').write_text({json.dumps(timeline)!r})"
    with caplog.at_level("INFO", logger="questlib"):
        run_cells(written, SUBMIT, "import time; time.sleep(2)", folder=tmp_path / "session", tables=tables)
    assert "public test: toy, fold 0 is done; ends at minute 3" in caplog.text


def test_a_write_outside_the_working_folder_fails_its_check(tables: Path, tmp_path: Path) -> None:
    outcome = run_cells(SUBMIT, "Path('/usr/left').write_text('x')", folder=tmp_path / "session", tables=tables)
    assert Check.WRITES in failed_checks(outcome)
    assert not Path("/usr/left").exists()


# A name is looked up at this machine's own address, where a resolver of its own listens.
@pytest.mark.parametrize(
    ("ask", "address"),
    [
        ("socket.create_connection(('192.0.2.1', 80))", "192.0.2.1"),
        ("socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.53', 53))", "127.0.0.53"),
    ],
)
def test_a_network_call_fails_its_check_even_where_its_error_is_swallowed(
    ask: str, address: str, tables: Path, tmp_path: Path
) -> None:
    call = f"import contextlib, socket\nwith contextlib.suppress(OSError):\n    {ask}"
    outcome = run_cells(SUBMIT, call, folder=tmp_path / "session", tables=tables)
    if outcome.seen["connects"] is None:
        pytest.skip("strace is not installed")
    assert failed_checks(outcome) == {Check.NETWORK}
    assert address in outcome.seen["connects"][0]


def test_cells_after_an_exit_are_missed(tables: Path, tmp_path: Path) -> None:
    outcome = run_cells(SUBMIT, "import sys; sys.exit(0)", "1", folder=tmp_path / "session", tables=tables)
    assert Check.RUNS in failed_checks(outcome)


def test_a_package_that_the_notebook_installs_is_seen_and_does_not_stay(tables: Path, tmp_path: Path) -> None:
    install = (
        "import site\nfolder = Path(site.getsitepackages()[0], 'einops-9.9.dist-info')\nfolder.mkdir()\n"
        "(folder / 'METADATA').write_text('Metadata-Version: 2.1\\nName: einops\\nVersion: 9.9\\n')"
    )
    outcome = run_cells(SUBMIT, install, folder=tmp_path / "session", tables=tables)
    assert outcome.seen["installed"] == ["einops==9.9"]
    [found] = [one for one in judge_outcomes([outcome]) if one.check is Check.INSTALL]
    assert found.state == FAILED
    assert not list(Path(sys.prefix).rglob("einops-9.9.dist-info"))


def test_a_submission_of_another_test_is_a_fault(tables: Path, tmp_path: Path) -> None:
    outcome = run_cells("Path('submission.csv').write_text('qa_id\\n1\\n')", folder=tmp_path / "session", tables=tables)
    assert "the columns must be the sample's" in outcome.find_fault()
    assert Check.HIDDEN_TEST not in failed_checks(outcome)  # it was no hidden test
    assert Check.TEXT_ON_WIRE in failed_checks(outcome)


@pytest.mark.parametrize("name", SWAPS)
def test_hidden_tests_are_as_they_are_named(name: str, tables: Path, tmp_path: Path) -> None:
    public = pd.read_csv(tables / "test.csv", keep_default_na=False)
    hidden = pd.read_csv(swap_test(tables, tmp_path / name, swap=SWAPS[name]) / "test.csv", keep_default_na=False)
    sample = pd.read_csv(tmp_path / name / "sample_submission.csv")
    assert sample[ID].tolist() == hidden[ID].tolist()
    assert hidden[ID].is_unique
    assert list(hidden.columns) == list(public.columns)
    assert {
        "10 x rows": len(hidden) == 10 * len(public),
        "1 row": len(hidden) == 1,
        "reordered": sorted(hidden[ID]) == sorted(public[ID]) and hidden[ID].tolist() != public[ID].tolist(),
        "dirty": all((hidden[column] == "").any() for column in TEXT_COLUMNS)
        and hidden["answer"].str.len().max() > 100_000
        and not set(hidden["host"]) & set(public["host"]),
    }[name]


def test_cut_tables_keep_every_target_varying(tables: Path) -> None:
    full, cut = pd.read_csv(SAMPLE / "train.csv"), pd.read_csv(tables / "train.csv")
    assert len(cut) < len(full)
    assert {name for name in TARGETS if full[name].nunique() > 1} == {
        name for name in TARGETS if cut[name].nunique() > 1
    }
    assert cut[QUESTION].nunique() >= 5


def test_upload_mangles_names_archives_and_lone_folders(tmp_path: Path) -> None:
    import zipfile

    source = tmp_path / "source"
    source.mkdir()
    (source / "a+b~cé.txt").write_text("x")
    with zipfile.ZipFile(source / "weights.pt", "w") as archive:
        archive.writestr("data.pkl", "x")
    mangle(source, tmp_path / "mangled")
    names = {path.relative_to(tmp_path / "mangled").as_posix() for path in (tmp_path / "mangled").rglob("*.*")}
    assert names == {"abc.txt", "weights/data.pkl"}
    (tmp_path / "lone/top").mkdir(parents=True)
    (tmp_path / "lone/top/file.txt").write_text("x")
    mangle(tmp_path / "lone", tmp_path / "flat")
    assert (tmp_path / "flat/file.txt").is_file()


@pytest.mark.parametrize("layout", ["old", "new"])
def test_mounts_are_laid_out_in_either_way(layout: str, tables: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "questlib-encoder"
    dataset.mkdir()
    (dataset / "config.json").write_text("{}")
    target = tmp_path / "input"
    mount([dataset], tables, owner="alice", layout=layout, deeper=["questlib-encoder"], target=target)
    at = {"old": "questlib-encoder", "new": "datasets/alice/questlib-encoder"}[layout]
    assert (target / at / "version/config.json").is_file()
    competition = {"old": "google-quest-challenge", "new": "competitions/google-quest-challenge"}[layout]
    assert (target / competition / "train.csv").is_file()


def test_a_library_under_tmp_is_there_in_a_session_and_nothing_else_of_tmp_is(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as clone:
        library = Path(shutil.copytree(SAMPLE.parents[1] / "questlib", Path(clone) / "questlib"))
        (Path(clone) / "other").touch()
        for name in ("attached", "working"):
            (tmp_path / name).mkdir()
        seen = "import os, sys; print(sorted(os.listdir(sys.argv[1])), os.access(sys.argv[1] + '/questlib', os.W_OK))"
        code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {clone!r})
from questlib.kaggle.sandbox import run_in_sandbox
run_in_sandbox(
    [sys.executable, "-c", {seen!r}, {clone!r}], attached=Path("attached").resolve(), timeout=60, log=Path("log"),
    working=Path("working").resolve(), python=Path(sys.prefix), environment=dict(os.environ),
)
"""
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
        assert library.is_dir()
    assert (tmp_path / "log").read_text() == "['questlib'] False\n"
