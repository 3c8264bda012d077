"""The real client against a server on this machine, in a namespace where nothing else is reached."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from questlib.kaggle import client, sandbox
from questlib.kaggle.loopback import CHANGES, REPLIES, STATUSES, SUBMISSIONS
from questlib.kaggle.manifest import write_manifest
from questlib.run_folder import read_json, write_json
from questlib.schema import ID, TARGETS

ROOT = Path(__file__).parent.parent
SECRET = "a-key-that-nobody-may-see"
NAME = "alice/questlib-google-quest"
needs_namespaces = pytest.mark.skipif(bool(sandbox.why_not()), reason=str(sandbox.why_not()))

# Runs inside the namespace; each scenario adds what it saw.
DRIVER = """
import io, json, logging, os, signal, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from questlib.kaggle import output, push as pushing, submit
from questlib.kaggle.__main__ import main
from questlib.kaggle.kernels import hash_contents
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
    pushed = pushing.push(bundle, kernel="train", patience=patience)
    pushing.read_back(bundle, kernel="train")
    return pushed.url

def command(*arguments, owner="alice"):
    def run():
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            status = main([arguments[0], "--owner", owner, *arguments[1:]])
        return f"{status}: {said.getvalue()}"
    return run

def rehearsed():
    record = {"contents": hash_contents(bundle, kernel="train"), "passed": True}
    (bundle / "train/rehearsal.json").write_text(json.dumps(record))

os.chdir(folder.parent)
Path("build").mkdir()
Path("build/kaggle").symlink_to(bundle)
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
    known["PYTHONPATH"] = str(ROOT)
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
attempt("late", lambda: push(patience=1.0), refusal="dataset is late")
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "already in use" in seen["in use"]["result"]
    assert "alice/questlib-wheels must be ready within 1 s" in seen["late"]["result"]
    for name in ("in use", "late"):
        assert "SaveKernel" not in seen[name]["calls"]


@needs_namespaces
def test_a_dataset_that_was_made_and_is_not_ready_is_waited_for_not_made_again(bundle: Path, tmp_path: Path) -> None:
    scenario = """
pushing._POLL = 0.2
attempt("late", lambda: push(patience=0.5), refusal="dataset is late")
attempt("later", push)
(folder / "datasets/alice/questlib-run/manifest.json").unlink()
attempt("made by hand", push)
(folder / "datasets/alice/questlib-run/manifest.json").write_text("{}")
attempt("another's manifest", push)
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "alice/questlib-wheels must be ready within 0 s, however it is not; push again" in seen["late"]["result"]
    for name in ("later", "made by hand", "another's manifest"):
        assert seen[name]["result"] == f"http://localhost/code/{NAME}"
        assert seen[name]["calls"].count("CreateDatasetVersion") == (name != "later")
    assert [seen[name]["calls"].count("CreateDataset") for name in ("late", "later")] == [1, 1]  # the other one


@needs_namespaces
def test_a_push_that_is_accepted_is_remembered_though_it_is_not_read_back(bundle: Path, tmp_path: Path) -> None:
    scenario = """
rehearsed()
attempt("lost", command("push"), refusal="not read back")
attempt("again", command("push"))
attempt("saved otherwise", command("push", "--again"), refusal="internet")
attempt("submitted", command("submit"))
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "1: questlib.kaggle push: kaggle kernels pull must succeed, however" in seen["lost"]["result"]
    assert f"0: {NAME} is there already, unchanged, as version 1" in seen["again"]["result"]
    assert "SaveKernel" not in seen["again"]["calls"]
    assert "must be saved as it was sent, however" in seen["saved otherwise"]["result"]
    assert "the kernel train of alice must be pushed, however none was from here" in seen["submitted"]["result"]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("409 Client Error: Conflict for url: http://a", "another notebook or dataset has that slug"),
        ("refused (status 403)", "the id must be yours"),
        ("400 Client Error: Bad Request", "the notebook may be too large"),
        ("Kernel 1400123 could not be saved", ""),
        ("0%|    | 0.00/409k [00:00<?, ?B/s]\n100%|####| 404/404 [00:00]\nConnection reset", ""),
        ("Max retries exceeded with url: /api/v1/403/x", ""),
    ],
)
def test_only_a_status_of_its_own_calls_for_its_remedy(said: str, remedy: str) -> None:
    told = client.advise(said).removeprefix(said)
    assert told.startswith(f" ({remedy}") if remedy else not told


