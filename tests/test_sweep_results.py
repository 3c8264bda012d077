"""What a sweep's report says of trials and settings."""

import yaml
from optuna.trial import TrialState
from sweeping import write_sweep

from questlib.sweeps import report
from questlib.sweeps import study as studies
from questlib.sweeps.definition import read_sweep
from questlib.sweeps.results import find_frontier, read_study, summarize_settings
from questlib.sweeps.study import open_study
from questlib.sweeps.worker import suggest


def finish(sweep, study, *, values: list[float]) -> None:
    """End as many trials as there are values."""
    for value in values:
        trial = study.ask()
        suggest(sweep, trial)
        trial.set_user_attr(studies.SECONDS, 1.0)
        study.tell(trial, value)


def test_best_profile_of_an_unfinished_sweep_has_whole_numbers_and_nulls(tmp_path):
    text = "space:\n  options.width: {low: 32, high: 64, step: 32}\n  options.decay: [null, 0.5]\nseeds: [1, 2]\n"
    sweep = read_sweep(write_sweep(tmp_path, text))
    study = open_study(sweep, folder=tmp_path, storage=None)
    broken_off = study.ask()
    suggest(sweep, broken_off)
    assert studies.put_back(study, study.get_trials()[broken_off.number])
    finish(sweep, study, values=[0.1, 0.3, 0.2])  # the others wait, the first setting among them
    trials = read_study(study, trials_folder=tmp_path)
    settings = summarize_settings(trials, None)
    given = yaml.safe_load(report.write_best_profile(sweep, settings, folder=str(tmp_path)))
    assert given["options"] == {"width": 64, "decay": None}
    assert isinstance(given["options"]["width"], int)
    assert "None" in report.show_table(settings, title="any")
    assert report.plot_study(trials)


def test_what_a_pruned_trial_showed_last_is_not_its_score(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.0, 1.0]\npruner: median\n"))
    study = open_study(sweep, folder=tmp_path, storage=None)
    finish(sweep, study, values=[0.1])
    trial = study.ask()
    suggest(sweep, trial)
    trial.report(0.9, 0)
    trial.set_user_attr(studies.SECONDS, 0.5)
    study.tell(trial, state=TrialState.PRUNED)
    trials = read_study(study, trials_folder=tmp_path)
    assert list(trials["state"]) == ["complete", "pruned"]
    assert trials["value"].isna().tolist() == [False, True]
    assert find_frontier(trials).tolist() == [True]
