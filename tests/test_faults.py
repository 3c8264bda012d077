"""What breaks takes with it as little as can be: a fold is tried again, others go on, what stood still stands."""

import errno
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import toy
from safetensors import SafetensorError

from questlib import folds, standing, tasks
from questlib.clock import Clock
from questlib.data import read_tables
from questlib.folds import train_members
from questlib.members import TransformerMember
from questlib.model import QuestModel
from questlib.parallel import Workers
from questlib.recipe import LexicalRecipe, Recipe
from questlib.run_folder import TIMELINE, UNFINISHED, DiskFull, name_unfinished, read_json, told_when_full, write_json
from questlib.schema import RARE_TARGET, TARGETS
from questlib.scores import combine_members

CPU = torch.device("cpu")


def notes_of(run_folder) -> list[str]:
    return [note["note"] for note in read_json(run_folder / TIMELINE)["notes"]]


LOST = RuntimeError("CUDA error: device lost")


def fail_in(monkeypatch, name, *, times, error=LOST):
    failed = []

    def train(task):
        if task.name == name and len(failed) < times:
            failed.append(1)
            raise error
        return tasks.train_fold(task)

    monkeypatch.setattr(folds, "train_fold", train)


def test_fold_that_fails_once_is_tried_again_and_nothing_is_missing(train_toy, toy_recipe, trained, monkeypatch):
    fail_in(monkeypatch, "toy, fold 0", times=1)
    run = train_toy(toy_recipe)
    assert run.submission.equals(trained.submission)
    assert notes_of(run.run_folder) == ["toy, fold 0: failed and is tried once more: CUDA error: device lost"]


def test_fold_that_fails_twice_is_left_out_and_the_others_make_the_submission(train_toy, toy_recipe, monkeypatch):
    fail_in(monkeypatch, "toy, fold 0", times=2)
    run = train_toy(toy_recipe)
    assert "toy, fold 0: failed again and is left out: CUDA error: device lost" in notes_of(run.run_folder)
    stands_on = read_json(run.run_folder / "ensemble.json")["folds"]
    assert stands_on["toy"] == [1]
    assert stands_on["lexical"] == [0, 1]


def test_run_of_which_nothing_could_be_finished_is_an_error(train_toy, lexical_recipe, monkeypatch):
    recipe = replace(lexical_recipe, members=(replace(lexical_recipe.members[0], folds_to_train=1),))
    fail_in(monkeypatch, "lexical, fold 0", times=2)
    with pytest.raises(RuntimeError, match="device lost"):
        train_toy(recipe)


def test_mistake_is_told_at_once_and_not_tried_again(train_toy, toy_recipe, monkeypatch):
    fail_in(monkeypatch, "toy, fold 0", times=9, error=ValueError("no such column"))
    with pytest.raises(ValueError, match="no such column"):
        train_toy(toy_recipe)


def die_once(task):
    """As the system ends a process when memory runs out; of an importable module, because processes start afresh."""
    mark = task.cache_folder / f"died-{task.name}"
    if task.name == "toy, fold 1" and not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os._exit(9)
    return tasks.train_fold(task)


def test_process_that_dies_is_started_once_more_and_the_others_go_on(train_toy, toy_recipe, monkeypatch):
    monkeypatch.setattr(folds, "train_fold", die_once)
    run = train_toy(toy_recipe, devices=[CPU, CPU])
    assert notes_of(run.run_folder) == ["toy, fold 1: failed and is tried once more: its process ended with status 9"]
    assert read_json(run.run_folder / "ensemble.json")["folds"] == {"toy": [0, 1], "lexical": [0, 1]}


