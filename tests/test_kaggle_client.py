"""The real client against a server on this machine, in a namespace where nothing else is reached."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from questlib.kaggle import client, sandbox
from questlib.kaggle.loopback import CHANGES, REPLIES, STATUSES
from questlib.kaggle.manifest import write_manifest
from questlib.run_folder import read_json, write_json
from questlib.schema import ID, TARGETS

ROOT = Path(__file__).parent.parent
SECRET = "a-key-that-nobody-may-see"
NAME = "alice/questlib-google-quest"
needs_namespaces = pytest.mark.skipif(bool(sandbox.why_not()), reason=str(sandbox.why_not()))

# Runs inside the namespace; each scenario adds what it saw.
DRIVER = """
import json, logging, sys
from pathlib import Path
from questlib.kaggle import client
from questlib.kaggle.loopback import serve
from questlib.marks import list_outputs

logging.basicConfig(level=logging.DEBUG)
folder, bundle, seen = Path(sys.argv[1]), Path(sys.argv[2]), {}

def attempt(name, action, **options):
    with serve(folder, **options) as server:
        before = len(server.read_requests())
        try:
            result = action()
        except (RuntimeError, ValueError) as error:
            result = f"{type(error).__name__}: {error}"
        seen[name] = {"result": result, "calls": [one["call"] for one in server.read_requests()[before:]]}

def push(patience=20.0):
    return client.push(bundle, kernel="train", patience=patience)

