"""Every fault that is seeded into a bundle is found, and named by the check that it belongs to."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from questlib.kaggle.__main__ import main
from questlib.kaggle.bundle import Order, write_bundle
from questlib.kaggle.findings import (
    FAILED,
    NOT_RUN,
    PARTLY,
    PASSED,
    UNCHECKED,
    Check,
    Finding,
    summarize,
    tabulate,
)  # fmt: skip
from questlib.kaggle.manifest import hash_files, read_fingerprint, write_manifest
from questlib.kaggle.rehearse import Rehearsal, _list_probes, _shorten_limit, check_statically, rehearse
from questlib.kaggle.sessions import Session
from questlib.kaggle.twin import Twin
from questlib.kaggle.wheels import make_wheels, read_lock
from questlib.marks import fingerprint_of
from questlib.parameters import read_cell
from questlib.recipe import Recipe, TransformerRecipe
from questlib.run_folder import read_json, write_json

ROOT = Path(__file__).parent.parent
TRAINED = sorted({path.stem for path in (ROOT / "notebooks/profiles").glob("*.yaml")} - {"kaggle-predict"})
TWO = [{"name": "transformer", "kind": "transformer"}, {"name": "lexical", "kind": "lexical"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with wheels: questlib's own is built, a small one stands for those that are fetched."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("questlib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md", "kernel-metadata.json"):
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "wheels").mkdir()
    shutil.copyfile(ROOT / "wheels/dataset-metadata.json", folder / "wheels/dataset-metadata.json")
    (folder / "wheels/requirements.lock").write_text("# nothing to fetch here\n")
    make_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def clean_bundle(project: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle")
    write_bundle(order_of(project, encoder_folder), out)
    return out


def order_of(project: Path, encoder: Path, **overrides: object) -> Order:
    # The folder's name is that of the encoder's dataset.
    named = encoder.parent / "encoder"
    if not named.exists():
        named.symlink_to(encoder)
    return Order(
        project=project,
        kernel="train",
        owner="alice",
        overrides={"encoder": str(named), "max_length": 64, "members": TWO, **overrides},
    )


def check_order(order: Order, out: Path) -> list[Finding]:
    write_bundle(order, out)
    return list(check_statically(order, out))


@pytest.fixture
def bundle(clean_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_bundle, tmp_path / "bundle"))


@pytest.fixture
def rehearsal(project: Path, bundle: Path, encoder_folder: Path) -> Rehearsal:
    return Rehearsal(
        order=order_of(project, encoder_folder),
        bundle=bundle,
        data=ROOT / "notebooks/sample",
        images=(),
        folder=bundle.parent / "rehearsal",
    )


def failed_checks(rehearsal: Rehearsal) -> dict[Check, str]:
    found = summarize(list(check_statically(rehearsal.order, rehearsal.bundle)))
    return {one.check: one.evidence for one in found if one.state == FAILED}


def edit_metadata(**changes: object) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        path = bundle / "train/kernel-metadata.json"
        metadata = read_json(path) | changes
        write_json(path, {name: value for name, value in metadata.items() if value is not ...})

    return edit


def edit_notebook(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        path = bundle / "train/quest.ipynb"
        notebook = read_json(path)
        change(notebook)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    return edit


def add_code(source: str, *, first: bool = False) -> Callable[[Path], None]:
    def add(notebook: dict) -> None:
        cell = {"cell_type": "code", "id": "seeded", "metadata": {}, "outputs": [], "execution_count": None}
        notebook["cells"].insert(0 if first else len(notebook["cells"]), cell | {"source": source})

    return edit_notebook(add)


def replace_text(old: str, new: str) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        path = bundle / "train/quest.ipynb"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def leave_outputs(notebook: dict) -> None:
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "left\n"}]


def drop_kernelspec(notebook: dict) -> None:
    del notebook["metadata"]["kernelspec"]


def double_id(notebook: dict) -> None:
    notebook["cells"][5]["id"] = notebook["cells"][4]["id"]


def drop_id(notebook: dict) -> None:
    del notebook["cells"][5]["id"]


def remove_wheel(bundle: Path) -> None:
    next((bundle / "datasets/questlib-wheels").glob("questlib-*.whl")).unlink()


def damage_wheel(bundle: Path) -> None:
    with next((bundle / "datasets/questlib-wheels").glob("questlib-*.whl")).open("ab") as stream:
        stream.write(b"x")


def age_manifest(bundle: Path) -> None:
    path = bundle / "datasets/questlib-wheels/manifest.json"
    write_json(path, read_json(path) | {"source": "0" * 64})


def ship_encoder_file(name: str) -> Callable[[Path], None]:
    def ship(bundle: Path) -> None:
        folder = bundle / "datasets/questlib-encoder"
        (folder / name).write_bytes(b"\x80\x04.")
        write_manifest(folder)

    return ship


def ship_wheel(line: str) -> Callable[[Path], None]:
    def ship(bundle: Path) -> None:
        with zipfile.ZipFile(bundle / "datasets/questlib-wheels/some-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("some-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: some\n{line}\n")

    return ship


def ship_numpy(bundle: Path) -> None:
    folder = bundle / "datasets/questlib-wheels"
    (folder / "numpy-2.0.0-cp312-cp312-linux_x86_64.whl").write_bytes(b"no archive")


def forget_dataset(bundle: Path) -> None:
    shutil.rmtree(bundle / "datasets/questlib-encoder")


def write_file(name: str, text: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).write_text(text, encoding="utf-8") and None


def name_another_notebook(bundle: Path) -> None:
    shutil.copyfile(bundle / "train/quest.ipynb", bundle / "train/kept.ipynb")
    add_code("exit(0)")(bundle)
    (bundle / "train/quest.ipynb").rename(bundle / "train/other.ipynb")
    (bundle / "train/kept.ipynb").rename(bundle / "train/quest.ipynb")
    edit_metadata(code_file="other.ipynb")(bundle)


def leave_injected(notebook: dict) -> None:
    notebook["cells"][4]["metadata"] = {"tags": ["injected-parameters"]}
    assert notebook["cells"][4]["cell_type"] == "code"


FAULTS: dict[str, tuple[Check, Callable[[Path], None], str]] = {
    "internet flag missing": (Check.INTERNET_OFF, edit_metadata(enable_internet=...), "enable_internet is missing"),
    "internet flag a word": (Check.INTERNET_OFF, edit_metadata(enable_internet="false"), "however: 'false'"),
    "key misspelt": (Check.METADATA, edit_metadata(enable_intrenet=False), "enable_intrenet"),
    "no mapping": (Check.METADATA, write_file("train/kernel-metadata.json", "[1]"), "it is no mapping, but [1]"),
    "pinning misspelt": (Check.METADATA, edit_metadata(docker_image_pinning_type="Latest"), "however: 'Latest'"),
    "keywords as a word": (Check.METADATA, edit_metadata(keywords="nlp"), "keywords must be a list, however: 'nlp'"),
    "number of another kernel": (Check.NAMES, edit_metadata(id_no=12), "id_no must be left out"),
    "byte order mark": (Check.METADATA, lambda bundle: prepend_mark(bundle), "BOM"),
    "owner not filled in": (Check.NAMES, edit_metadata(id="OWNER/questlib-google-quest"), "OWNER/questlib"),
    "title of another slug": (Check.NAMES, edit_metadata(title="Another title"), "another-title"),
    "language in capitals": (Check.CODE_FILE, edit_metadata(language="Python"), "'Python'"),
    "code file missing": (Check.CODE_FILE, edit_metadata(code_file="gone.ipynb"), "gone.ipynb"),
    "source with a prefix": (
        Check.SOURCES,
        edit_metadata(dataset_sources=["datasets/alice/questlib-wheels"]),
        "datasets/alice",
    ),
    "dataset as a competition's address": (
        Check.SOURCES,
        edit_metadata(dataset_sources=["c/google-quest"]),
        "c/google",
    ),
    "dataset as a kernel's address": (Check.SOURCES, edit_metadata(dataset_sources=["code/alice"]), "code/alice"),
    "dataset as a model's address": (Check.SOURCES, edit_metadata(dataset_sources=["models/foo"]), "models/foo"),
    "kernel as a dataset's address": (
        Check.SOURCES,
        edit_metadata(kernel_sources=["datasets/foobar"]),
        "kernel_sources must be named without prefix",
    ),
    "model with a prefix": (Check.SOURCES, edit_metadata(model_sources=["models/alice/m/f/1"]), "models/alice/m/f/1"),
    "source as a word": (Check.SOURCES, edit_metadata(competition_sources="google-quest-challenge"), "must be a list"),
    "competition not attached": (Check.HUB_CLOSED, edit_metadata(competition_sources=[]), "data must be the slug of"),
    "another competition": (Check.HUB_CLOSED, edit_metadata(competition_sources=["titanic"]), "data must be the slug"),
    "wheels of somebody else": (
        Check.HUB_CLOSED,
        edit_metadata(dataset_sources=["bob/questlib-wheels", "alice/questlib-encoder"]),
        "dataset questlib-wheels must be the slug of an attached source",
    ),
    "another notebook": (Check.CODE, name_another_notebook, "must not end or ask, however: exit"),
    "notebook missing": (
        Check.CODE_FILE,
        lambda bundle: (bundle / "train/quest.ipynb").unlink(),
        "code_file must be a notebook beside",
    ),
    "notebook of an older form": (
        Check.NOTEBOOK,
        write_file("train/quest.ipynb", '{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}'),
        "it is none of nbformat 4",
    ),
    "cell of a run's parameters": (
        Check.TRACES,
        edit_notebook(leave_injected),
        "papermill's cell of parameters is left",
    ),
    "path of a mount": (Check.TRACES, add_code("path = '/mnt/disk/quest'"), "/mnt/disk"),
    "path of a drive": (Check.TRACES, add_code("path = 'D:/quest'"), "D:/"),
    "parameter that another cell sets": (
        Check.PARAMETERS,
        add_code("folds_to_train = 1"),
        "they set: ['folds_to_train']",
    ),
    "encoder not attached": (
        Check.HUB_CLOSED,
        edit_metadata(dataset_sources=["alice/questlib-wheels"]),
        "questlib-encoder",
    ),
    "GPU without a machine": (Check.MACHINE, edit_metadata(machine_shape=...), "machine_shape must be one of"),
    "code that does not parse": (Check.NOTEBOOK, add_code("def broken(:"), "cell seeded"),
    "retired machine": (Check.MACHINE, edit_metadata(machine_shape="NvidiaTeslaP100"), "NvidiaTeslaP100"),
    "notebook over 700 KB": (Check.SIZE, add_code("word = '" + "x" * 710_000 + "'"), "700000 bytes"),
    "kernelspec missing": (Check.NOTEBOOK, edit_notebook(drop_kernelspec), "kernelspec"),
    "cell id twice": (Check.NOTEBOOK, edit_notebook(double_id), "missing or doubled: ["),
    "cell id missing": (Check.NOTEBOOK, edit_notebook(drop_id), "missing or doubled: ['None']"),
    "leftover outputs": (Check.TRACES, edit_notebook(leave_outputs), "outputs or counts are left"),
    "path of one machine": (Check.TRACES, add_code("path = '/home/alice/data'"), "/home/alice"),
    "member not of production": (
        Check.PARAMETERS,
        replace_text("'kind': 'lexical'", "'kind': 'transformer'"),
        "the default of members must be",
    ),
    "parameter not of production": (
        Check.PARAMETERS,
        replace_text("folds_to_train: int = 5", "folds_to_train: int = 1"),
        "folds_to",
    ),
    "hub name as encoder": (
        Check.PARAMETERS,
        replace_text("'questlib-encoder'  #", "'bert-base-uncased'  #"),
        "bert-base-uncased",
    ),
    "sys.exit": (Check.CODE, add_code("import sys\nsys.exit(0)"), "must not end or ask, however: sys.exit"),
    "exit by another name": (Check.CODE, add_code("from sys import exit as done\ndone(0)"), "however: done"),
    "exit as an error": (Check.CODE, add_code("raise SystemExit(0)"), "however: SystemExit"),
    **{
        f"{source} at its end": (Check.CODE, add_code(f"import getpass, os, sys\n{source}"), f"ask, however: {named}")
        for source, named in {
            "os.kill(os.getpid(), 9)": "os.kill",
            "getpass.getpass()": "getpass.getpass",
            "sys.stdin.readline()": "sys.stdin",
            "breakpoint()": "breakpoint",
        }.items()
    },
    **{
        f"{source} without a network": (
            Check.CODE,
            add_code(f"import pip, os, requests\n{source}"),
            f"however: {named}",
        )
        for source, named in {
            "requests.get(host)": "requests.get",
            "pip.main(['install', 'foo'])": "pip.main",
            "os.system('pip download foo')": "'pip download foo'",
            "os.system('/usr/bin/pip3.12 install foo')": "'/usr/bin/pip3.12 install foo'",
            "os.system('apt-get install -y strace')": "'apt-get install -y strace'",
        }.items()
    },
    "question to nobody": (Check.CODE, add_code("import builtins\nbuiltins.input()"), "however: builtins.input"),
    "network call": (
        Check.CODE,
        add_code("import urllib.request\nurllib.request.urlopen('https://a.example')"),
        "a.example",
    ),
    "download by a name alone": (
        Check.CODE,
        add_code("from kagglehub import dataset_download\ndataset_download('a/b')"),
        "must fetch nothing, however: dataset_download",
    ),
    "clone as a list of words": (
        Check.CODE,
        add_code("import subprocess\nsubprocess.run(['git', 'clone', 'git@a.example:a/b'])"),
        "must fetch nothing, however: 'git clone",
    ),
    "pip with an index": (Check.CODE, add_code("%pip install einops"), "plain Python"),
    "pip of the notebook's own with an index": (Check.CODE, replace_text("--no-index --no-deps", "--no-deps"), "-q"),
    "pip in a shell": (
        Check.CODE,
        add_code("import os\nos.system('pip install -U torch')"),
        "must give pip --no-index",
    ),
    "pip in a shell of a process": (
        Check.CODE,
        add_code("import subprocess\nsubprocess.run('pip install foo', shell=True)"),
        "must give pip --no-index",
    ),
    "pip by way of the kernel": (
        Check.CODE,
        add_code("get_ipython().run_line_magic('pip', 'install foo')"),
        "must give pip --no-index",
    ),
    "wheel missing": (Check.WHEELS, remove_wheel, "one pure wheel of questlib"),
    "wheel with a wrong hash": (Check.VERSIONS, damage_wheel, "questlib-0"),
    "heavy wheel": (Check.PACKAGES, ship_numpy, "numpy-2.0.0"),
    "wheel that an image does not suffice": (
        Check.PACKAGES,
        ship_wheel('Requires-Dist: numpy>=99; python_version >= "3.13"'),
        "however the image of Python 3.13 has",
    ),
    "wheel of another Python": (
        Check.PACKAGES,
        ship_wheel("Requires-Python: >=3.13"),
        "some-1.0-py3-none-any.whl needs Python >=3.13, however an image has 3.12",
    ),
    "pickled weights": (Check.MANGLED, ship_encoder_file("pytorch_model.bin"), "pytorch_model.bin may be pickled"),
    "pickled weights in capitals": (Check.MANGLED, ship_encoder_file("a.PT"), "a.PT may be pickled"),
    "archive in capitals": (Check.MANGLED, ship_encoder_file("a.ZIP"), "a.ZIP would be unpacked"),
    "archive packed otherwise": (Check.MANGLED, ship_encoder_file("a.tar.xz"), "a.tar.xz would be unpacked"),
    "archive of another kind": (Check.MANGLED, ship_encoder_file("a.rar"), "a.rar would be unpacked"),
    "name that the upload changes": (Check.MANGLED, ship_encoder_file("vocab+extra.txt"), "vocab+extra.txt"),
    "dataset missing": (Check.DATASETS, forget_dataset, "questlib-encoder"),
    "old manifest": (Check.VERSIONS, age_manifest, "older than the source"),
    "hub open at the first import": (
        Check.HUB_CLOSED,
        replace_text("HF_HUB_OFFLINE", "HF_HUB_SOMETHING"),
        "before HF_HUB_OFFLINE",
    ),
    "hub closed in a word alone": (
        Check.HUB_CLOSED,
        add_code("name = 'HF_HUB_OFFLINE'\nimport transformers", first=True),
        "cell seeded imports ['transformers'] before",
    ),
    "hub closed after the import": (
        Check.HUB_CLOSED,
        add_code("import os\nimport transformers\nos.environ['HF_HUB_OFFLINE'] = '1'", first=True),
        "cell seeded imports ['transformers'] before",
    ),
    "hub closed and opened": (
        Check.HUB_CLOSED,
        add_code(
            "import os\nos.environ['HF_HUB_OFFLINE'] = '1'\nos.environ.pop('HF_HUB_OFFLINE')\nimport datasets",
            first=True,
        ),
        "cell seeded imports ['datasets'] before",
    ),
    "hub opened": (
        Check.HUB_CLOSED,
        add_code("import os\nos.environ['HF_HUB_OFFLINE'] = '0'\nimport transformers", first=True),
        "cell seeded imports ['transformers'] before",
    ),
}


def prepend_mark(bundle: Path) -> None:
    path = bundle / "train/kernel-metadata.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def test_checks_are_thirty_and_numbered_in_order() -> None:
    assert [check.number for check in Check] == list(range(1, 31))


def test_a_clean_bundle_fails_no_check(rehearsal: Rehearsal) -> None:
    found = list(check_statically(rehearsal.order, rehearsal.bundle))
    seen = {one.check.number for one in found if one.state == PASSED}
    assert seen >= {*range(1, 7), 8, *range(11, 15), 17, *range(19, 23), 27, 30}
    assert failed_checks(rehearsal) == {}


@pytest.mark.parametrize("profile", TRAINED)
def test_a_kernel_of_every_profile_passes_but_for_a_limit_that_it_lacks(
    profile: str, project: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    order = replace(order_of(project, encoder_folder), profile=profile, overrides={})
    values = order.choose_parameters()
    encoder = str(encoder_folder.parent / "encoder")  # those that it names are not all here
    members = [member | ({"encoder": encoder} if "encoder" in member else {}) for member in values["members"]]
    overrides = {"encoder": encoder, "members": members, "max_length": 64, "freeze_layers": 1}
    order = replace(order, overrides=overrides)
    found = summarize(check_order(order, tmp_path))
    limit = values["time_limit_minutes"]
    assert [one.check for one in found if one.state == FAILED] == ([] if limit else [Check.TIME])
    assert read_json(tmp_path / "train/kernel-metadata.json")["enable_gpu"] == (limit <= 120)


@pytest.mark.parametrize("profile", TRAINED)
def test_work_for_hours_is_that_for_every_stage_of_every_member(profile: str, project: Path) -> None:
    values = Order(project=project, kernel="train", owner="alice", profile=profile).choose_parameters()
    trained = [member for member in values["members"] if member["kind"] == "transformer"]
    trained[0]["patience"] = 2
    source = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    cell = {"source": source, "metadata": {"tags": ["parameters"]}}
    changed = read_cell(json.loads(_shorten_limit(json.dumps({"cells": [cell]})))["cells"][0]["source"])
    members = [each for each in Recipe.from_parameters(changed).members if isinstance(each, TransformerRecipe)]
    assert len(members) == len(trained)
    assert {stage.epochs for member in members for stage in member.stages} == {300}
    assert {member.settings.patience for member in members} == {0}


@pytest.mark.parametrize(("minutes", "fails"), [(0, True), (119, False), (540, False), (600, True)])
def test_a_kernel_must_end_within_what_its_machine_is_given(
    minutes: float, fails: bool, project: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    order = order_of(project, encoder_folder, time_limit_minutes=minutes)
    [found] = [one for one in check_order(order, tmp_path) if one.check is Check.TIME]
    assert (found.state == FAILED) == fails
    assert f"time_limit_minutes is {minutes}" in found.evidence


@pytest.mark.parametrize("manifest", ["{}", '{"fingerprint": "0", "files": []}'])
def test_a_manifest_that_is_none_is_told_in_words(manifest: str, rehearsal: Rehearsal) -> None:
    write_file("datasets/questlib-encoder/manifest.json", manifest)(rehearsal.bundle)
    with pytest.raises(
        ValueError, match=r"manifest\.json must tell files and fingerprint, however not so; write the b"
    ):
        failed_checks(rehearsal)


@pytest.mark.parametrize("name", FAULTS)
def test_seeded_fault_fails_its_check(name: str, rehearsal: Rehearsal) -> None:
    check, seed, words = FAULTS[name]
    seed(rehearsal.bundle)
    found = failed_checks(rehearsal)
    assert check in found
    assert words in found[check]


def test_older_wheels_are_whole_in_themselves(rehearsal: Rehearsal, tmp_path: Path) -> None:
    # The kernel computes what it is given from the files: a manifest that only says otherwise proves nothing.
    wheels = rehearsal.bundle / "datasets/questlib-wheels"
    twin = Twin(image="here", folder=tmp_path, versions="", stands_in="")
    text = (rehearsal.kernel_folder / "quest.ipynb").read_text()
    base = Session(text=text, twin=twin, owner="alice", datasets=[wheels], competition=None)
    [older] = _list_probes(base, rehearsal)[0].datasets
    assert older.name == wheels.name
    assert read_fingerprint(older) == fingerprint_of(hash_files(older)) != read_fingerprint(wheels)


def test_a_hub_that_is_closed_in_the_cell_that_imports_is_closed(rehearsal: Rehearsal) -> None:
    add_code("import os\nos.environ['HF_HUB_OFFLINE'] = '1'\nimport transformers", first=True)(rehearsal.bundle)
    assert failed_checks(rehearsal) == {}


@pytest.mark.parametrize(
    ("cache", "fails"), [("/srv/alice/cache", True), ("/kaggle/working/c", False), ("/tmp/c", False), ("~/c", False)]
)
def test_a_parameter_holds_no_path_but_one_that_kaggle_has(
    cache: str, fails: bool, project: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    order = order_of(project, encoder_folder, cache=cache)
    found = {one.check: one.evidence for one in check_order(order, tmp_path) if one.state == FAILED}
    assert found == ({Check.TRACES: f"paths of one machine: ['{cache}']"} if fails else {})


def test_a_kernel_that_may_ask_the_hub_fails_its_check(project: Path, encoder_folder: Path, tmp_path: Path) -> None:
    order = order_of(project, encoder_folder, use_internet=True)
    [found] = [one for one in check_order(order, tmp_path) if one.state == FAILED]
    assert found.check is Check.HUB_CLOSED
    assert "use_internet must be False, however: True" in found.evidence


def test_rehearsal_ends_and_records_where_a_check_fails_before_anything_runs(rehearsal: Rehearsal) -> None:
    edit_metadata(enable_internet=True)(rehearsal.bundle)
    found = rehearse(rehearsal)
    assert [one.check for one in found] == list(Check)
    assert [one.check for one in found if one.state == FAILED] == [Check.INTERNET_OFF]
    assert read_json(rehearsal.bundle / "train/rehearsal.json")["passed"] is False
    lines = tabulate(found, not_run="because of what failed").splitlines()
    assert lines[-1] == "16 passed, 1 partly checkable here, 12 not run, 1 FAILED"
    assert lines[-2].split()[:4] == ["2", "FAILED", "the", "internet"]
    assert lines[-3].split() == "not run because of what failed: 7, 9, 10, 15, 16, 18, 23, 24, 25, 26, 28, 29".split()
    assert len(lines) == 16 + 1 + 1 + 1 + 1


def test_bundle_checks_what_it_wrote_before_anything_runs(
    project: Path,
    encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project"))
    chosen = ["--encoder", str(encoder_folder), "-p", "max_length", "64", "-p", "members", json.dumps(TWO)]
    assert main(["bundle", "--owner", "alice", *chosen]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "17 passed, 1 partly checkable here, 12 not run, 0 FAILED"
    assert "`make rehearse` runs: 7, 9, 10" in lines[-2]
    write_json(Path("kernel-metadata.json"), read_json(Path("kernel-metadata.json")) | {"enable_internet": True})
    assert main(["bundle", "--owner", "alice", *chosen]) == 1
    assert "enable_internet must be false" in capsys.readouterr().out.splitlines()[-2]


def test_summary_lets_one_failure_outweigh_what_passed_and_counts_what_was_seen_in_part() -> None:
    found = [
        Finding(check=Check.NAMES, state=PASSED, evidence="fine"),
        Finding(check=Check.NAMES, state=FAILED, evidence="broken"),
        Finding(check=Check.NAMES, state=UNCHECKED, evidence="no GPU"),
        Finding(check=Check.CODE_FILE, state=PASSED, evidence="fine"),
        Finding(check=Check.CODE_FILE, state=UNCHECKED, evidence="no GPU"),
        Finding(check=Check.SIZE, state=UNCHECKED, evidence="no scales"),
        Finding(check=Check.CLIENT, state=PASSED, evidence="2.2.4"),
    ]
    summary = {one.check: one for one in summarize(found)}
    seen = {check: (one.state, one.evidence) for check, one in summary.items() if one.state != NOT_RUN}
    assert seen == {
        Check.NAMES: (FAILED, "broken"),
        Check.CODE_FILE: (PARTLY, "fine; not checkable here: no GPU"),
        Check.SIZE: (UNCHECKED, "no scales"),
        Check.CLIENT: (PASSED, "2.2.4"),
    }
    lines = tabulate(list(summary.values()), not_run="`make rehearse` runs").splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["10", "4", "8"]  # what passed comes first
    assert lines[3].startswith("    not run                `make rehearse` runs: 1, 2, 5, 6, 7, 9, 11, ")
    assert lines[4].split()[:2] == ["3", "FAILED"]  # right above the summary
    assert lines[5] == "1 passed, 1 partly checkable here, 1 not checkable here, 26 not run, 1 FAILED"


def test_lock_of_wheels_pins_each_by_hash(tmp_path: Path) -> None:
    assert set(read_lock(ROOT / "wheels/requirements.lock")) == {"bitsandbytes==0.50.2"}
    path = tmp_path / "lock"
    path.write_text("einops==1.0\n")
    with pytest.raises(ValueError, match="hash=sha256:digest, however: 'einops==1.0'"):
        read_lock(path)