def test_encoder_that_is_not_finite_is_refused_before_training(train_toy, encoder_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(encoder_folder, tmp_path / "spoilt")
    weights = load_file(folder / "model.safetensors")
    name = next(each for each in weights if "query.weight" in each)
    weights[name][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights in .*spoilt must be finite, however not in 1, such"):
        train_toy(Recipe(members=(toy.build_recipe(folder),), folds=3))


def test_member_that_predicts_no_numbers_is_left_out_and_told(train_toy, encoder_folder, monkeypatch):
    def predict(self, frame, rows):
        return np.full((len(rows), len(TARGETS)), np.nan)

    monkeypatch.setattr(TransformerMember, "_predict", predict)
    member = toy.build_recipe(encoder_folder, folds_to_train=1)
    run = train_toy(Recipe(members=(member, LexicalRecipe()), folds=3))
    told = "toy, fold 0: failed again and is left out: member 'toy' must predict numbers, however not in "
    assert any(note.startswith(told) for note in notes_of(run.run_folder))
    assert read_json(run.run_folder / "ensemble.json")["folds"] == {"lexical": [0]}


def test_input_that_vanishes_after_the_check_is_named(train_toy, encoder_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(encoder_folder, tmp_path / "bert")
    original = tasks.train_fold

    def train(task):
        shutil.rmtree(folder)
        return original(task)

    monkeypatch.setattr(folds, "train_fold", train)
    with pytest.raises(FileNotFoundError, match=f"the encoder folder '{folder}' does not exist"):
        train_toy(Recipe(members=(toy.build_recipe(folder),), folds=3))


# The disk


class FullAt:
    """A disk that is full at the n-th thing that is written."""

    def __init__(self, monkeypatch, number) -> None:
        self.left, self.names = number, []
        for module in ("run_folder", "marks"):
            monkeypatch.setattr(f"questlib.{module}.name_unfinished", self._name)

    def _name(self, path):
        self.left -= 1
        self.names.append(path.name)
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return name_unfinished(path)


def test_full_disk_at_every_write_leaves_what_stood_and_is_told(toy_folder, lexical_recipe, tmp_path, monkeypatch):
    tables = read_tables(str(toy_folder))
    recipe = replace(lexical_recipe, members=(replace(lexical_recipe.members[0], folds_to_train=1),))

    def train(run_folder):
        return train_members(
            tables, recipe, run_folder=run_folder, cache_folder=tmp_path / "cache", clock=Clock(run_folder)
        )

    expected = train(tmp_path / "whole")
    n_writes = 0
    while True:
        n_writes += 1
        run_folder = tmp_path / f"run-{n_writes}"
        with monkeypatch.context() as patch:
            disk = FullAt(patch, n_writes)
            if n_writes > 100:
                raise AssertionError("it never ended")
            found = None
            try:
                train(run_folder)
            except DiskFull as error:
                found = str(error)
        if found is None:
            break
        assert "the disk must have room for " in found
        assert disk.names[-1] in found
        assert not list(run_folder.rglob(".unfinished-*"))
        if (run_folder / "submission.csv").exists():
            assert len((run_folder / "submission.csv").read_text().splitlines()) == len(tables.test) + 1
        if n_writes % 5 == 0:
            assert train(run_folder).equals(expected)
    assert n_writes > 12


def test_full_disk_is_told_where_the_speed_is_measured_and_where_evaluations_are_logged(
    toy_folder, encoder_folder, tmp_path, monkeypatch
):
    tables, written = read_tables(str(toy_folder)), []
    recipe = Recipe(members=(toy.build_recipe(encoder_folder, folds_to_train=1), LexicalRecipe()), folds=3)

    def train(limit):
        clock = Clock(tmp_path / "run", limit_minutes=limit)
        train_members(tables, recipe, run_folder=tmp_path / "run", cache_folder=tmp_path / "cache", clock=clock)

    def save(self, folder):
        written.append(Path(folder).name)
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def log(record):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(QuestModel, "save_pretrained", save)
        with pytest.raises(DiskFull, match="the disk must have room for model, however it is full"):
            train(limit=10)
    assert written[0].startswith(UNFINISHED)
    monkeypatch.setattr("questlib.training.progress.json", SimpleNamespace(dumps=log))
    with pytest.raises(DiskFull, match="the disk must have room for evaluations.jsonl, however it is full"):
        train(limit=0)


def test_full_disk_is_told_with_the_bytes_that_were_missing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("questlib.run_folder.shutil.disk_usage", lambda _: usage)
    with pytest.raises(
        DiskFull, match="room for model, however it is full: 1000 bytes were to be written, 900 more than"
    ):
        with told_when_full(tmp_path / "model", size=1000):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_told_without_a_number_where_none_is_known(tmp_path):
    with pytest.raises(DiskFull, match="room for model, however it is full: what stood there before still does; make"):
        with told_when_full(tmp_path / "model"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_of_the_disk_are_left_as_they_are(tmp_path):
    with pytest.raises(PermissionError), told_when_full(tmp_path / "model"):
        raise PermissionError("no")
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}


# What stands


def test_worse_submission_does_not_take_the_place_of_a_better_one(train_toy, toy_recipe, monkeypatch):
    worse = []

    def compare(tables, standing, candidate):
        worse.append(candidate)
        return (-0.1, 0.01, 9) if len(worse) == 2 else (0.0, 0.1, 9)

    monkeypatch.setattr("questlib.standing.compare", compare)
    run = train_toy(toy_recipe)
    (note,) = notes_of(run.run_folder)
    assert note.startswith("the submission stays as it is: with folds of toy 1, lexical 2 it would be worse, -0.1000")
    assert len(worse) == 3
    assert read_json(run.run_folder / "ensemble.json")["folds"] == {"toy": [0, 1], "lexical": [0, 1]}


def test_submission_is_said_to_be_replaced_only_once_it_was(train_toy, lexical_recipe, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    run = train_toy(lexical_recipe)
    assert caplog.text.count("the submission is replaced") == 1
    stands = standing.Standing(run.tables, run.recipe, run_folder=run.run_folder, clock=Clock(run.run_folder))
    stands.finished = {"lexical": [0, 1]}
    write = standing.write_submission
    monkeypatch.setattr(standing, "write_submission", lambda path, predictions, **o: write(path, predictions * 0, **o))
    stands.replace()
    assert caplog.text.count("the submission is replaced") == 1
    assert "what stood stays: no column may be constant" in notes_of(run.run_folder)[-1]


def test_first_submission_stands_before_any_slow_member_and_is_replaced_after_every_fold(
    train_toy, toy_recipe, monkeypatch
):
    seen = []

    def train(task):
        path = task.run_folder / "submission.csv"
        seen.append((task.name, path.read_bytes() if path.exists() else None))
        return tasks.train_fold(task)

    monkeypatch.setattr(folds, "train_fold", train)
    run = train_toy(toy_recipe)
    assert [name for name, _ in seen] == ["lexical, fold 0", "lexical, fold 1", "toy, fold 0", "toy, fold 1"]
    stood = [content for _, content in seen] + [(run.run_folder / "submission.csv").read_bytes()]
    assert stood[0] is None
    assert all(content is not None for content in stood[1:])
    assert len(set(stood)) == len(stood)


def test_without_a_quick_member_another_stands_in_until_a_fold_is_finished(train_toy, toy_recipe, monkeypatch):
    seen = []

    def train(task):
        seen.append((task.run_folder / "submission.csv").is_file())
        return tasks.train_fold(task)

    monkeypatch.setattr(folds, "train_fold", train)
    run = train_toy(replace(toy_recipe, members=toy_recipe.members[:1]))
    assert seen == [True, True]
    assert list(read_json(run.run_folder / "ensemble.json")["folds"]) == ["toy"]


def test_member_that_shares_no_fold_with_the_others_is_not_blended(trained, toy_recipe, tmp_path):
    from questlib.standing import Standing

    stands = Standing(trained.tables, toy_recipe, run_folder=trained.run_folder, clock=Clock(tmp_path))
    stands.finished = {"toy": [1], "lexical": [0]}
    assert stands._choose() == {"toy": [1]}


def test_one_call_on_one_device_is_made_here_and_others_in_processes_of_their_own():
    with Workers([CPU]) as workers:
        workers.start("one", os.getpid)
        assert workers.wait() == ("one", os.getpid())
    with Workers([CPU, CPU]) as workers:
        workers.start("one", os.getpid)
        workers.start("two", os.getpid)
        assert not workers.is_free
        found = dict(workers.wait() for _ in range(2))
    assert set(found) == {"one", "two"}
    assert os.getpid() not in found.values()
    assert len(set(found.values())) == 2


def test_fold_of_too_few_questions_waits_for_the_next_one_and_stands_in_until_then(train_toy, lexical_recipe):
    # 14 questions in seven folds: two in each, of which nothing can be both fitted on and scored.
    recipe = replace(lexical_recipe, folds=7)
    run = train_toy(recipe)
    steps = [step["step"] for step in read_json(run.run_folder / TIMELINE)["steps"]]
    assert steps[:3] == ["lexical, fold 0", "submission that stands in", "lexical, fold 1"]
    assert read_json(run.run_folder / "ensemble.json")["folds"] == {"lexical": [0, 1]}


def test_first_fold_that_leaves_a_column_constant_waits_for_the_next(train_toy, lexical_recipe, monkeypatch):
    written, write = [], standing.write_submission

    def refuse_first(path, predictions, **options):  # noqa: ANN003
        written.append(path)
        if len(written) == 1:
            predictions = predictions * 0
        return write(path, predictions, **options)

    monkeypatch.setattr(standing, "write_submission", refuse_first)
    run = train_toy(lexical_recipe)
    assert len(written) == 2
    assert read_json(run.run_folder / "ensemble.json")["folds"] == {"lexical": [0, 1]}
    (note,) = notes_of(run.run_folder)
    assert note.startswith("no submission could be made of what is finished by now, and what stood stays: no column")
    monkeypatch.setattr(standing, "write_submission", lambda path, predictions, **o: write(path, predictions * 0, **o))
    (run.run_folder / "ensemble.json").unlink()
    with pytest.raises(ValueError, match="no column may be constant"):
        train_toy(lexical_recipe)


def test_run_whose_only_fold_holds_too_few_questions_says_so_at_once(train_toy, lexical_recipe, tmp_path):
    alone = replace(lexical_recipe, members=(replace(lexical_recipe.members[0], folds_to_train=1),), folds=7)
    with pytest.raises(
        ValueError, match="must hold two questions in one of them, or four in the only one, to be scored"
    ):
        train_toy(alone)
    assert not list(tmp_path.rglob("out_of_fold.csv"))  # before anything is trained


def test_ratings_that_do_not_vary_are_refused_at_once(toy_folder, tmp_path, train_toy, lexical_recipe):
    frame = pd.read_csv(toy_folder / "train.csv")
    constant = dict.fromkeys((name for name in TARGETS if name != RARE_TARGET), 0.5)
    frame.assign(**constant).to_csv(toy_folder / "train.csv", index=False)
    with pytest.raises(ValueError, match="must vary in train.csv for a run to be scored, however in the .* rows"):
        train_toy(lexical_recipe)
    assert not list(tmp_path.rglob("out_of_fold.csv"))


def test_combination_of_one_member_is_one_member(trained):
    found = combine_members(trained.tables, {"lexical": [0]}, run_folder=trained.run_folder, leaks=False)
    assert list(found.ensemble["folds"]) == ["lexical"]
    assert len(found.tied) == len(found.ids)
