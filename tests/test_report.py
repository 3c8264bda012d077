import io
import json
from dataclasses import replace

import numpy as np
import pytest

from questlib import report
from questlib.ensemble import Ensemble
from questlib.metrics import score_predictions
from questlib.predictions import write_predictions
from questlib.recipe import LexicalRecipe
from questlib.run_folder import BLENDED, ENSEMBLE, HISTORY, RECIPE, SCORES, TIMELINE, fold_folder, read_json, write_json
from questlib.schema import ANSWER_TARGETS, QUESTION_TARGETS, TARGETS


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
            "protocol": "out of fold, somehow",
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
    member, lexical = toy_recipe.members
    recipe = replace(toy_recipe, members=(member, replace(member, name="other"), lexical))
    write_json(tmp_path / RECIPE, recipe.to_dict())
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


def test_no_member_may_be_called_as_another_column_of_a_table_that_it_stands_in(run_folder):
    columns = {*report.summarize_targets(run_folder), *report.describe_parameters(run_folder)}
    for name in columns - {"toy", "other", "lexical"}:
        with pytest.raises(ValueError, match="a member's name must be a word"):
            LexicalRecipe(name=name)


def test_learning_curves_are_a_picture_of_loss_and_of_spearman_for_each_member_trained_in_steps(run_folder):
    figures = report.plot_learning_curves(run_folder)
    assert [figure.axes[0].get_title() for figure in figures] == [
        "toy: loss", "toy: mean Spearman on held-out questions", "other: loss",
        "other: mean Spearman on held-out questions",
    ]  # fmt: skip
    assert all({"full", "head"} == {text.get_text() for text in figure.axes[0].texts} for figure in figures)
    stars = [line for figure in figures for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(4, 0.3), (12, 0.3)]


def test_learning_curves_without_held_out_questions_are_of_loss_alone(run_folder, tmp_path):
    record = {"number": 0, "stage": "full", "step": 1, "loss": 0.7}
    for name in ("toy", "other"):
        write_json(fold_folder(tmp_path, name, 0) / HISTORY, [record, record | {"step": 2}])
    assert [figure.axes[0].get_title() for figure in report.plot_learning_curves(run_folder)] == [
        "toy: loss",
        "other: loss",
    ]


def test_learning_curves_show_a_stages_name_as_it_is_written(run_folder, tmp_path):
    record = {"number": 0, "stage": "5$_{ of 6$", "step": 1, "loss": 0.7}
    write_json(fold_folder(tmp_path, "toy", 0) / HISTORY, [record, record | {"step": 2}])
    first, *_ = report.plot_learning_curves(run_folder)
    first.savefig(io.BytesIO())
    assert first.axes[0].texts[0].get_text() == "5$_{ of 6$"


def test_scores_stand_side_by_side_with_their_protocol_whole(run_folder):
    table = report.summarize_scores(run_folder)
    assert table["what"].tolist() == [
        "toy alone", "other alone", "lexical alone", "blended", "submitted: blended and tied",
    ]  # fmt: skip
    assert table["mean of 30"].tolist() == [1.0] * 5
    shown = report.show_scores(run_folder)
    assert "LEAKS: rows were split at random" in shown
    assert "out of fold, somehow. Blend and ties are nested." in shown


def test_members_are_listed_with_encoder_and_folds(run_folder, encoder_folder):
    table = report.summarize_members(run_folder).set_index("member")
    assert table.loc["toy", "encoder"] == encoder_folder.name
    assert table.loc["toy", "folds"] == "1 of 2"
    assert table.loc["lexical", "kind"] == "lexical"


def test_targets_are_sorted_by_what_is_submitted_question_first(run_folder):
    scores = read_json(run_folder / SCORES)
    tied = {name: place / 100 for place, name in enumerate(TARGETS)}
    scores["nested"]["scores"]["tied"] = scores["nested"]["scores"]["tied"] | {"by_target": tied}
    write_json(run_folder / SCORES, scores)
    table = report.summarize_targets(run_folder)
    assert table.columns.tolist() == ["target", "submitted", "blended", "toy", "other", "lexical"]
    assert table["target"].tolist() == [*QUESTION_TARGETS[::-1], *ANSWER_TARGETS[::-1]]


def test_ties_mark_the_rows_that_share_a_value(run_folder):
    shown = report.show_run_ties(run_folder)
    assert shown.count("<figure") == 30
    assert ">90% of rows tied<" in shown


def test_distributions_show_each_target_and_the_ratings_where_they_are_known(run_folder):
    assert "rated" not in report.show_run_distributions(run_folder)
    scores = read_json(run_folder / SCORES)
    write_json(run_folder / SCORES, scores | {"ratings": dict.fromkeys(TARGETS, {"0.5": 1.0})})
    assert report.show_run_distributions(run_folder).count(">rated 0.50 on average") == 30


def test_time_is_told_by_step_and_by_session_where_there_are_several(run_folder):
    assert report.summarize_time(run_folder).to_numpy().tolist() == [["read", 3, 0.0]]
    timeline = read_json(run_folder / TIMELINE)
    write_json(run_folder / TIMELINE, timeline | {"earlier": [timeline]})
    assert report.summarize_time(run_folder)["session"].tolist() == [1, 2]


def test_facts_are_laid_out_by_dotted_names():
    laid_out = report.lay_out({"cores": 2, "versions": {"torch": "2.10"}, "gpus": ["A", "B"], "commit": None})
    assert laid_out.to_numpy().tolist() == [
        ["cores", "2"], ["versions.torch", "2.10"], ["gpus", "A, B"], ["commit", ""],
    ]  # fmt: skip


def test_parameters_are_a_table_by_member(run_folder):
    parameters = report.describe_parameters(run_folder)
    assert parameters.columns.tolist() == ["parameter", "toy", "other", "lexical", "all members"]
    values = parameters.set_index("parameter")
    assert values.loc["max_length"].tolist() == ["32", "32", "", ""]
    assert values.loc["stages.full.learning_rate", "toy"] == "0.001"
    assert values.loc["alpha"].tolist() == ["", "", "10.0", ""]
    assert values.loc["folds"].tolist() == ["", "", "", "3"]
