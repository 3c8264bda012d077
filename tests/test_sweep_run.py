"""The command line of sweeps, with real notebooks in real processes."""

import json
import signal
import sys

import psutil
import pytest
from making import plan
from optuna.trial import TrialState
from sweeping import read_lines, run_command, wait_until, write_sweep

from questlib.sweeps import study as studies
from questlib.sweeps.__main__ import main
from questlib.sweeps.definition import read_sweep
from questlib.sweeps.results import read_study
from questlib.sweeps.study import open_study


@pytest.fixture
def data(toy_folder):
    return toy_folder


def finish(process) -> str:
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, out + told
    return out


def test_failures_and_deaths_are_recorded_and_the_sweep_goes_on(tmp_path, data):
    file = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2, 0.3]\nparameters: {fails_at: 0.2, dies_at: 0.3}\n")
    folder = tmp_path / "sweep"
    told = finish(run_command("run", file, "--data", data, "--out", folder, "--workers", 2))
    assert "1 trials finished, 2 failed" in told
    assert "best 0.0100: x=0.1" in told
    study = open_study(read_sweep(file), folder=folder, storage=None)
    # As reports read it: two workers that ask at the same moment leave a surplus trial, which has no parameters.
    errors = read_study(study, trials_folder=folder / "trials").set_index("x")["error"]
    assert errors[0.1] == ""
    assert "ValueError: this one fails" in errors[0.2]
    assert "the kernel died" in errors[0.3]
    assert {line.split()[1] for line in read_lines(folder / "trials" / "begun.txt")} == {"1"}  # cores are shared out
    assert "this one fails" in (folder / "trials" / "001.log.txt").read_text()
    again = finish(run_command("run", file, "--data", data, "--out", folder))
    assert "is finished" in again
    where = f"failed: 001, 002; {folder}/trials/<trial>.log.txt says why, ARGS=--retry-failed tries them again"
    assert where in told
    assert where in again
    assert len(read_lines(folder / "trials" / "begun.txt")) == 3
    assert "1 trials finished, 2 failed" in finish(
        run_command("run", file, "--data", data, "--out", folder, "--retry-failed")
    )
    assert len(read_lines(folder / "trials" / "begun.txt")) == 5


def test_killed_worker_is_replaced_and_a_killed_parent_takes_its_workers_along(tmp_path, data):
    file = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2, 0.3, 0.4]\nparameters: {seconds: 2.0}\n")
    folder = tmp_path / "sweep"
    parent = run_command("run", file, "--data", data, "--out", folder, "--workers", 1)
    begun = folder / "trials" / "begun.txt"
    wait_until(lambda: len(read_lines(begun)) == 1)
    workers = psutil.Process(parent.pid).children()
    workers[0].kill()
    wait_until(lambda: len(read_lines(begun)) == 2)
    everyone = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(everyone, timeout=10)
    assert not alive, gone
    told = finish(run_command("run", file, "--data", data, "--out", folder, "--workers", 2))
    assert "4 trials finished, 0 failed" in told
    study = open_study(read_sweep(file), folder=folder, storage=None)
    assert studies.count(study, TrialState.COMPLETE) == 4


def test_interrupted_sweep_says_how_to_go_on_and_does(tmp_path, data):
    file = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2]\nparameters: {seconds: 3.0}\n")
    folder = tmp_path / "sweep"
    parent = run_command("run", file, "--data", data, "--out", folder)
    wait_until(lambda: len(read_lines(folder / "trials" / "begun.txt")) == 1)
    parent.send_signal(signal.SIGINT)
    _, told = parent.communicate(timeout=60)
    assert parent.returncode == 130, told
    line = told.splitlines()[-1]
    assert line.startswith(f"{sys.executable} -m questlib.sweeps run")
    assert f"--out {folder}" in line
    assert "2 trials finished, 0 failed" in finish(run_command("run", file, "--data", data, "--out", folder))


def test_hopeless_trials_are_ended_with_what_they_showed(tmp_path, data):
    text = "space:\n  x: [0.5, 0.6, 0.7, 0.0]\nparameters: {n_evaluations: 8, pause: 0.4}\npruner: median\n"
    file, folder = write_sweep(tmp_path, text), tmp_path / "sweep"
    told = finish(run_command("run", file, "--data", data, "--out", folder))
    assert "trial 003 was hopeless after" in told
    study = open_study(read_sweep(file), folder=folder, storage=None)
    [pruned] = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned.params == {"x": 0.0}
    assert 2 <= len(pruned.intermediate_values) < 8
    assert not (folder / "trials" / "003" / "checkpoints").exists()


def test_sampler_fills_in_settings_and_every_seed_gets_the_same(tmp_path, data):
    text = "space:\n  y: {low: 0.0, high: 1.0}\nsampler: tpe\ntrials: 2\nseeds: [1, 2]\n"
    file, folder = write_sweep(tmp_path, text), tmp_path / "sweep"
    finish(run_command("run", file, "--data", data, "--out", folder, "--workers", 2))
    study = open_study(read_sweep(file), folder=folder, storage=None)
    by_setting: dict[int, set] = {}
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        by_setting.setdefault(trial.user_attrs[studies.SETTING], set()).add(trial.params["y"])
    assert {number: len(values) for number, values in by_setting.items()} == {0: 1, 1: 1}
    assert by_setting[0] != by_setting[1]
    names = sorted(path.name for path in (folder / "trials").iterdir() if path.is_dir())
    assert names == ["000-seed-1", "000-seed-2", "001-seed-1", "001-seed-2"]


