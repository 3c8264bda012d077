"""What a sweep's report says of trials and settings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState
from sweeping import write_sweep

from questlib.data import read_tables
from questlib.marks import list_outputs
from questlib.predictions import write_predictions
from questlib.run_folder import read_json, write_json
from questlib.schema import TARGETS
from questlib.sweeps import report, results
from questlib.sweeps import study as studies
from questlib.sweeps.definition import Sweep, read_sweep
from questlib.sweeps.results import find_frontier, read_runs, read_study, summarize_settings
from questlib.sweeps.space import ABOUT
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


def test_parameter_whose_name_another_ends_with_or_a_column_has_stands_in_table_and_pictures(tmp_path):
    text = "space:\n  x: [0.1, 0.2]\n  options.x: [3, 4]\n  options.seed: [5, 6]\n  options.value: [7, 8]\n"
    sweep = read_sweep(write_sweep(tmp_path, text))
    study = open_study(sweep, folder=tmp_path, storage=None)
    finish(sweep, study, values=[0.3, 0.1, 0.2])
    trials = read_study(study, trials_folder=tmp_path)
    table = report.show_table(summarize_settings(trials, None), title="any")
    assert all(f"<th>{name}</th>" in table for name in ("x", "options.x", "options.seed", "options.value"))
    history, *_ = report.plot_study(trials)
    assert history.axes[0].collections[0].get_offsets()[:, 1].tolist() == [0.3, 0.1, 0.2]


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


def make_trials(scores: np.ndarray, folder: str = "elsewhere") -> pd.DataFrame:
    """Lay out scores of shape (n_settings, n_seeds)."""
    rows = [
        {"setting": setting, "seed": seed, "state": "complete", "value": value, "seconds": 1.0,
         "folder": f"{folder}/{setting}-{seed}", "x": setting}
        for (setting, seed), value in np.ndenumerate(scores)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[*ABOUT, "x"])


@pytest.mark.parametrize("of_seeds", [0.0, 5.0])
def test_equal_settings_are_seldom_called_worse_however_many_there_are(of_seeds):
    generator, n_wrong = np.random.default_rng(0), 0
    for _ in range(100):
        scores = generator.normal(size=(12, 3)) + of_seeds * generator.normal(size=(1, 3))
        verdicts = summarize_settings(make_trials(scores), None)["verdict"]
        n_wrong += any(verdict.startswith("worse") for verdict in verdicts)
    assert n_wrong <= 10


def test_setting_that_is_far_behind_with_every_seed_is_worse_though_seeds_differ_more():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(4, 4)) + 50 * generator.normal(size=(1, 4)) - np.array([[0, 0, 0, 10]]).T
    table = summarize_settings(make_trials(scores), None).set_index("setting")
    assert table["verdict"][3] == "worse, by seeds alone"
    assert all(verdict.startswith(("best", "as good")) for verdict in table["verdict"].drop(3))


def test_seeds_that_settings_do_not_share_or_that_are_one_alone_tell_nothing():
    one = summarize_settings(make_trials(np.array([[0.3], [0.1]])), None)
    assert list(one["verdict"]) == ["best", "one seed alone: try several"]
    trials = make_trials(np.array([[0.3, 0.31], [0.1, 0.11]]))
    trials.loc[trials["setting"] == 1, "seed"] += 2
    assert list(summarize_settings(trials, None)["verdict"]) == ["best", "not compared: no seed in common"]


def leave_tied(folder: Path, frame: pd.DataFrame, *, noise: float) -> None:
    ratings = frame[list(TARGETS)].to_numpy()
    predictions = np.clip(ratings + noise * np.random.default_rng(0).normal(size=ratings.shape), 0, 1)
    write_predictions(
        folder / "tied_out_of_fold.csv", predictions, ids=frame["qa_id"].to_numpy(), folds=np.zeros(len(frame), int)
    )


def test_runs_are_compared_by_their_questions_where_they_have_some_in_common(tmp_path, toy_frame):
    trials = make_trials(np.array([[0.9, 0.91], [0.1, 0.12], [0.1, 0.11]]), folder=str(tmp_path))
    for seed in (0, 1):
        leave_tied(tmp_path / f"0-{seed}", toy_frame[:10], noise=0.05)
        leave_tied(tmp_path / f"1-{seed}", toy_frame[:10], noise=5.0)
        leave_tied(tmp_path / f"2-{seed}", toy_frame[10:], noise=5.0)
    verdicts = summarize_settings(trials, toy_frame).set_index("setting")["verdict"]
    assert dict(verdicts) == {0: "best", 1: "worse", 2: "not compared: no question in common"}
    without_tables = summarize_settings(trials, None).set_index("setting")["verdict"]
    assert without_tables[1] == "worse, by seeds alone"


def test_error_over_questions_is_as_sure_as_its_resamples_are_many(tmp_path, toy_frame, monkeypatch):
    trials = make_trials(np.array([[0.9, 0.9], [0.8, 0.8]]), folder=str(tmp_path))
    for setting, seed in np.ndindex(2, 2):
        leave_tied(tmp_path / f"{setting}-{seed}", toy_frame, noise=0.05)
    for errors, verdict in ((2.07, "as good: try more folds"), (2.12, "worse")):  # 20 resamples tell 2.09 apart
        monkeypatch.setattr(results, "compare", lambda *_, errors=errors: (0.01 * errors, 0.01, 20))
        assert summarize_settings(trials, toy_frame)["verdict"][1] == verdict


def leave_run(folder: Path, recipe: dict, *, train: str = "a", score: float = 0.4, began: str = "") -> Path:
    write_json(folder / "recipe.json", recipe)
    write_json(folder / "inputs.json", {"train.csv": train, "encoder": {}})
    write_json(folder / "timeline.json", {"seconds": 1.0, "began": began})
    write_json(folder / "scores.json", {"nested": {"scores": {"tied": {"mean_without_rare": score}}}})
    return folder


def make_recipe(seed: int, *, name: str = "minilm", own: int | None = None, rate: float = 0.1) -> dict:
    member = {"name": name, "kind": "transformer", "settings": {"seed": seed if own is None else own}, "rate": rate}
    return {"members": [member], "seed": seed}


def test_seed_of_a_run_is_its_own_whatever_its_members_are_called(tmp_path):
    recipes = [make_recipe(1), make_recipe(2), make_recipe(2, name="mpnet"), make_recipe(2, own=7)]
    runs = [leave_run(tmp_path / str(number), each) for number, each in enumerate(recipes)]
    table = read_runs(runs, objective=Sweep.objective, tables=None)
    assert list(table["seed"]) == [1, 2, 2, 2]
    assert list(table["setting"]) == [0, 0, 1, 2]
    assert table["members.minilm.seed"].tolist()[3] == 7


def test_folders_that_are_no_runs_or_of_other_tables_are_left_out_with_a_line(tmp_path, caplog, toy_folder):
    runs = [
        leave_run(tmp_path / name, make_recipe(seed), train=train)
        for name, seed, train in [("a", 1, "a"), ("b", 2, "a"), ("c", 1, "z")]
    ]
    (tmp_path / "sweeps" / "report").mkdir(parents=True)
    table = read_runs([tmp_path / "sweeps", *runs], objective=Sweep.objective, tables=None)
    assert list(table["trial"]) == ["a", "b"]
    assert [line.split(f"{tmp_path}/")[1] for line in caplog.messages] == [
        "sweeps must be a run folder, however it has no recipe.json",
        "c must be trained on the train.csv that is given, however it was on another",
    ]
    with pytest.raises(ValueError, match="there must be runs to report on, however there are none; .*on another"):
        read_runs(runs, objective=Sweep.objective, tables=read_tables(toy_folder))


def test_run_whose_scores_were_changed_is_left_out_with_a_line(tmp_path, caplog):
    runs = [leave_run(tmp_path / name, make_recipe(seed)) for seed, name in enumerate(["whole", "changed", "cut"])]
    for run in runs:
        list_outputs(run)
    leave_run(runs[1], make_recipe(1), score=0.9)
    (runs[2] / "outputs.json").unlink()
    (runs[2] / "inputs.json").write_text("{")
    assert list(read_runs(runs, objective=Sweep.objective, tables=None)["trial"]) == ["whole"]
    assert "changed must hold what its run wrote, however missing or changed: ['scores.json'" in caplog.messages[0]
    assert "cut/inputs.json must be whole JSON" in caplog.messages[1]


def test_runs_of_other_weights_are_of_another_setting(tmp_path):
    runs = [leave_run(tmp_path / name, make_recipe(1)) for name in ("one", "two")]
    for run in runs:
        write_json(run / "inputs.json", {"train.csv": "a", "encoder": {"0 (minilm-v1.5)": f"{run.name}-hash"}})
    table = read_runs(runs, objective=Sweep.objective, tables=None)
    assert list(table["setting"]) == [0, 1]
    assert list(table["weights of encoder 0"]) == ["one-hash", "two-hash"]


def test_run_that_was_made_twice_is_no_further_seed_and_the_newest_stands(tmp_path, caplog):
    scores = {0.1: [0.400, 0.396, 0.404], 0.2: [0.394, 0.398, 0.393]}
    runs = [
        leave_run(tmp_path / f"{rate}-{seed}", make_recipe(seed, rate=rate), score=score, began="2026-02-02")
        for rate, values in scores.items()
        for seed, score in enumerate(values)
    ]
    once = read_runs(runs, objective=Sweep.objective, tables=None)
    older = [
        leave_run(tmp_path / f"older-{run.name}", read_json(run / "recipe.json"), score=0.1, began="2026-01-01")
        for run in runs
    ]
    unscored = leave_run(tmp_path / "unscored", make_recipe(0), began="2026-03-03")
    (unscored / "scores.json").unlink()
    twice = read_runs([*runs, *older, unscored], objective=Sweep.objective, tables=None)
    pd.testing.assert_frame_equal(twice, once)
    assert list(summarize_settings(twice, None)["trials"]) == [3, 3]
    assert len(caplog.messages) == 7
    told = "older-0.1-2 must be of a setting and seed of its own, however"
    assert any(told in line for line in caplog.messages)
