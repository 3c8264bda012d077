"""Trials are shared out among processes: none lost, none run twice, whatever is killed."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_markdown_cell
from optuna.trial import Trial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sweeping import read_lines, start_cheap, wait_until, write_sweep

from questlib.data import read_tables
from questlib.run import Interrupted
from questlib.run_folder import write_json
from questlib.sweeps import study as studies
from questlib.sweeps.__main__ import main
from questlib.sweeps.definition import Sweep, name_of, read_sweep
from questlib.sweeps.forecast import forecast
from questlib.sweeps.parent import Parent, environment_of
from questlib.sweeps.results import read_study
from questlib.sweeps.storage import PatientStorage, open_storage
from questlib.sweeps.study import open_existing, open_study
from questlib.sweeps.worker import Worker, suggest

FORTY = "space:\n  x: {low: 0.0, high: 39.0, step: 1.0}\n"


def complete(study) -> list[float]:
    return [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]


def test_four_workers_on_one_file_finish_forty_trials_none_lost_and_none_twice(tmp_path):
    file = write_sweep(tmp_path, FORTY)
    workers = [start_cheap(file, tmp_path / "sweep") for _ in range(4)]
    for worker in workers:
        _, told = worker.communicate(timeout=300)
        assert worker.returncode == 0, told.decode()
    begun = Counter(read_lines(tmp_path / "sweep" / "begun.txt"))
    assert len(begun) == 40
    assert set(begun.values()) == {1}
    study = open_study(read_sweep(file), folder=tmp_path / "sweep", storage=None)
    assert sorted(complete(study)) == [float(number) for number in range(40)]


def test_trial_of_a_killed_worker_is_run_by_another_and_keeps_its_place_in_the_grid(tmp_path):
    file = write_sweep(tmp_path, "space:\n  x: [0.0, 1.0, 2.0]\nparameters: {seconds: 1.0}\n")
    folder = tmp_path / "sweep"
    first = start_cheap(file, folder)
    wait_until(lambda: len(read_lines(folder / "begun.txt")) == 2)
    first.kill()
    first.wait()
    second = start_cheap(file, folder)
    _, told = second.communicate(timeout=120)
    assert second.returncode == 0, told.decode()
    study = open_study(read_sweep(file), folder=folder, storage=None)
    assert sorted(complete(study)) == [0.0, 1.0, 2.0]
    assert Counter(read_lines(folder / "begun.txt")) == {"000": 1, "001": 2, "002": 1}


@pytest.fixture
def sweep(tmp_path):
    return read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\nseeds: [1, 2]\n"))


def test_sweep_can_grow_but_not_become_another(sweep, tmp_path):
    assert studies.count(open_study(sweep, folder=tmp_path, storage=None), TrialState.WAITING) == 4
    more = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\nseeds: [1, 2, 3]\n"))
    assert studies.count(open_study(more, folder=tmp_path, storage=None), TrialState.WAITING) == 6
    other = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 2.0]\nseeds: [1, 2]\n"))
    with pytest.raises(ValueError, match=r"can only go on as it began, however space was .*1\.0.*is .*2\.0"):
        open_study(other, folder=tmp_path, storage=None)


SAMPLED = "space:\n  x: {low: 0.0, high: 1.0}\nsampler: random\nobjective: accuracy\n"


@pytest.mark.parametrize("budget", ["trials: 3", "minutes: 0.001"])
def test_seeds_that_are_added_to_a_finished_sampled_sweep_are_tried_with_the_settings_that_it_has(
    tmp_path, monkeypatch, budget
):
    def train(out, overrides):
        time.sleep(0.03)
        leave_scores(out, overrides)

    def work(seeds: str, budget: str) -> dict:
        sweep = read_sweep(write_sweep(tmp_path, f"{SAMPLED}{budget}\nseeds: {seeds}\n"))
        worker = run_with(sweep, tmp_path, monkeypatch, train)
        worker.work()
        table = read_study(worker.study, trials_folder=tmp_path)
        return {
            setting: dict(zip(group["seed"], group["x"], strict=True)) for setting, group in table.groupby("setting")
        }

    before = work("[1]", budget)
    assert all(set(values) == {1} for values in before.values())
    after = work("[2, 1, 3]", "trials: 3" if budget == "trials: 3" else "minutes: 1\ntrials: 1")
    assert list(after) == list(before)
    for setting, values in after.items():
        assert values == dict.fromkeys((1, 2, 3), before[setting][1])


@pytest.mark.parametrize(
    ("text", "before", "after", "left", "again"),
    [
        ("space:\n  x: [0.0, 1.0]\n", "seeds: [1, 2]", "seeds: [2]", ["000-seed-2", "001-seed-2"], ["001-seed-1"]),
        ("space:\n  x: [0.0, 1.0, 2.0]\n", "", "trials: 2", ["001"], ["002"]),
        (SAMPLED, "trials: 5", "trials: 3", ["001", "002"], ["003", "004"]),
        (SAMPLED, "trials: 2\nseeds: [1, 2]", "trials: 2\nseeds: [1]", ["001-seed-1"], ["000-seed-2"]),
    ],
)
def test_sweep_that_is_made_smaller_has_no_more_trials_than_it_asks_for_and_can_grow_again(
    tmp_path, text, before, after, left, again
):
    def open_with(budget: str):
        sweep = read_sweep(write_sweep(tmp_path, f"{text}{budget}\n"))
        study = open_study(sweep, folder=tmp_path, storage=None)
        waiting = study.get_trials(states=(TrialState.WAITING,))
        return sweep, study, sorted(name_of(each.user_attrs["setting"], each.user_attrs["seed"]) for each in waiting)

    sweep, study, _ = open_with(before)
    trial = study.ask()
    chosen = suggest(sweep, trial)
    study.tell(trial, 0.5)
    if before.endswith("[1, 2]") and sweep.sampler == "random":  # as its worker would have
        studies.queue(study, chosen, setting=0, seed=2)
    assert open_with(after)[2] == left
    assert sorted(read_study(study, trials_folder=tmp_path)["state"]) == ["complete", *["waiting"] * len(left)]
    assert open_with(before)[2] == sorted([*left, *again])


@pytest.mark.parametrize(("before", "after"), [("[]", "[42, 43]"), ("[42]", "[]")])
@pytest.mark.parametrize("space", ["space:\n  x: [0.0, 1.0]\n", SAMPLED + "trials: 2\n"])
def test_seeds_are_not_added_to_a_sweep_that_has_the_profiles_own(tmp_path, space, before, after):
    first = read_sweep(write_sweep(tmp_path, f"{space}seeds: {before}\n"))
    open_study(first, folder=tmp_path, storage=None)
    then = read_sweep(write_sweep(tmp_path, f"{space}seeds: {after}\n"))
    with pytest.raises(ValueError, match="must list seeds from its first trial on or never, however it began with"):
        open_study(then, folder=tmp_path, storage=None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "profiles/sample.yaml").write_text("y: 0.5"), "y of the profile was 0.0, is 0.5"),
        (lambda folder: edit(folder / "cheap.ipynb", "y: float = 0.0", "y: float = 0.5"), "y of the profile was 0.0"),
        (lambda folder: edit(folder / "cheap.ipynb", "seed / 1000", "seed / 100"), "code of cheap.ipynb was"),
    ],
)
def test_sweep_does_not_go_on_with_another_profile_or_notebook(sweep, tmp_path, change, told):
    open_study(sweep, folder=tmp_path, storage=None)
    change(tmp_path)
    changed = Sweep(**{each.name: getattr(sweep, each.name) for each in fields(Sweep)})
    with pytest.raises(ValueError, match="can only go on as it began") as caught:
        open_study(changed, folder=tmp_path, storage=None)
    assert told in str(caught.value)


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_words_beside_a_notebooks_code_may_change(sweep, tmp_path):
    open_study(sweep, folder=tmp_path, storage=None)
    notebook = nbformat.read(tmp_path / "cheap.ipynb", as_version=4)
    notebook.cells.append(new_markdown_cell("A remark."))
    nbformat.write(notebook, tmp_path / "cheap.ipynb")
    assert open_study(sweep, folder=tmp_path, storage=None)


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
@pytest.mark.parametrize("command", ["run", "report"])
def test_sweep_does_not_go_on_and_is_not_reported_on_with_other_tables(tmp_path, toy_folder, capsys, name, command):
    file, folder = write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\n"), tmp_path / "sweep"
    studies.keep_inputs(open_study(read_sweep(file), folder=folder, storage=None), read_tables(toy_folder))
    other = tmp_path / "other"
    shutil.copytree(toy_folder, other)
    frame = pd.read_csv(other / name)
    frame.assign(category=frame["category"].iloc[::-1].to_numpy()).to_csv(other / name, index=False)
    named = ["run", str(file)] if command == "run" else ["report", "--sweep", str(file)]
    assert main([*named, "--data", str(other), "--out", str(folder)]) == 1
    told = capsys.readouterr().err
    assert f"must have the tables and encoders that it began with, however others are given: {name}" in told
    assert not (folder / "trials").exists()


def test_sweep_does_not_go_on_with_another_encoder_of_the_same_name(sweep, tmp_path, toy_folder, encoder_folder):
    shutil.copytree(encoder_folder, tmp_path / "encoder")
    study, tables = open_study(sweep, folder=tmp_path, storage=None), read_tables(toy_folder)
    studies.keep_inputs(study, tables)  # of an older questlib, or with fewer trials
    for _ in range(2):
        studies.keep_inputs(study, tables, encoders=[str(tmp_path / "encoder")])
    config = tmp_path / "encoder" / "config.json"
    config.write_text(config.read_text().replace("{", "{ ", 1))
    with pytest.raises(ValueError, match=f"encoders that it began with, however .* given: encoder {tmp_path}/encoder;"):
        studies.keep_inputs(study, tables, encoders=[str(tmp_path / "encoder")])
    studies.refuse_other_tables(study, tables)


def test_machines_that_begin_together_and_queue_the_same_trials_run_them_once(sweep, tmp_path):
    study = open_study(sweep, folder=tmp_path, storage=None)
    for setting in (0, 1):  # another machine saw none of them yet
        studies.queue(study, {"x": float(setting)}, setting=setting, seed=1)
    trials = study.get_trials()
    assert [studies.is_surplus(study, trial) for trial in trials] == [False] * 4 + [True] * 2


def test_retried_trial_has_the_evaluations_that_it_had(sweep, tmp_path):
    study = open_study(sweep, folder=tmp_path, storage=None)
    trial = study.ask()
    trial.suggest_categorical("x", (0.0, 1.0))
    trial.report(0.5, 0)
    trial.set_user_attr(studies.WORKER, studies.identify_worker() | {"pid": 2**22 + 1})
    assert studies.take_back(study) == 1
    again = [each for each in study.get_trials() if each.state == TrialState.WAITING][-1]
    assert again.intermediate_values == {0: 0.5}
    assert again.params == {"x": 0.0}
    assert again.user_attrs[studies.SETTING] == 0
    assert studies.take_back(study) == 0
    assert not studies.is_surplus(study, again)


def test_trial_of_a_worker_that_lives_or_of_another_machine_is_left_to_it(sweep, tmp_path):
    study = open_study(sweep, folder=tmp_path, storage=None)
    mine, parents, far = study.ask(), study.ask(), study.ask()
    mine.set_user_attr(studies.WORKER, studies.identify_worker())
    process = subprocess.Popen(["sleep", "60"])
    try:
        import psutil

        started = psutil.Process(process.pid).create_time()
        parents.set_user_attr(studies.WORKER, studies.identify_worker() | {"pid": process.pid, "started": started})
        far.set_user_attr(studies.WORKER, {"machine": "elsewhere", "pid": os.getpid(), "started": 0.0})
        assert studies.take_back(study) == 0
    finally:
        process.kill()
        process.wait()
    assert studies.take_back(study) == 1  # that one alone


def test_interrupted_worker_queues_again_what_it_left_and_not_what_failed(sweep, tmp_path, monkeypatch):
    study = open_study(sweep, folder=tmp_path, storage=None)
    worker = Worker(sweep, study, folder=tmp_path, data=None)
    ends = iter([ValueError("this one fails"), Interrupted(2, tmp_path)])

    def run_notebook(out, overrides):
        raise next(ends)

    monkeypatch.setattr(worker, "_run_notebook", run_notebook)
    with pytest.raises(Interrupted):
        worker.work()
    names = [
        (each.user_attrs[studies.SETTING], each.user_attrs[studies.SEED])
        for each in study.get_trials(states=(TrialState.WAITING,))
    ]
    assert sorted(names) == [(0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("budget", ["trials: 6", "minutes: 0.01"])
def test_what_a_sampler_asks_for_again_is_not_trained_again_and_stands_once_in_the_table(
    tmp_path, monkeypatch, caplog, budget
):
    begun = []

    def train(out, overrides):
        begun.append(out.name)
        time.sleep(0.1)
        leave_scores(out, overrides)

    caplog.set_level("INFO")
    text = f"space:\n  x: [0.0, 1.0]\nsampler: random\nseeds: [1, 2]\nobjective: accuracy\n{budget}\n"
    worker = run_with(read_sweep(write_sweep(tmp_path, text)), tmp_path, monkeypatch, train)
    worker.work()
    table = read_study(worker.study, trials_folder=tmp_path)
    assert sorted(table["trial"]) == sorted(begun)
    assert not table.duplicated(["x", "seed"]).any()
    assert len(complete(worker.study)) == 12 if budget == "trials: 6" else len(complete(worker.study)) >= len(begun)
    assert sum(" is as trial " in line for line in caplog.messages) == len(complete(worker.study)) - len(begun)


@pytest.mark.parametrize("space", ["space:\n  x: [0.0, 1.0]\n", SAMPLED + "trials: 2\n"])
def test_trials_that_failed_are_tried_again_when_asked_and_stand_once_in_the_table(tmp_path, monkeypatch, space):
    ends = iter([OSError("disk full"), OSError("disk full"), KeyboardInterrupt(), None, None])

    def train(out, overrides):
        end = next(ends)
        if end is not None:
            raise end
        leave_scores(out, overrides)

    sweep = read_sweep(write_sweep(tmp_path, space.replace("objective: accuracy\n", "") + "objective: accuracy\n"))
    worker = run_with(sweep, tmp_path, monkeypatch, train)
    worker.work()
    failed = [trial.params for trial in studies.list_failed(worker.study)]
    assert len(failed) == 2
    studies.queue_failed(worker.study, sweep)
    assert not studies.list_failed(worker.study)
    with pytest.raises(KeyboardInterrupt):
        worker.work()
    assert studies.count(open_study(sweep, folder=tmp_path, storage=None), TrialState.WAITING) == 2
    worker.work()
    table = read_study(worker.study, trials_folder=tmp_path)
    assert table["state"].tolist() == ["complete"] * 2
    assert not table["error"].any()
    assert sorted(table["x"]) == sorted(each["x"] for each in failed)
    assert not studies.list_failed(worker.study)


def run_with(sweep, folder, monkeypatch, run_notebook) -> Worker:
    """Make a worker whose trials are a function of the run folder and the parameters."""
    worker = Worker(sweep, open_study(sweep, folder=folder, storage=None), folder=folder, data=None)
    monkeypatch.setattr(worker, "_run_notebook", run_notebook)
    monkeypatch.setattr("questlib.sweeps.worker._SECONDS_BETWEEN_LOOKS", 0.01)
    return worker


def leave_scores(out, overrides):
    write_json(out / "scores.json", {"accuracy": overrides["x"]})


def test_any_number_in_scores_is_an_objective_and_nothing_else_need_be_there(tmp_path, monkeypatch):
    sweep = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\nobjective: accuracy\n"))
    worker = run_with(sweep, tmp_path, monkeypatch, leave_scores)
    worker.work()
    assert complete(worker.study) == [0.0, 1.0]


def test_trial_without_the_objective_in_its_scores_is_recorded_as_failed(tmp_path, monkeypatch):
    sweep = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\nobjective: acuracy\n"))
    worker = run_with(sweep, tmp_path, monkeypatch, leave_scores)
    worker.work()
    errors = read_study(worker.study, trials_folder=tmp_path)["error"]
    assert len(errors) == 2
    assert all("objective 'acuracy' must name a number in scores.json" in error for error in errors)


def test_worker_that_is_interrupted_while_no_kernel_runs_queues_its_trial_again(tmp_path, monkeypatch):
    def be_interrupted(out, overrides):
        raise KeyboardInterrupt

    sweep = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\nobjective: accuracy\n"))
    with pytest.raises(KeyboardInterrupt):
        run_with(sweep, tmp_path, monkeypatch, be_interrupted).work()
    worker = run_with(sweep, tmp_path, monkeypatch, leave_scores)
    assert studies.count(worker.study, TrialState.WAITING) == 2
    worker.work()
    assert sorted(complete(worker.study)) == [0.0, 1.0]


@pytest.mark.parametrize("n_before", [0, 3, 30])
def test_trial_that_was_broken_off_is_queued_again_however_often_it_was(sweep, tmp_path, n_before):
    study = open_study(sweep, folder=tmp_path, storage=None)
    for _ in range(n_before):
        begun = study.ask()
        assert studies.put_back(study, study.get_trials()[begun.number])
    study.tell(study.ask(), state=TrialState.FAIL)  # and nobody is there to say why, or to queue it again
    assert studies.count(open_study(sweep, folder=tmp_path, storage=None), TrialState.WAITING) == 4


@pytest.mark.parametrize("n_before", [0, 3, 30])
def test_trial_of_a_machine_that_fell_silent_is_queued_again_however_often_it_was(sweep, tmp_path, n_before):
    study = open_study(sweep, folder=tmp_path, storage=None)
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    history = {"failed_trial": 0, "retry_history": list(range(n_before))}
    silent = study.get_trials()[0]
    silent.system_attrs = silent.system_attrs | history
    study._storage.get_heartbeat_stale_trial_callback()(study, silent)
    assert studies.count(study, TrialState.WAITING) == 4


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.1, 0.3, 0.1), (0.1, 0.7, 0.2), (0.0, 1.0, 0.1), (1e-5, 3e-5, 1e-5)]
)
def test_every_point_of_a_range_can_be_queued_again(tmp_path, low, high, step):
    sweep = read_sweep(write_sweep(tmp_path, f"space:\n  x: {{low: {low}, high: {high}, step: {step}}}\n"))
    assert sweep.settings()[-1] == {"x": high}
    study = open_study(sweep, folder=tmp_path, storage=None)
    for _ in sweep.settings():
        trial = study.ask()
        suggest(sweep, trial)
        assert studies.put_back(study, study.get_trials()[trial.number])


def test_time_of_failed_trials_counts_so_that_a_sweep_of_them_ends(tmp_path, monkeypatch):
    begun = []

    def fail(out, overrides):
        begun.append(out)
        assert len(begun) < 50
        time.sleep(0.05)
        raise ValueError("this one fails")

    text = "space:\n  x: {low: 0.0, high: 1.0}\nsampler: random\nminutes: 0.004\n"
    worker = run_with(read_sweep(write_sweep(tmp_path, text)), tmp_path, monkeypatch, fail)
    worker.work()
    assert 2 <= len(begun) <= 5


def test_trial_whose_end_was_stored_by_a_server_that_then_went_away_does_not_end_its_worker(
    sweep, tmp_path, monkeypatch
):
    study = open_study(sweep, folder=tmp_path, storage=None)
    worker = Worker(sweep, study, folder=tmp_path, data=None)

    def run_notebook(out, overrides):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "scores.json", {"nested": {"scores": {"tied": {"mean_without_rare": overrides["x"]}}}})
        write_json(out / "timeline.json", {})
        [running] = study.get_trials(states=(TrialState.RUNNING,))
        study.tell(running.number, overrides["x"])

    monkeypatch.setattr(worker, "_run_notebook", run_notebook)
    worker.work()
    assert sorted(complete(study)) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_hopeless_trials_end_early_and_the_best_is_not_among_them(tmp_path, monkeypatch, pruner):
    values = [0.5, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.9]
    sweep = read_sweep(write_sweep(tmp_path, f"space:\n  x: {values}\npruner: {pruner}\n"))
    study = open_study(sweep, folder=tmp_path, storage=None)
    worker = Worker(sweep, study, folder=tmp_path, data=None)
    monkeypatch.setattr("questlib.sweeps.worker._SECONDS_BETWEEN_LOOKS", 0.01)

    def running():
        [trial] = study.get_trials(states=(TrialState.RUNNING,))
        return trial

    def run_notebook(out, overrides):
        log = out / "logs" / "any-fold-0" / "evaluations.jsonl"
        log.parent.mkdir(parents=True)
        try:
            for step in range(9):
                with log.open("a") as stream:
                    stream.write(json.dumps({"spearman": overrides["x"] + step / 100}) + "\n")
                wait_until(lambda step=step: step in running().intermediate_values)
                if step == 7 and overrides["x"] < 0.4:
                    time.sleep(3)  # who is slow to end it has the time to
        except KeyboardInterrupt as error:
            raise Interrupted(signal.SIGINT, out) from error
        write_json(out / "scores.json", {"nested": {"scores": {"tied": {"mean_without_rare": overrides["x"]}}}})
        write_json(out / "timeline.json", {})

    monkeypatch.setattr(worker, "_run_notebook", run_notebook)
    worker.work()
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    assert all(1 <= len(trial.intermediate_values) < 9 for trial in pruned)
    assert len(complete(study)) == len(values) - len(pruned)
    assert max(complete(study)) == 0.9


def test_trial_that_ended_well_while_it_was_judged_hopeless_has_its_score(tmp_path, monkeypatch):
    is_ended = threading.Event()

    def be_slow_to_judge(trial):
        is_ended.wait()
        time.sleep(0.2)  # the worker waits for its watch
        return True

    def train(out, overrides):
        log = out / "logs" / "any-fold-0" / "evaluations.jsonl"
        log.parent.mkdir(parents=True)
        log.write_text('{"spearman": 0.1}\n')
        wait_until(lambda: worker.study.get_trials(states=(TrialState.RUNNING,))[0].intermediate_values)
        leave_scores(out, overrides)
        is_ended.set()

    monkeypatch.setattr(Trial, "should_prune", be_slow_to_judge)
    text = "space:\n  x: [0.5]\npruner: median\nobjective: accuracy\n"
    worker = run_with(read_sweep(write_sweep(tmp_path, text)), tmp_path, monkeypatch, train)
    worker.work()
    assert complete(worker.study) == [0.5]


def test_interrupt_amid_a_transaction_leaves_the_file_to_others(sweep, tmp_path):
    open_study(sweep, folder=tmp_path, storage=None)
    storage = open_storage(tmp_path, None)

    def interrupt(cursor, statement, parameters, context):
        cursor.execute(statement, parameters)
        if statement.startswith("SELECT"):
            raise KeyboardInterrupt
        return True

    event.listen(storage.engine, "do_execute", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        storage.get_all_studies()
    other = sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    assert caught.tb  # as a worker holds it that queues its trial again


def test_storage_waits_while_its_server_is_away_and_lets_other_errors_pass(tmp_path, monkeypatch):
    storage = PatientStorage(f"sqlite:///{tmp_path / 'study.db'}")
    failures = iter([OperationalError("select", {}, Exception("away")), None])

    def flaky(self):
        error = next(failures)
        if error is not None:
            raise error
        return ["there"]

    monkeypatch.setattr("optuna.storages.RDBStorage.get_all_studies", flaky)
    assert storage.get_all_studies() == ["there"]
    with pytest.raises(KeyError):
        storage.get_trial(99)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("notaurl", "notaurl"),
        ("postgres://user:secret@host/database", "postgres://***@host/database"),
        ("redis://user:secret@host", "redis://***@host"),
        ("postgresql+psycopg://user:se/cret@host:port/database", "postgresql+psycopg://***@host:port/database"),
        ("sqlite://", "sqlite:// lies in memory"),
        ("sqlite:///:memory:", "sqlite:///:memory: lies in memory"),
        ("sqlite:///file:any?mode=memory&uri=true", "lies in memory"),
        ("sqlite:////nowhere/study.db", "sqlite:////nowhere/study.db lies in no folder that there is"),
    ],
)
def test_storage_that_no_waiting_mends_is_refused_at_once_without_its_password(tmp_path, monkeypatch, url, told):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits"))
    with pytest.raises(
        ValueError, match=r"must be postgresql\+psycopg://user@host/database or sqlite:///file"
    ) as caught:
        open_storage(tmp_path, url)
    assert told in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["really?", "a{x}b", "100%41 #1 é"])
def test_study_lies_in_its_folder_whatever_that_is_called(sweep, tmp_path, name):
    open_study(sweep, folder=tmp_path / name, storage=None)
    assert open_existing(sweep, folder=tmp_path / name, storage=None).get_trials()
    assert {path.name for path in tmp_path.iterdir() if not path.suffix} == {name, "profiles"}
    assert open_storage(tmp_path, f"sqlite:///{tmp_path}/{name.replace('?', '')}.db")


def test_report_says_which_sweeps_a_storage_has_where_it_has_another(sweep, tmp_path):
    open_study(sweep, folder=tmp_path, storage=None)
    other = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0]\n", name="other"))
    with pytest.raises(ValueError, match=r"must be one of \['cheap'\] that this storage has, however: other; run it"):
        open_existing(other, folder=tmp_path, storage=None)


@pytest.mark.parametrize(("n_deaths", "status"), [(4, 0), (5, 1)])
def test_sweep_that_the_last_worker_finishes_is_finished(sweep, tmp_path, monkeypatch, n_deaths, status):
    monkeypatch.setattr("questlib.sweeps.parent._SECONDS_BETWEEN_LOOKS", 0.01)
    starts = tmp_path / "starts"
    code = f"f = open({str(starts)!r}, 'a+'); f.write('x'); f.seek(0); exit(len(f.read()) <= {n_deaths})"
    study = open_study(sweep, folder=tmp_path, storage=None)
    parent = Parent([sys.executable, "-c", code], n_workers=1, log_folder=tmp_path / "workers")
    assert parent.work(study) == status


def test_workers_share_the_cores_where_the_system_does_not_tell_which_are_ours(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    environment = environment_of(0, n_workers=2, devices=[torch.device("cpu")])
    assert environment["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    ("budget", "limit", "told"),
    [
        (
            "minutes: 30",
            0,
            "trials as fit, such as these of 10.0 min, ended after 30 min of work; 15.0 min with 2 workers",
        ),
        ("trials: 4", 0, "up to 4 settings, such as these: 40.0 min of work; 20.0 min with 2 workers"),
        ("trials: 4", 2.5, "up to 4 settings, such as these: 10.0 min of work; 5.0 min with 2 workers"),
        ("trials: 4\nminutes: 30", 0, "40.0 min of work, ended after 30 min of work; 15.0 min with 2 workers"),
    ],
)
def test_forecast_keeps_to_the_budget_and_to_the_limit_of_a_trial(
    tmp_path, monkeypatch, capsys, toy_folder, budget, limit, told
):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("questlib.sweeps.forecast._time_opening", lambda: 0.0)
    monkeypatch.setattr("questlib.sweeps.forecast._fold_seconds", lambda *_: 600.0)
    file = tmp_path / "any.yaml"
    parameters = f"parameters: {{members: [{{name: lexical, kind: lexical}}], time_limit_minutes: {limit}}}"
    file.write_text(f"space:\n  members.lexical.alpha: {{low: 1, high: 9}}\nsampler: random\n{parameters}\n{budget}\n")
    forecast(read_sweep(file), read_tables(toy_folder), n_workers=2)
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(("parameters", "is_offline"), [("", "1"), ("parameters: {use_internet: true}\n", "0")])
def test_sweep_looks_for_its_encoders_where_its_trials_may(tmp_path, monkeypatch, toy_folder, parameters, is_offline):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked: list[str] = []
    check = "questlib.sweeps.__main__._check_encoders"
    monkeypatch.setattr(check, lambda _: asked.append(os.environ["HF_HUB_OFFLINE"]))
    monkeypatch.setattr("questlib.sweeps.forecast.forecast", lambda *_, n_workers: 0.0)
    (tmp_path / "any.yaml").write_text(f"space:\n  pooling: [cls, mean]\n{parameters}")
    assert main(["run", str(tmp_path / "any.yaml"), "--data", str(toy_folder), "--plan"]) == 0
    assert asked == [is_offline]
