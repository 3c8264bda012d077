import json

import numpy as np
import pandas as pd
import pytest

from questlib import report
from questlib.ensemble import Ensemble
from questlib.metrics import score_predictions
from questlib.predictions import write_predictions
from questlib.run_folder import BLENDED, ENSEMBLE, HISTORY, RECIPE, SCORES, TIMELINE, fold_folder, write_json
from questlib.schema import TARGETS


@pytest.fixture
def run_folder(tmp_path, toy_frame, toy_recipe):
    """Three members of one fold: two that were trained in steps, and the lexical model."""
    targets = toy_frame[list(TARGETS)].to_numpy()
    scores = score_predictions(targets, targets, questions=toy_frame["url"])
    raw = {"one_row_per_question": scores, "all_rows": scores, "by_fold": [scores | {"fold": 0}]}
    names = ("toy", "other", "lexical")
    write_json(
        tmp_path / SCORES,
        {
            "leaks": True,
            "nested": {"protocol": "nested", "scores": dict.fromkeys([*names, "blended", "tied"], scores)},
            "raw": dict.fromkeys(names, raw),
        },
    )
    history = [
        {"number": 0, "stage": "full", "step": 1, "loss": 0.7},
        {"number": 0, "stage": "full", "step": 2, "eval_spearman": 0.1, "eval_loss": 0.6},
        {"number": 1, "stage": "head", "step": 4, "eval_spearman": 0.3, "eval_loss": 0.5},
    ]
    for name, records in (("toy", history), ("other", [{**each, "step": 3 * each["step"]} for each in history])):
        write_json(fold_folder(tmp_path, name, 0) / HISTORY, records)
    write_json(fold_folder(tmp_path, "lexical", 0) / HISTORY, [])
    write_json(tmp_path / TIMELINE, {"seconds": 3, "steps": [{"step": "read", "start": 0, "seconds": 3}]})
    write_json(tmp_path / RECIPE, toy_recipe.to_dict())
    # Ratings of 0 rule the first target, so that its low predictions are worth one value.
    sparse = np.repeat((np.arange(20) > 17)[:, None], len(TARGETS), axis=1).astype(float)
    blended = sparse * 0.5 + np.random.default_rng(0).random(sparse.shape) * 0.4
    hosts = toy_frame["host"].to_numpy()
    ensemble = Ensemble().fit(dict.fromkeys(names, blended), sparse, questions=np.arange(20), hosts=hosts)
    write_json(tmp_path / ENSEMBLE, json.loads(ensemble.to_json()) | {"folds": dict.fromkeys(names, [0])})
    write_predictions(tmp_path / BLENDED, blended, ids=toy_frame["qa_id"], folds=[0] * 20)
    return tmp_path


def texts_of(figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts) + " ".join(
        axes.get_title() for axes in figure.axes
    )


def test_learning_curve_has_a_row_for_each_member_that_was_trained_in_steps(run_folder):
    figure = report.plot_learning_curve(run_folder)
    assert len(figure.axes) == 4
    assert {"full", "head", "toy:", "other:"} <= set(texts_of(figure).split())
    stars = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(4, 0.3), (12, 0.3)]


def test_learning_curve_without_held_out_questions_says_so(run_folder, tmp_path):
    record = {"number": 0, "stage": "full", "step": 1, "loss": 0.7}
    for name in ("toy", "other"):
        write_json(fold_folder(tmp_path, name, 0) / HISTORY, [record, record | {"step": 2}])
    figure = report.plot_learning_curve(run_folder)
    figure.savefig(tmp_path / "curve.png")
    assert texts_of(figure).count("no questions were held out") == 2


def test_spearman_picture_has_a_bar_per_target_and_both_group_means(run_folder):
    figure = report.plot_spearman(run_folder)
    assert len(figure.axes[0].patches) == 30
    members = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert members == ["toy alone", "other alone", "lexical alone"]
    assert "question mean" in texts_of(figure)
    assert "answer mean" in texts_of(figure)


def test_distributions_show_truth_and_prediction_of_each_target(run_folder, toy_frame):
    figure = report.plot_distributions(run_folder, toy_frame)
    assert len(figure.axes) == 30
    for axes in figure.axes:
        assert sum(patch.get_height() for patch in axes.patches) == pytest.approx(2.0)


def test_timeline_says_the_seconds(run_folder):
    assert "3.0 s" in texts_of(report.plot_timeline(run_folder))


def test_score_table_shouts_where_the_split_leaks(run_folder):
    table = report.summarize_scores(run_folder)
    assert table["protocol"].str.contains("LEAKS").all()
    assert table["mean of 30"].tolist() == [1.0] * 14
    assert table["protocol"].iloc[-1].startswith("tied, nested")


def test_ties_picture_marks_the_rows_that_share_a_value(run_folder):
    figure = report.plot_ties(run_folder)
    assert len(figure.axes) == 30
    assert figure.axes[0].get_title().endswith(": 90% tied")


def test_machine_and_parameters_are_tables(run_folder):
    assert "torch" in set(report.describe_machine()["what"])
    parameters = report.describe_parameters(run_folder)
    assert isinstance(parameters, pd.DataFrame)
    assert parameters.columns.tolist() == ["parameter", "toy", "lexical", "all members"]
    values = parameters.set_index("parameter")
    assert values.loc["layout.max_length"].tolist() == [32, "", ""]
    assert values.loc["stages.0.learning_rate", "toy"] == 1e-3
    assert values.loc["alpha"].tolist() == ["", 10.0, ""]
    assert values.loc["folds"].tolist() == ["", "", 3]