@needs_namespaces
def test_output_comes_whole_with_a_readable_log_once_the_run_has_ended(bundle: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"{row}," + ",".join([f"0.{row}"] * len(TARGETS)) for row in (1, 2))
    scenario = f"""
attempt("push", push)
left = folder / "kernels/{NAME}/output"
fetch = lambda: output.fetch_output("{NAME}", folder.parent / "fetched")
attempt("running", fetch, refusal="running")
attempt("nothing", fetch)
left.mkdir()
(left / "__notebook__.ipynb").write_text("as it was while its last cell ran")
(left / "submission.csv").write_text({",".join([ID, *TARGETS])!r} + "\\n" + {rows!r})
(left / "scores.json").write_text("1")
(left / "nested").mkdir()
(left / "nested/done.json").write_text("2")
attempt("not listed", fetch)
attempt("failed run", command("output"), refusal="failed")
list_outputs(left)
attempt("error page", fetch, refusal="error page")
attempt("half a list", fetch, refusal="half a list")
(left / "__notebook__.ipynb").unlink()
attempt("fetched", fetch)
(left / "scores.json").write_text("changed")
attempt("changed", fetch)
(left / "submission.csv").write_text("qa_id\\n1")
list_outputs(left)
attempt("broken", fetch)
attempt("failed", lambda: output.fetch_status("{NAME}"), refusal="failed")
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "must have ended, however it is RUNNING" in seen["running"]["result"]
    for name in ("nothing", "not listed"):
        assert "must leave outputs.json and submission.csv" in seen[name]["result"]
    assert "not the same: ['scores.json']" in seen["error page"]["result"]
    assert "missing or not the same: [" in seen["half a list"]["result"]
    files = ["nested/done.json", "outputs.json", "questlib-google-quest.log", "scores.json", "submission.csv"]
    assert seen["fetched"]["result"] == ["COMPLETE", files]
    assert "the run did not end well (ERROR: Notebook Threw Exception): these are" in seen["failed run"]["result"]
    assert "submission.csv" in seen["failed run"]["result"]
    assert "not the same: ['scores.json']" in seen["changed"]["result"]
    assert seen["broken"]["result"].startswith("ValueError")
    assert seen["failed"]["result"] == "ERROR: Notebook Threw Exception"
    assert "fold 0" in (tmp_path / "drive/fetched/questlib-google-quest.log").read_text()


@needs_namespaces
def test_a_kernel_that_is_there_unchanged_is_pushed_again_only_when_asked(bundle: Path, tmp_path: Path) -> None:
    scenario = """
rehearsed()
attempt("first", command("push"))
attempt("same", command("push"))
attempt("asked", command("push", "--again"))
attempt("changed there", command("push"), refusal="no gpu")
(bundle / "train/note.txt").write_text("changed here")
rehearsed()
attempt("changed here", command("push"))
metadata = json.loads((bundle / "train/kernel-metadata.json").read_text())
del metadata["machine_shape"]
(bundle / "train/kernel-metadata.json").write_text(json.dumps(metadata | {"enable_gpu": False}))
rehearsed()
attempt("without a GPU", command("push"))
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert seen["first"]["result"] == f"0: {NAME} version 1 runs: http://localhost/code/{NAME}\n"
    assert f"0: {NAME} is there already, unchanged, as version 1 (COMPLETE)" in seen["same"]["result"]
    assert "ARGS=--again" in seen["same"]["result"]
    assert f"0: {NAME} version 2 runs" in seen["asked"]["result"]
    assert "enable_gpu was True and is False" in seen["changed there"]["result"]
    assert "version 4 runs" in seen["changed here"]["result"]
    assert "version 5 runs" in seen["without a GPU"]["result"]
    pushed = [name for name, one in seen.items() if "SaveKernel" in one["calls"]]
    assert pushed == ["first", "asked", "changed there", "changed here", "without a GPU"]


SUBMITTING = f"""
submit._POLL, submit._APPEARS = 0.1, 0.5
table = {",".join([ID, *TARGETS])!r} + "".join(chr(10) + ",".join([str(row), *[f"0.{{row}}"] * 30]) for row in (1, 2))
kernel = folder / "kernels/{NAME}"
left = kernel / "output"

def leave():
    left.mkdir(parents=True, exist_ok=True)
    (left / "submission.csv").write_text(table)
    list_outputs(left)

def as_if_pushed():
    kernel.mkdir(parents=True)
    (kernel / "version-1").touch()
    pushed = pushing.Pushed(id="{NAME}", version=1, url="", contents="0" * 64)
    pushing.remember(pushed, bundle, kernel="train")
"""
REFUSED = {
    "rules": "accept the competition's rules, once, at https://www.kaggle.com/competitions/google-quest-challenge/rules",
    "phone": "verify your phone, once, at https://www.kaggle.com/settings",
    "either": "which of two things is missing: accept the competition's rules, once, at https://www.kaggle.com",
    "allowance": "a day's submissions are used up: submit again after midnight UTC",
    "not taken": "must be listed at https://www.kaggle.com/competitions/google-quest-challenge/submissions",
}


