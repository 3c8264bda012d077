import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from questlib.run import run_notebook
from questlib.run_folder import read_json

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "notebooks" / "sample"
JOINT_STAGE = {"name": "full", "trainable": ["*"], "epochs": 1, "learning_rate": 8e-5, "head_learning_rate": 2e-3}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main job on the sample: the sample's profile, the real encoder in two layouts, and the lexical model."""
    out = tmp_path_factory.mktemp("runs") / "sample"
    members = [
        {"name": "minilm", "kind": "transformer"},
        {"name": "joint", "kind": "transformer", "layout": "joint", "stages": [JOINT_STAGE]},
        {"name": "lexical", "kind": "lexical"},
    ]
    overrides = {"cache": str(tmp_path_factory.mktemp("cache")), "members": members}
    return run_notebook(
        ROOT / "notebooks" / "quest.ipynb", profile="sample", data=str(SAMPLE), out=out, overrides=overrides
    )


def questlib(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "questlib", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_run_folder_is_complete(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert names == {
        "quest.ipynb", "report.html", "recipe.json", "scores.json", "timeline.json", "submission.csv", "ensemble.json",
        "blended_out_of_fold.csv", "tied_out_of_fold.csv", "inputs.json", "members", "logs",
        "done.json", "outputs.json", "run.json",
    }  # fmt: skip
    folds = {path.parent.relative_to(run_folder).as_posix() for path in run_folder.glob("members/**/done.json")}
    assert folds == {"members/minilm/fold-0", "members/joint/fold-0", "members/lexical/fold-0"}


def test_training_on_the_sample_learns(run_folder):
    scores = read_json(run_folder / "scores.json")
    assert scores["raw"]["minilm"]["one_row_per_question"]["mean"] > 0.3
    assert not scores["leaks"]
    history = read_json(run_folder / "members" / "minilm" / "fold-0" / "history.json", of=list)
    losses = [record["loss"] for record in history if "loss" in record]
    assert losses[-1] < 0.75 * losses[0]


def test_raw_blended_and_tied_scores_stand_side_by_side(run_folder):
    scores = read_json(run_folder / "scores.json")
    nested = scores["nested"]
    assert list(scores["raw"]) == ["minilm", "joint", "lexical"]
    notes = [each["note"] for each in read_json(run_folder / "timeline.json")["notes"]]
    if "joint" in nested["scores"]:
        assert list(nested["scores"]) == ["minilm", "joint", "lexical", "blended", "tied"]
        assert not notes
    else:  # one epoch teaches the joint layout next to nothing: where what stood without it was better, that stays
        assert list(nested["scores"]) == ["minilm", "lexical", "blended", "tied"]
        assert "the submission stays as it is: with folds of minilm 1, joint 1, lexical 1 it would be" in notes[0]
    assert "fitted on the other questions" in nested["protocol"]
    assert min(nested["scores"][name]["mean"] for name in ("minilm", "lexical", "blended", "tied")) > 0.2


def test_every_cell_was_executed(run_folder):
    notebook = nbformat.read(run_folder / "quest.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert 'out = "."' in "\n".join(cell.source for cell in notebook.cells)


def test_notebook_and_report_hold_no_path_of_this_machine(run_folder):
    for name in ("quest.ipynb", "report.html", "timeline.json", "submission.csv", "run.json"):
        text = (run_folder / name).read_text(encoding="utf-8")
        for path in (run_folder, ROOT, Path.home(), sys.prefix):
            assert str(path) not in text, (name, path)


def test_submission_is_valid_and_the_check_says_so(run_folder):
    done = questlib("check", run_folder / "submission.csv", SAMPLE / "sample_submission.csv")
    assert done.returncode == 0, done.stderr
    submission, test = pd.read_csv(run_folder / "submission.csv"), pd.read_csv(SAMPLE / "test.csv")
    assert submission["qa_id"].tolist() == test["qa_id"].tolist()
    assert submission.columns.tolist() == pd.read_csv(SAMPLE / "sample_submission.csv").columns.tolist()


def test_score_command_repeats_the_runs_own_score(run_folder):
    path = run_folder / "members" / "minilm" / "fold-0" / "out_of_fold.csv"
    done = questlib("score", path, SAMPLE / "train.csv", "--one-row-per-question", "--json")
    assert done.returncode == 0, done.stderr
    kept = read_json(run_folder / "scores.json")["raw"]["minilm"]["one_row_per_question"]
    assert json.loads(done.stdout)["mean"] == pytest.approx(kept["mean"], abs=1e-9)


def test_predict_command_needs_the_run_folder_and_a_table_only(run_folder, tmp_path):
    moved = shutil.copytree(run_folder, tmp_path / "moved")
    done = questlib("predict", moved, SAMPLE / "test.csv", tmp_path / "out.csv", "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == (run_folder / "submission.csv").read_bytes()


def test_report_is_one_file_that_opens_offline(run_folder):
    text = (run_folder / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")  # names may be broken there
    assert [link for link in re.findall(r'(?:src|href)="([^"]*)', text) if not link.startswith(("data:", "#"))] == []
    assert "widget" not in text
    score = read_json(run_folder / "run.json")["score"]["mean"]
    for words in (
        f"sample: {score:.4f} - report of a QUEST run", "transformers", "batch_size", "stages.head.schedule",
        "all-MiniLM-L6-v2", "Coverage of tokens", "Half of the 240 rows are longer than", "240 rows to learn from",
        "minilm: mean Spearman on held-out questions",
    ):  # fmt: skip
        assert words in text, words


def test_run_is_recorded_with_its_profile_and_compared(run_folder, tmp_path):
    content = read_json(run_folder / "run.json")
    assert content["profile"] == "sample"
    assert content["parameters"]["members"][1]["layout"] == "joint"
    assert content["parameters"]["data"] == "sample"
    assert "out" not in content["parameters"]
    assert content["score"]["mean"] == read_json(run_folder / "scores.json")["nested"]["scores"]["tied"]["mean"]
    done = questlib("compare", run_folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{content['score']['mean']:.4f}" in done.stdout
    assert f"left out: {tmp_path}: no run.json" in done.stdout


def test_run_of_another_recipe_in_the_folder_is_refused_and_the_folder_kept(run_folder):
    before = (run_folder / "submission.csv").read_bytes()
    done = questlib("run", "--data", SAMPLE, "--out", run_folder)
    assert done.returncode == 1
    assert "can only go on as it began, however: members.minilm.kind was transformer, is not there" in done.stderr
    assert (run_folder / "submission.csv").read_bytes() == before