def test_budget_of_minutes_ends_a_sweep(tmp_path, data):
    text = "space:\n  y: {low: 0.0, high: 1.0}\nsampler: random\nminutes: 0.05\nparameters: {seconds: 1.0}\n"
    file, folder = write_sweep(tmp_path, text), tmp_path / "sweep"
    finish(run_command("run", file, "--data", data, "--out", folder))
    assert 1 <= len(read_lines(folder / "trials" / "begun.txt")) <= 3


def test_end_of_a_budget_says_what_is_left_and_starts_no_workers(tmp_path, data, capsys):
    file, folder = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2, 0.3]\nminutes: 1\n"), tmp_path / "sweep"
    study = open_study(read_sweep(file), folder=folder, storage=None)
    trial = study.ask()
    trial.set_user_attr(studies.SECONDS, 61.0)
    study.tell(trial, 0.5)
    assert main(["run", str(file), "--data", str(data), "--out", str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        "sweep cheap: 1 trials finished, 0 failed",
        "2 trials are left: the budget of 1 minutes is used up",
    ]
    assert told[-1] == f"make sweep-report SWEEP={file} DATA={data} OUT={folder} shows what is more than luck"
    assert not (folder / "workers").exists()


def test_fewer_than_no_workers_are_refused(tmp_path, capsys):
    assert main(["run", str(tmp_path / "any.yaml"), "--workers", "-1"]) == 1
    assert "workers must lie in [0, 1000], however: -1" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["sweep", "sweep-report"])
@pytest.mark.parametrize(
    ("text", "named", "tables"),
    [
        ("profile: sample\n", [], "--data 'notebooks/sample'"),
        ("profile: 'sample'  # short\n", [], "--data 'notebooks/sample'"),
        ("space: {}\n", [], "--data 'notebooks/sample'"),
        ("profile: cpu  # no sample\n", [], ""),
        ("profile: samples/mine.yaml\n", [], ""),
        ("profile: cpu\n", ["DATA=there"], "--data 'there'"),
        ("profile: sample\n", ["DATA=there"], "--data 'there'"),
    ],
)
def test_make_gives_the_sample_to_sweeps_of_its_own_profile_alone(tmp_path, target, text, named, tables):
    file = tmp_path / "any.yaml"
    file.write_text(text)
    done = plan(target, f"SWEEP={file}", *named)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--data") == bool(tables)
    assert tables in done.stdout


def test_make_writes_no_numbers_of_the_sample_over_those_of_the_ablation():
    done = plan("ablation")
    assert done.returncode
    assert "DATA must be named, however" in done.stderr
    assert not done.stdout
    assert plan("ablation", "DATA=there").stdout.count("--data 'there'") == 3


def test_mistakes_are_told_before_anything_is_made(tmp_path, data):
    file, folder = write_sweep(tmp_path, "space:\n  z: [0.1]\n"), tmp_path / "sweep"
    process = run_command("run", file, "--data", data, "--out", folder)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.startswith("questlib.sweeps run: ")
    assert "unknown parameter: 'z'" in told
    assert not folder.exists()


def test_report_on_what_is_not_there_is_refused_in_a_line_and_leaves_nothing(tmp_path, data):
    file, folder = write_sweep(tmp_path, "space:\n  x: [0.1]\n"), tmp_path / "sweep"
    for options, words in [
        (["--sweep", file], "no sweep cheap in"),
        (["--runs", tmp_path / "nothing"], "must be a run folder, however it has no recipe.json"),
        (["--sweep", tmp_path / "absent.yaml"], "no sweep file"),
    ]:
        process = run_command("report", *options, "--out", folder, "--data", data)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        [line] = told.splitlines()
        assert line.startswith("questlib.sweeps report: ")
        assert words in line
    assert not folder.exists()


def test_cheap_trials_leave_runs_that_a_report_reads(tmp_path, data):
    file, folder = write_sweep(tmp_path, "space:\n  x: [0.1, 0.2]\nseeds: [1, 2]\n"), tmp_path / "sweep"
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    finish(run_command("run", file, "--data", data, "--out", folder, "--storage", storage))
    told = finish(run_command("report", "--sweep", file, "--out", folder, "--data", data, "--storage", storage))
    assert storage not in (folder / "sweep_report.ipynb").read_text()  # a URL may hold a password
    assert told.splitlines()[-1] == str(folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "4 trials" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "x: 0.2" in (folder / "best.yaml").read_text()
    runs = sorted(path for path in (folder / "trials").iterdir() if path.is_dir())
    finish(run_command("report", "--runs", *runs, "--out", tmp_path / "loop"))
    table = (tmp_path / "loop" / "trials.csv").read_text().splitlines()
    assert table[0] == "trial,setting,seed,state,value,seconds,error,folder,x"
    assert len(table) == 5
    assert json.loads((runs[0] / "recipe.json").read_text())["seed"] == 1