exec(Path(sys.argv[3]).read_text())
print(json.dumps(seen))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small bundle: a kernel, a flat dataset and one with a sub-folder."""
    folder = tmp_path / "bundle"
    (folder / "train").mkdir(parents=True)
    metadata = read_json(ROOT / "kernel-metadata.json") | {
        "id": NAME,
        "code_file": "quest.ipynb",
        "dataset_sources": ["alice/questlib-wheels", "alice/questlib-run"],
        "model_sources": ["bob/model/transformers/default/1"],
    }
    write_json(folder / "train/kernel-metadata.json", metadata)
    shutil.copyfile(ROOT / "notebooks/quest.ipynb", folder / "train/quest.ipynb")
    for slug, name in (("questlib-wheels", "requirements.txt"), ("questlib-run", "fold-0/config.json")):
        path = folder / "datasets" / slug / name
        path.parent.mkdir(parents=True)
        path.write_text("content\n")
        described = {"id": f"alice/{slug}", "title": slug.replace("-", " "), "licenses": [{"name": "other"}]}
        write_json(folder / "datasets" / slug / "dataset-metadata.json", described)
        write_manifest(folder / "datasets" / slug)
    return folder


def drive(scenario: str, *, bundle: Path, folder: Path, **environment: str) -> dict[str, dict]:
    """Run a scenario in a namespace of its own; no credential may be in anything that it says or leaves."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    for name, text in (("driver.py", DRIVER), ("scenario.py", scenario)):
        (folder / name).write_text(text)
    inner = [sys.executable, folder / "driver.py", folder / "site", bundle, folder / "scenario.py"]
    namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    known = {"PATH": os.environ["PATH"], "HOME": str(home), "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}
    done = subprocess.run([*namespace, *map(str, inner)], env=known | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in left if SECRET.encode() in path.read_bytes()]
    return json.loads(done.stdout.splitlines()[-1])


@needs_namespaces
def test_push_uploads_what_changed_and_nothing_twice(bundle: Path, tmp_path: Path) -> None:
    scenario = """
attempt("first", push)
attempt("again", push)
changed = bundle / "datasets/questlib-run"
(changed / "fold-0/config.json").write_text("other content")
from questlib.kaggle.manifest import write_manifest
write_manifest(changed)
attempt("changed", push)
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert seen["first"]["result"] == f"http://localhost/code/{NAME}"
    assert seen["first"]["calls"].count("CreateDataset") == 2
    assert "StartBlobUpload" not in seen["again"]["calls"]
    assert seen["again"]["calls"].count("SaveKernel") == 1
    assert seen["changed"]["calls"].count("CreateDatasetVersion") == 1
    site = tmp_path / "drive/site/datasets/alice/questlib-run"
    assert (site / "fold-0/config.json").read_text() == "other content"  # a sub-folder travels too
    sent = json.loads((tmp_path / "drive/site/kernels" / NAME / "request.json").read_text())
    assert sent["enableInternet"] is False
    assert sent["machineShape"] == "NvidiaTeslaT4"


WORDS = {
    "quota": "wait until a running kernel ends",
    "datasets": "not valid dataset sources",
    "competitions": "not valid competition sources",
    "kernels": "not valid kernel sources",
    "models": "model_sources were ['bob/model/transformers/default/1'] and are []",
    "tags": "not valid tags",
    "conflict": "choose another title and id",
    "forbidden": "the id must be yours",
    "missing": "the id must be yours",
    "too large": "the notebook may be too large",
    "fault": "status 500",
    "internet": "enable_internet was False and is True",
    "no dataset": "dataset_sources were",
    "no gpu": "enable_gpu was True and is False",
    "text": "the cells differ",
}


@needs_namespaces
def test_every_refusal_and_every_silent_change_is_an_error(bundle: Path, tmp_path: Path) -> None:
    assert set(WORDS) >= {*REPLIES, *STATUSES, *CHANGES}
    scenario = f"""
attempt("accepted", push)
for name in {list(WORDS)}:
    attempt(name, push, refusal=name)
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert seen.pop("accepted")["result"].startswith("http://")
    for name, words in WORDS.items():
        assert seen[name]["result"].startswith("RuntimeError: "), name
        assert words in seen[name]["result"]


@needs_namespaces
def test_a_dataset_that_is_refused_or_late_keeps_the_kernel_from_being_pushed(bundle: Path, tmp_path: Path) -> None:
    scenario = """
attempt("in use", push, refusal="dataset in use")
attempt("first", push)
from questlib.kaggle.manifest import write_manifest
(bundle / "datasets/questlib-wheels/requirements.txt").write_text("other")
write_manifest(bundle / "datasets/questlib-wheels")
attempt("late", lambda: push(patience=1.0), refusal="dataset stays old")
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "already in use" in seen["in use"]["result"]
    assert "alice/questlib-wheels must be ready within 1 s" in seen["late"]["result"]
    for name in ("in use", "late"):
        assert "SaveKernel" not in seen[name]["calls"]


@needs_namespaces
def test_output_comes_whole_with_a_readable_log_once_the_run_has_ended(bundle: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"{row}," + ",".join([f"0.{row}"] * len(TARGETS)) for row in (1, 2))
    scenario = f"""
attempt("push", push)
output = folder / "kernels/{NAME}/output"
fetch = lambda: client.fetch_output("{NAME}", folder.parent / "fetched")
attempt("running", fetch, refusal="running")
attempt("nothing", fetch)
output.mkdir()
(output / "submission.csv").write_text({",".join([ID, *TARGETS])!r} + "\\n" + {rows!r})
(output / "scores.json").write_text("1")
(output / "nested").mkdir()
(output / "nested/done.json").write_text("2")
attempt("not listed", fetch)
list_outputs(output)
attempt("error page", fetch, refusal="error page")
attempt("half a list", fetch, refusal="half a list")
attempt("fetched", fetch)
(output / "scores.json").write_text("changed")
attempt("changed", fetch)
(output / "submission.csv").write_text("qa_id\\n1")
list_outputs(output)
attempt("broken", fetch)
attempt("failed", lambda: client.fetch_status("{NAME}"), refusal="failed")
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "must have ended, however it is RUNNING" in seen["running"]["result"]
    for name in ("nothing", "not listed"):
        assert "must leave outputs.json and submission.csv" in seen[name]["result"]
    assert "not the same: ['scores.json']" in seen["error page"]["result"]
    assert "missing or not the same: [" in seen["half a list"]["result"]
    assert seen["fetched"]["result"] == [
        "nested/done.json", "outputs.json", "questlib-google-quest.log", "scores.json", "submission.csv",
    ]  # fmt: skip
    assert "not the same: ['scores.json']" in seen["changed"]["result"]
    assert seen["broken"]["result"].startswith("ValueError")
    assert seen["failed"]["result"] == "ERROR: Notebook Threw Exception"
    assert "fold 0" in (tmp_path / "drive/fetched/questlib-google-quest.log").read_text()


@needs_namespaces
def test_missing_credentials_are_told_with_what_to_do(bundle: Path, tmp_path: Path) -> None:
    seen = drive('attempt("push", push)', bundle=bundle, folder=tmp_path / "drive")
    assert seen["push"]["result"].startswith("RuntimeError")
    assert "log in" in seen["push"]["result"]
    assert not {"CreateDataset", "SaveKernel"} & set(seen["push"]["calls"])


def test_what_the_client_says_holds_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kaggle.json").write_text(json.dumps({"username": "alice", "key": SECRET}))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "another-secret")
    assert client._strike_out(f"refused {SECRET} and another-secret") == "refused *** and ***"