@needs_namespaces
def test_what_was_pushed_is_submitted_once_and_its_scores_are_told(bundle: Path, tmp_path: Path) -> None:
    scenario = f"""{SUBMITTING}
rehearsed()
attempt("not pushed", command("submit"))
attempt("push", command("push"))
leave()
attempt("of another", command("submit", owner="bob"))
attempt("submitted", command("submit", "-m", "first words"))
attempt("repeated", command("submit"))
(bundle / "train/note.txt").write_text("a bundle that was written since changes nothing of what was pushed")
attempt("asked", command("submit", "--again"))
attempt("not scored", command("submit", "--again"), refusal="not scored")
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "the kernel train of alice must be pushed, however none was from here" in seen["not pushed"]["result"]
    assert f"the kernel train of bob must be pushed, however only {NAME} was" in seen["of another"]["result"]
    told = f"0: {NAME} version 1: public score 0.41234, private score 0.40321\n"
    for name in ("submitted", "repeated", "asked"):
        assert seen[name]["result"] == told
    assert "the site says ERROR" in seen["not scored"]["result"]
    made = [name for name, one in seen.items() if "CreateCodeSubmission" in one["calls"]]
    assert made == ["submitted", "asked", "not scored"]
    requests = map(json.loads, (tmp_path / "drive/site/requests.jsonl").read_text().splitlines())
    sent = next(one["body"] for one in requests if one["call"] == "CreateCodeSubmission")
    assert sent["submissionDescription"].startswith("first words: version 1, ")
    assert (sent["kernelOwner"], sent["kernelSlug"], sent["kernelVersion"]) == (*NAME.split("/"), 1)
    assert (sent["competitionName"], sent["fileName"]) == ("google-quest-challenge", "submission.csv")


@needs_namespaces
def test_every_refusal_of_a_submission_says_what_to_do(bundle: Path, tmp_path: Path) -> None:
    assert set(REFUSED) == set(SUBMISSIONS)
    scenario = f"""{SUBMITTING}
as_if_pushed()
attempt("running", command("submit"), refusal="running")
attempt("left nothing", command("submit"))
leave()
for name in {list(REFUSED)}:
    attempt(name, command("submit"), refusal=name)
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    for name, words in REFUSED.items():
        assert seen[name]["result"].startswith("1: ")
        assert words in seen[name]["result"]
    for name in ("either", "not taken"):
        assert {"either": REFUSED["phone"], "not taken": REFUSED["allowance"]}[name] in seen[name]["result"]
    assert "must be complete before it is submitted, however it is RUNNING" in seen["running"]["result"]
    assert "must leave outputs.json and submission.csv" in seen["left nothing"]["result"]
    for name in ("running", "left nothing", "either"):
        assert "CreateCodeSubmission" not in seen[name]["calls"]  # seen before anything is spent


@needs_namespaces
def test_waiting_ends_at_its_limit_or_by_an_interrupt_and_goes_on_later(bundle: Path, tmp_path: Path) -> None:
    scenario = f"""{SUBMITTING}
as_if_pushed()
leave()
attempt("late", command("submit", "--patience", "0.3"), refusal="stays pending")
sleep, submit.time.sleep = submit.time.sleep, lambda seconds: signal.raise_signal(signal.SIGINT)
attempt("interrupted", command("submit"), refusal="stays pending")
submit.time.sleep = sleep
attempt("later", command("submit"))
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive", KAGGLE_USERNAME="alice", KAGGLE_KEY=SECRET)
    assert "submission 100 must be scored within 0 s, however it is pending" in seen["late"]["result"]
    assert seen["interrupted"]["result"].startswith("130: what was submitted goes on at the site")
    assert "public score 0.41234" in seen["later"]["result"]
    assert [name for name, one in seen.items() if "CreateCodeSubmission" in one["calls"]] == ["late"]


@needs_namespaces
def test_missing_credentials_are_told_first_with_where_they_belong(bundle: Path, tmp_path: Path) -> None:
    scenario = """
rehearsed()
(bundle / "pushed-train.json").write_text(json.dumps({"id": "alice/a", "version": 1, "url": "", "contents": ""}))
for name in ("push", "submit"):
    attempt(name, command(name))
(Path.home() / ".kaggle").mkdir()
for name, content in (("damaged", b"{"), ("not UTF-8", "{}".encode("utf-16"))):
    (Path.home() / ".kaggle/kaggle.json").write_bytes(content)
    attempt(name, command("push"))
"""
    seen = drive(scenario, bundle=bundle, folder=tmp_path / "drive")
    for name in ("push", "submit"):
        first = seen[name]["result"].splitlines()[0]
        assert first.startswith(
            f"1: questlib.kaggle {name}: Kaggle's credentials must be at hand, however none were found"
        )
        assert "https://www.kaggle.com/settings/api as ~/.kaggle/access_token" in first
    assert not {"CreateDataset", "SaveKernel"} & set(seen["push"]["calls"])
    assert f"however {tmp_path}/drive/home/.kaggle/kaggle.json holds none; log in" in seen["damaged"]["result"]
    assert "a file of credentials must be UTF-8" in seen["not UTF-8"]["result"]


def test_what_the_client_says_holds_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kaggle.json").write_text(json.dumps({"username": "alice", "key": SECRET}))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "another-secret")
    assert client._strike_out(f"refused {SECRET} and another-secret") == "refused *** and ***"
