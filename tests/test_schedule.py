"""A run under a time limit: planned from what was measured, kept to, and told."""

import time
from dataclasses import replace

import pytest
import torch
import toy

from questlib.clock import Clock
from questlib.data import read_tables
from questlib.folds import _measure as measure_members
from questlib.folds import train_members
from questlib.parallel import Workers
from questlib.plan import NOTHING, Share, Speed
from questlib.recipe import LexicalRecipe, Recipe
from questlib.report import summarize_course
from questlib.run_folder import TIMELINE, read_json
from questlib.schedule import Schedule
from questlib.standing import Standing
from questlib.tasks import FinishedFold, FoldTask
from questlib.training.checkpoint import Checkpoint, Checkpoints


@pytest.fixture
def long_recipe(encoder_folder) -> Recipe:
    """Two folds of forty epochs, three steps each: 24 seconds by the slow clock."""
    member = toy.build_recipe(encoder_folder, stages=(replace(toy.STAGE, epochs=40.0),), folds_to_train=2)
    settings = replace(member.settings, patience=0, evaluate_every=40)
    return Recipe(members=(replace(member, settings=settings), LexicalRecipe(folds_to_train=2)), folds=3)


def run_limited(recipe, toy_folder, tmp_path, *, seconds: float):
    run_folder = tmp_path / "run"
    clock = Clock(run_folder, limit_minutes=seconds / 60, session_start=time.time())
    tables = read_tables(str(toy_folder))
    submission = train_members(tables, recipe, run_folder=run_folder, cache_folder=tmp_path / "cache", clock=clock)
    return clock.elapsed, submission, read_json(run_folder / TIMELINE)


def test_run_ends_within_its_limit_and_says_what_it_planned_and_what_it_left_out(
    slow_clock, long_recipe, toy_folder, tmp_path
):
    member, lexical = long_recipe.members
    member = replace(member, stages=(replace(toy.STAGE, epochs=400.0),))
    recipe = replace(long_recipe, members=(member, lexical))
    took, submission, timeline = run_limited(recipe, toy_folder, tmp_path, seconds=30)
    assert len(submission) == 6
    assert 20 < took < 30 - 8  # seconds that are kept for what comes after
    first, *_ = timeline["plan"]
    assert first["plan"].startswith("fits: ")
    assert " of 400 epochs of toy, 2 folds of lexical; ends at minute 0" in first["plan"]
    assert timeline["limit_seconds"] == 30
    table = summarize_course(tmp_path / "run")
    assert table["what"].tolist()[0] == "time limit 0.5 min"
    assert first["plan"] in table["what"].tolist()
    history = read_json(tmp_path / "run" / "members" / "toy" / "fold-0" / "history.json", of=list)
    rates = [record["learning_rate"] for record in history if "learning_rate" in record]
    assert history[-1]["epoch"] < 400
    assert rates[-1] < max(rates) / 4  # the schedule was that of what really ran


def test_limit_that_is_too_short_for_anything_leaves_what_stood(slow_clock, long_recipe, toy_folder, tmp_path):
    took, submission, timeline = run_limited(long_recipe, toy_folder, tmp_path, seconds=4)
    assert len(submission) == 6
    assert took < 4
    assert any(
        note["note"].startswith("left out, for want of time: toy, fold 0, toy, fold 1") for note in timeline["notes"]
    )


def test_limit_of_the_past_leaves_a_submission_whose_score_is_known(toy_folder, tmp_path):
    # Three questions in a fold: one fold alone cannot be scored.
    recipe = Recipe(members=(LexicalRecipe(folds_to_train=5),), folds=5)
    _, submission, _ = run_limited(recipe, toy_folder, tmp_path, seconds=0.01)
    assert len(submission) == 6
    assert read_json(tmp_path / "run" / "ensemble.json")["folds"] == {"lexical": [0, 1]}


def test_higher_limit_extends_the_run(long_recipe, toy_folder, tmp_path):
    run_limited(long_recipe, toy_folder, tmp_path, seconds=1)
    assert "toy" not in read_json(tmp_path / "run" / "ensemble.json")["folds"]
    _, _, timeline = run_limited(long_recipe, toy_folder, tmp_path, seconds=600)
    assert len(timeline["earlier"]) == 1
    assert read_json(tmp_path / "run" / "ensemble.json")["folds"]["toy"] == [0, 1]


