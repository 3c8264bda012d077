"""A study on a real PostgreSQL server; `make test-postgres` installs one where there is none."""

import os
from collections import Counter

import pytest
from optuna.trial import TrialState
from postgres import Server, find_programs
from sweeping import read_lines, run_command, start_cheap, wait_until, write_sweep

from questlib.sweeps.definition import read_sweep
from questlib.sweeps.study import open_study

PROGRAMS = find_programs()
if PROGRAMS is None and "QUEST_POSTGRES" in os.environ:
    raise FileNotFoundError("PostgreSQL's initdb must be on the path or under /usr/lib/postgresql, however it is not")
pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed: make test-postgres")


@pytest.fixture(scope="module")
def server():
    assert PROGRAMS is not None
    with Server(PROGRAMS) as running:
        yield running


def test_four_workers_finish_forty_trials_none_lost_and_none_twice_while_the_server_is_killed(tmp_path, server):
    file = write_sweep(tmp_path, "space:\n  x: {low: 0.0, high: 39.0, step: 1.0}\nparameters: {seconds: 0.2}\n")
    workers = [start_cheap(file, tmp_path / "sweep", server.url) for _ in range(4)]
    begun = tmp_path / "sweep" / "begun.txt"
    wait_until(lambda: len(read_lines(begun)) >= 12)
    server.kill()
    server.start()
    n_before = len(read_lines(begun))
    assert n_before < 40
    for worker in workers:
        _, told = worker.communicate(timeout=300)
        assert worker.returncode == 0, told.decode()
    counts = Counter(read_lines(begun))
    assert len(counts) == 40
    assert set(counts.values()) == {1}
    study = open_study(read_sweep(file), folder=tmp_path / "sweep", storage=server.url)
    values = [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    assert sorted(values) == [float(number) for number in range(40)]


def test_machines_with_folders_of_their_own_share_a_sweep_by_the_same_command(tmp_path, server, toy_folder):
    file = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2, 0.3, 0.4]\nparameters: {seconds: 3.0}\n", name="shared")
    machines = [
        run_command("run", file, "--data", toy_folder, "--out", tmp_path / name, "--storage", server.url)
        for name in ("one", "other")
    ]
    for machine in machines:
        out, told = machine.communicate(timeout=120)
        assert machine.returncode == 0, out + told
        assert "4 trials finished, 0 failed" in out
    names = [line.split()[0] for name in ("one", "other") for line in read_lines(tmp_path / name / "trials/begun.txt")]
    assert sorted(names) == ["000", "001", "002", "003"]
    assert read_lines(tmp_path / "one/trials/begun.txt")
    assert read_lines(tmp_path / "other/trials/begun.txt")


def test_storage_that_cannot_be_reached_is_told_without_its_password(tmp_path, server, toy_folder):
    file = write_sweep(tmp_path, "space:\n  x: [0.1]\n", name="away")
    url = server.url.replace("quest@", "quest:secret@").replace(f":{server.port}/postgres", f":{server.port}/nowhere")
    process = run_command("run", file, "--data", toy_folder, "--out", tmp_path / "sweep", "--storage", url)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "must be a database that can be opened" in told
    assert "nowhere" in told
    assert "secret" not in told
