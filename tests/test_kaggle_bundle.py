import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import plan

from questlib.cache import CACHE
from questlib.inference import predict_table
from questlib.kaggle import twin
from questlib.kaggle.__main__ import main
from questlib.kaggle.bundle import Order, production_parameters, refuse_unready, write_bundle
from questlib.kaggle.kernels import hash_contents, refuse_unrehearsed
from questlib.kaggle.manifest import write_manifest
from questlib.kaggle.twin import find_python, list_images
from questlib.pretrained import find_encoder
from questlib.run_folder import read_json, write_json
from questlib.schema import TARGETS

PROJECT = Path(__file__).parent.parent
TWO = [{"name": "transformer", "kind": "transformer"}, {"name": "lexical", "kind": "lexical"}]


def project_with_wheels(folder: Path) -> Path:
    """The project, with a folder of wheels that holds what describes it alone."""
    for name in ("notebooks", "kernel-metadata.json"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / "wheels").mkdir()
    shutil.copyfile(PROJECT / "wheels/dataset-metadata.json", folder / "wheels/dataset-metadata.json")
    write_manifest(folder / "wheels")
    return folder


def order_of(encoder: str, **changes: Any) -> Order:  # noqa: ANN401
    given = {"kernel": "train", "owner": "alice", "overrides": {"encoder": encoder}} | changes
    return Order(project=PROJECT, **given | {"overrides": {"members": TWO} | given["overrides"]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": "tarin"}, "did you mean 'train'"),
        ({"kernel": "predict"}, "needs a finished run's folder, however none was given"),
        (
            {"kernel": "predict", "run": Path("absent")},
            "needs a finished run's folder, however there is no folder absent",
        ),
        ({"run": Path("absent")}, "a run is for the kernel predict, however: 'train'"),
        ({"profile": "kagle"}, "did you mean 'kaggle'"),
        ({"overrides": {"encodr": "x"}}, "did you mean 'encoder'"),
        ({"overrides": {"members.transformer.max_lenght": 9}}, "did you mean 'max_length'"),
        (
            {"overrides": {"encoder": "bert-base-uncased", "members.transformer.encoder": "./absent"}},
            r"that of a member, however all name their own: 'bert-base-uncased' is none of \['./absent'\]",
        ),
        ({"overrides": {"members.transformer.encoder": "./absent"}}, "encoder folder './absent' does not exist"),
    ],
)
def test_a_bundle_that_cannot_be_is_refused_and_leaves_nothing(
    options: dict, words: str, encoder_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        write_bundle(order_of(str(encoder_folder), **options), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_encoder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"as safetensors, however it holds: \['config.json'\]"):
        write_bundle(order_of(str(tmp_path / "encoder")), tmp_path / "out")


def test_every_encoder_that_members_name_is_a_dataset_of_its_own(encoder_folder: Path, tmp_path: Path) -> None:
    for name in ("some", "some/other", "more/other"):
        shutil.copytree(encoder_folder, tmp_path / name, dirs_exist_ok=True)
    members = [
        {"name": "a", "kind": "transformer", "encoder": str(tmp_path / "some")},
        {"name": "b", "kind": "transformer", "encoder": str(tmp_path / "some/other")},
        {"name": "c", "kind": "transformer", "encoder": str(tmp_path / "more/other"), "layout": "joint"},
        {"name": "d", "kind": "transformer"},
        {"name": "e", "kind": "lexical"},
    ]
    order = order_of(str(tmp_path / "some"), overrides={"encoder": str(tmp_path / "some"), "members": members})
    slugs = ["questlib-some", "questlib-other", "questlib-other-2"]
    assert list(order.name_encoders().values()) == slugs
    assert order.list_datasets() == ["questlib-wheels", *slugs]
    for slug in order.list_datasets():
        (tmp_path / "datasets" / slug).mkdir(parents=True)
        manifest = {"fingerprint": f"print of {slug}", "files": {}}
        write_json(tmp_path / "datasets" / slug / "manifest.json", manifest)
    values = production_parameters(order, datasets=tmp_path / "datasets")
    assert values["fingerprints"] == {slug: f"print of {slug}" for slug in order.list_datasets()}
    assert values["encoder"] == "questlib-some"
    assert [member.get("encoder") for member in values["members"]] == [*slugs, None, None]
    assert str(tmp_path) not in str(values)


def test_an_encoder_is_shipped_whole_and_one_that_does_not_load_is_refused(
    encoder_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    encoder = shutil.copytree(encoder_folder, tmp_path / "parts")
    AutoModel.from_pretrained(encoder_folder).save_pretrained(encoder, max_shard_size="8KB")
    (encoder / "model.safetensors").unlink()
    overrides = {"encoder": str(encoder), "max_length": 64}
    order = replace(order_of(str(encoder), overrides=overrides), project=project_with_wheels(tmp_path))
    write_bundle(order, tmp_path / "out")
    shipped = tmp_path / "out/datasets/questlib-parts"
    assert (shipped / "model.safetensors.index.json").is_file()
    assert len(list(shipped.glob("*.safetensors"))) > 1
    shutil.rmtree(tmp_path / "out")
    for path in encoder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ValueError, match="the tokenizer in"):
        write_bundle(order, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_encoder_that_is_spelt_in_two_ways_is_one_dataset(encoder_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(encoder_folder)
    spelt = [str(encoder_folder), f"{encoder_folder}/", str(tmp_path / "link")]
    members = [
        {"name": f"m{place}", "kind": "transformer", "encoder": name, "max_length": 64}
        for place, name in enumerate([*spelt, "all-MiniLM-L6-v2", str(find_encoder("all-MiniLM-L6-v2"))])
    ]
    order = replace(order_of(spelt[0], overrides={"members": members}), project=project_with_wheels(tmp_path))
    assert len(order.list_datasets()) == 1 + 2
    write_bundle(order, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/datasets").iterdir()) == sorted(order.list_datasets())


def test_a_lexical_run_ships_no_encoder() -> None:
    order = order_of("roberta-base", overrides={"members": [{"name": "lexical", "kind": "lexical"}]})
    assert order.list_datasets() == ["questlib-wheels"]


@pytest.mark.parametrize("names", [("x-2", "x"), ("a/mini-2", "b/mini", "c/mini"), ("wheels",), ("a" * 80, "a" * 90)])
def test_no_two_encoders_share_a_slug(names: tuple[str, ...]) -> None:
    members = [
        {"name": f"m{place}", "kind": "transformer", "encoder": name, "max_length": 64}
        for place, name in enumerate(names)
    ]
    slugs = order_of(names[0], overrides={"members": members}).list_datasets()
    assert len({*slugs}) == len(names) + 1
    assert all(len(slug) <= 50 for slug in slugs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overrides": {"time_limit_mintes": 30}}, "did you mean 'time_limit_minutes'"),
        ({"overrides": {"encoder": "x"}}, "unknown parameter"),
        ({"profile": "no-such-profile"}, "no-such-profile"),
    ],
)
def test_what_is_given_for_the_kernel_predict_is_taken_or_refused(
    options: dict,
    words: str,
    trained: Any,  # noqa: ANN401
) -> None:
    order = Order(project=PROJECT, kernel="predict", owner="alice", run=trained.run_folder)
    given = replace(order, overrides={"time_limit_minutes": 30})
    assert given.choose_parameters() == order.choose_parameters() | {"time_limit_minutes": 30}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        refuse_unready(replace(order, **options))


@pytest.mark.parametrize("name", ["microsoft/deberta-v3-base", "x", "a" * 80, "UPPER_case.name"])
def test_slugs_are_such_as_the_site_takes(name: str) -> None:
    [slug] = order_of(name).name_encoders().values()
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{5,49}", slug)


def test_a_run_is_shipped_with_all_its_members(trained: Any, tmp_path: Path) -> None:  # noqa: ANN401
    order = Order(project=PROJECT, kernel="predict", owner="alice", run=trained.run_folder)
    order = replace(order, project=project_with_wheels(tmp_path))
    write_bundle(order, tmp_path / "out")
    shipped = tmp_path / "out/datasets/questlib-run"
    again = predict_table(shipped, trained.tables.test, cache_folder=tmp_path / "cache")
    assert np.array_equal(again, trained.submission[list(TARGETS)].to_numpy())


def test_no_file_of_a_bundle_holds_a_path_a_machine_a_user_or_a_token(
    trained: Any,  # noqa: ANN401
    encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"KAGGLE_USERNAME": "bob-the-user", "KAGGLE_KEY": "0123456789", "HF_TOKEN": "hf_0123"}.items():
        monkeypatch.setenv(name, value)
    project = project_with_wheels(tmp_path)
    predicting = Order(project=project, kernel="predict", owner="alice", run=trained.run_folder)
    training = order_of(str(encoder_folder), overrides={"encoder": str(encoder_folder), "max_length": 64})
    for order in (predicting, replace(training, project=project)):
        write_bundle(order, tmp_path / "out")
    secrets = ["bob-the-user", "0123456789", "hf_0123", socket.gethostname(), f"{Path.home()}/", sys.prefix]
    secrets += [str(PROJECT), str(tmp_path), str(trained.run_folder)]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], path


def test_only_what_passed_its_rehearsal_as_it_is_may_be_pushed(tmp_path: Path) -> None:
    for name in ("train", "datasets/questlib-wheels", "datasets/questlib-encoder"):
        (tmp_path / name).mkdir(parents=True)
    sources = ["alice/questlib-wheels", "alice/questlib-encoder"]
    write_json(tmp_path / "train/kernel-metadata.json", {"dataset_sources": sources})
    (tmp_path / "train/quest.ipynb").write_text("{}")
    with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
        refuse_unrehearsed(tmp_path, kernel="train")
    record = {"contents": hash_contents(tmp_path, kernel="train"), "passed": True}
    write_json(tmp_path / "train/rehearsal.json", record)
    refuse_unrehearsed(tmp_path, kernel="train")
    for failed in (record | {"passed": False}, {"passed": True}):
        write_json(tmp_path / "train/rehearsal.json", failed)
        with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
            refuse_unrehearsed(tmp_path, kernel="train")
    write_json(tmp_path / "train/rehearsal.json", record)
    (tmp_path / "datasets/questlib-encoder/vocab.txt").write_text("changed since")
    with pytest.raises(RuntimeError, match="must have passed its rehearsal"):
        refuse_unrehearsed(tmp_path, kernel="train")


@pytest.mark.parametrize("command", ["bundle", "rehearse", "push", "status", "output", "submit"])
@pytest.mark.parametrize("owner", ["", "owner", "OWNER", "Alice Smith", "https://www.kaggle.com/alice", "alice/kernel"])
def test_what_is_no_user_is_refused_before_anything_else(
    command: str, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--owner", owner]) == 1
    assert "OWNER must be your user name on Kaggle, the last part" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bundle_installs_the_encoders_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(name: str) -> None:
        raise RuntimeError(f"installing {name}")

    monkeypatch.setattr("questlib.encoder_parts.INSTALLED", tmp_path)
    monkeypatch.setattr("questlib.encoder_parts.install_encoder", install)
    assert main(["bundle", "--owner", "alice", "--encoder", "all-mpnet-base-v2"]) == 1
    assert "installing all-mpnet-base-v2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("", "no train.csv in the data folder"),
        ("question_title", r"train.csv must hold the columns ['question_title']"),
    ],
)
def test_a_rehearsal_refuses_tables_in_words_before_anything_is_made(
    column: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("questlib.kaggle.__main__._write_bundle", lambda parsed: pytest.fail("written"))
    if column:
        shutil.copytree(PROJECT / "notebooks/sample", tmp_path / "data")
        content = (tmp_path / "data/train.csv").read_text()
        (tmp_path / "data/train.csv").write_text(content.replace(column, "title", 1))
    assert main(["rehearse", "--owner", "alice", "--data", "data"]) == 1
    assert words in capsys.readouterr().err


def test_make_names_no_owner_by_itself() -> None:
    assert plan("bundle", "rehearse", "push").stdout.count("--owner ''") == 3


@pytest.mark.parametrize("target", ["bundle", "run"])
@pytest.mark.parametrize("where", ["environment", "command line"])
def test_make_hands_a_profile_on_wherever_it_was_named(where: str, target: str) -> None:
    named, variables = (["PROFILE=kaggle-cpu"], {}) if where == "command line" else ([], {"PROFILE": "kaggle-cpu"})
    assert "--profile 'kaggle-cpu'" in plan(target, "OWNER=alice", *named, **variables).stdout


def test_commands_that_ask_the_site_load_no_torch() -> None:
    code = "import sys, questlib.kaggle.__main__; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unfinished_run_is_refused_by_the_files_that_it_lacks(trained: Any, tmp_path: Path) -> None:  # noqa: ANN401
    run = Path(shutil.copytree(trained.run_folder, tmp_path / "run"))
    order = Order(project=PROJECT, kernel="predict", owner="alice", run=run)
    (run / "members/lexical/fold-1/done.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"files are missing: members/lexical/fold-1/done\.json; go on"):
        write_bundle(order, tmp_path / "out")
    for name in ("ensemble.json", "done.json"):
        (run / name).unlink()
    missing = r"ensemble\.json, done\.json, members/lexical/fold-1/done\.json; go on"
    with pytest.raises(FileNotFoundError, match=missing):
        write_bundle(order, tmp_path / "out")
    (run / "recipe.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing: ensemble\.json, done\.json; go on"):
        write_bundle(order, tmp_path / "out")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        *((command, "must be written for alice, however: it is not there") for command in ("push", "status", "output")),
        ("submit", "the kernel train of alice must be pushed, however none was from here"),
    ],
)
def test_commands_that_need_a_bundle_say_so(
    command: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--owner", "alice"]) == 1
    assert told in capsys.readouterr().err


def test_images_pin_the_runner_that_kaggle_has() -> None:
    images = list_images()
    assert list(images) == ["3.12", "3.13"]
    for pinned in images.values():
        assert (pinned["nbclient"], pinned["nbconvert"]) == ("0.5.13", "6.4.5")
        assert {"torch", "transformers", "pandas", "scikit-learn"} <= set(pinned)
    assert find_python("3.999") is None


def test_environment_of_an_image_lies_in_the_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(twin, "_run", lambda command: "venv" in command and Path(command[-1]).mkdir(parents=True) or "")
    assert twin.make_twin("3.12").folder.parent == CACHE.expanduser() == tmp_path / ".cache" / "questlib"


def test_template_names_what_the_bundle_attaches() -> None:
    template = read_json(Path(__file__).parent.parent / "kernel-metadata.json")
    attached = Order(project=PROJECT, kernel="train", owner="alice").list_datasets()
    assert template["dataset_sources"] == [f"OWNER/{slug}" for slug in attached]