@pytest.fixture
def schedule(toy_folder, long_recipe, tmp_path):
    """A schedule under a limit of 1000 s, and its two slow folds."""
    tables = read_tables(str(toy_folder))
    clock = Clock(tmp_path / "run", limit_minutes=1000 / 60)
    standing = Standing(tables, long_recipe, run_folder=tmp_path / "run", clock=clock)
    made = Schedule(long_recipe, clock=clock, standing=standing)
    tasks = [
        FoldTask(
            member=long_recipe.members[0], fold=fold, fold_of_row=[], tables=tables, run_folder=tmp_path / "run",
            cache_folder=tmp_path / "cache",
        )
        for fold in range(2)
    ]  # fmt: skip
    return made, [replace(task, fold_of_row=tables.train.index.to_numpy() % 3) for task in tasks]


def speed(seconds_per_epoch: float) -> Speed:
    return Speed(before=0.0, stages=(0.0,), epochs=(seconds_per_epoch,), row=0.0, after=0.0)


def test_what_fits_is_planned_whole(schedule):
    made, tasks = schedule
    made.speeds["toy"] = speed(2.5)
    planned = made.plan(tasks, running=[], n_devices=1)
    assert planned.share == Share(epochs=1.0)
    # The fold may run into the time that is left over, but not into that of the next one.
    assert planned.deadline - time.monotonic() == pytest.approx(1000 - 100 - 8, abs=5)


def test_reading_the_test_through_frozen_layers_after_the_fit_has_its_time(schedule):
    made, tasks = schedule
    made.speeds["toy"] = speed(2.5)
    without = made.plan(tasks[:1], running=[], n_devices=1).deadline
    made.speeds["toy"] = replace(speed(2.5), read_train=200.0, read_test=30.0)
    assert without - made.plan(tasks[:1], running=[], n_devices=1).deadline == pytest.approx(1.1 * 30.0, abs=3)


def test_what_does_not_fit_is_shortened(schedule):
    made, tasks = schedule
    made.speeds["toy"] = speed(17.5)
    planned = made.plan(tasks, running=[], n_devices=1)
    assert 0.5 < planned.share.epochs < 0.8
    made.speeds["toy"] = speed(250.0)
    assert made.plan(tasks, running=[], n_devices=1).share.first_stage_alone


def with_a_small_member(tasks: list[FoldTask]) -> list[FoldTask]:
    """The first folds of the slow member and of a small one, then their second folds."""
    small = [replace(task, member=replace(task.member, name="small")) for task in tasks]
    return [task for pair in zip(tasks, small, strict=True) for task in pair]


def test_members_are_measured_only_while_there_is_time_left_to_train_them(schedule, monkeypatch):
    made, tasks = schedule
    measured, left = [], [1.0, 0.0, 0.0]
    monkeypatch.setattr(Schedule, "left", property(lambda _: left[len(measured)]))
    monkeypatch.setattr("questlib.folds.measure_fold", lambda task: measured.append(task.name) or speed(1.0))
    for told in (["toy, fold 0"], ["toy, fold 0"]):  # a second time, there is none from the start
        with Workers([torch.device("cpu")]) as workers:
            measure_members(with_a_small_member(tasks), workers, made)
        assert measured == told
    assert list(made.speeds) == ["toy"]


@pytest.mark.parametrize(
    ("seconds_per_epoch", "first", "told"),
    [
        (40.0, "toy, fold 0", "fits: 1 of 2 folds x "),
        (60.0, "small, fold 0", "fits: 0 of 2 folds of toy"),
    ],
)
def test_members_of_whose_first_fold_not_even_half_fits_come_after_those_that_fit(
    schedule, seconds_per_epoch, first, told, caplog
):
    made, tasks = schedule
    made.speeds |= {"toy": speed(seconds_per_epoch), "small": speed(12.2)}
    with caplog.at_level("INFO"):
        assert made.plan(with_a_small_member(tasks), running=[], n_devices=1).name == first
    assert told in caplog.text


def test_member_that_is_too_slow_takes_what_the_others_leave(schedule):
    made, tasks = schedule
    made.speeds |= {"toy": speed(60.0), "small": speed(60.0)}
    slow, small, *later = with_a_small_member(tasks)
    assert made.plan([slow, small, *later], running=[], n_devices=1).name == slow.name  # all are
    made.speeds["small"] = speed(5.0)
    assert made.plan([slow, small, *later], running=[], n_devices=1).name == small.name
    last = made.plan([slow, later[0]], running=[], n_devices=1)
    assert last.name == slow.name
    assert last.share.first_stage_alone


def test_fold_that_was_begun_goes_on_however_slow_its_member_is(schedule, monkeypatch):
    made, tasks = schedule
    made.speeds |= {"toy": speed(60.0), "small": speed(5.0)}
    progress = {"toy, fold 0": (Share(epochs=0.4), 0, 1.0)}
    monkeypatch.setattr(FoldTask, "read_progress", lambda task: progress.get(task.name))
    assert made.plan(with_a_small_member(tasks), running=[], n_devices=1).name == "toy, fold 0"


def test_fold_whose_planned_share_is_damaged_on_disk_is_planned_anew(schedule):
    _, (task, _) = schedule
    Checkpoints(task.checkpoint_folder).write(Checkpoint(tensors={}, state={"stage": 0, "epochs": 1.0}))
    path = task.checkpoint_folder / "share.json"
    for content, expected in (('{"epochs": 0.5}', (HALF, 0, 1.0)), ("", None)):
        path.write_text(content, encoding="utf-8")
        assert task.read_progress() == expected


ALONE, HALF = Share(epochs=0.1, first_stage_alone=True), Share(epochs=0.5)


@pytest.mark.parametrize(
    ("kept", "seconds_per_epoch", "expected"),
    [
        (ALONE, 2.5, Share(epochs=1.0)), (ALONE, 40.0, Share(epochs=0.62)), (ALONE, 245.0, ALONE),
        (HALF, 2.5, Share(epochs=1.0)), (HALF, 40.0, Share(epochs=0.62)), (HALF, 49.0, HALF),
    ],
)  # fmt: skip
def test_fold_that_a_limit_had_shortened_takes_the_time_that_there_is_now(
    kept, seconds_per_epoch, expected, schedule, tmp_path, monkeypatch
):
    made, tasks = schedule
    monkeypatch.setattr(FoldTask, "read_progress", lambda _: (kept, 0, 0.1))
    made.speeds["toy"] = speed(seconds_per_epoch)
    planned = made.plan(tasks[:1], running=[], n_devices=1).share
    assert planned.epochs == pytest.approx(expected.epochs, abs=0.01)
    assert planned.first_stage_alone == expected.first_stage_alone
    made.clock = Clock(tmp_path / "run")
    assert made.plan(tasks, running=[], n_devices=1).share == Share(epochs=1.0)


def test_fold_that_was_slower_than_a_few_steps_told_makes_the_next_one_shorter(schedule):
    made, tasks = schedule
    made.speeds["toy"] = speed(10.0)
    first = made.plan(tasks, running=[], n_devices=1)
    assert first.share == Share(epochs=1.0)
    made.learn(first, FinishedFold(fit_seconds=1200.0, predict_seconds=0.0, epochs=(40.0,), notes=[]))
    second = made.plan(tasks[1:], running=[], n_devices=1)
    assert second.share.epochs < 1.0
    assert second.share != NOTHING


def test_without_a_limit_nothing_is_measured_and_all_is_trained(toy_folder, tmp_path, toy_recipe, monkeypatch):
    monkeypatch.setattr("questlib.folds.measure_fold", None)
    run_folder = tmp_path / "run"
    tables = read_tables(str(toy_folder))
    train_members(tables, toy_recipe, run_folder=run_folder, cache_folder=tmp_path / "cache", clock=Clock(run_folder))
    timeline = read_json(run_folder / TIMELINE)
    assert timeline["plan"] == timeline["notes"] == []
    assert "limit_seconds" not in timeline
