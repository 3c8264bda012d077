import numpy as np
import pytest

from questlib.artifacts import SCORES, read_json, write_json
from questlib.data import assign_folds, question_of, read_tables
from questlib.ensemble import Ensemble, FoldPredictions, combine_models, score_nested, train_lexical
from questlib.schema import TARGETS


@pytest.fixture(scope="module")
def material() -> dict:
    """Zeros for nine of ten rows, a model that sees the others, a model that sees little, and pure noise."""
    generator = np.random.default_rng(0)
    n_rows = 400
    positive = generator.random((n_rows, 30)) < 0.1
    targets = positive * generator.choice([0.5, 1.0], (n_rows, 30))
    noise = generator.random((n_rows, 30))
    return {
        "models": {"good": np.clip(0.6 * positive + 0.3 * noise, 0, 1), "weak": generator.random((n_rows, 30))},
        "targets": targets,
        "questions": np.array([f"q{row // 2}" for row in range(n_rows)]),
        "hosts": np.array(["a.org", "b.org"] * (n_rows // 2)),
        "folds": np.arange(n_rows) // 2 % 4,
    }


def test_ties_and_blend_raise_the_nested_score(material):
    scores = score_nested(**material)["scores"]
    assert list(scores) == ["good", "weak", "blended", "tied"]
    assert scores["tied"]["mean"] > scores["blended"]["mean"] + 0.05
    assert scores["blended"]["mean"] > scores["weak"]["mean"]
    assert set(scores["tied"]["by_target"]) == set(TARGETS)


def test_nothing_is_scored_on_what_it_was_fitted_on(material, monkeypatch):
    seen = []
    fit = Ensemble.fit

    def spy(self, predictions, targets, *, questions, hosts):
        seen.append(set(questions))
        return fit(self, predictions, targets, questions=questions, hosts=hosts)

    monkeypatch.setattr(Ensemble, "fit", spy)
    for folds in (material["folds"], np.zeros(400, dtype=int)):
        seen.clear()
        score_nested(**material | {"folds": folds})
        assert len(seen) == 4
        assert set.intersection(*seen) == set()
        assert all(len(questions) < 200 for questions in seen)


def test_state_is_json_and_transforms_alike(material):
    models = list(material["models"].values())
    learned = {name: material[name] for name in ("targets", "questions", "hosts")}
    ensemble = Ensemble().fit(models, **learned)
    loaded = Ensemble.from_json(ensemble.to_json())
    assert np.array_equal(
        loaded.transform(models, hosts=material["hosts"]), ensemble.transform(models, hosts=material["hosts"])
    )


def test_models_are_combined_for_the_test_and_scores_gain_nested(toy_folder, tmp_path):
    tables = read_tables(str(toy_folder))
    fold_of_row = assign_folds(question_of(tables.train), split="question", folds=4, seed=0)
    lexical = train_lexical(tables, fold_of_row=fold_of_row, folds_to_train=4, run_folder=tmp_path)
    assert lexical.known.all()
    other = FoldPredictions(
        out_of_fold=np.random.default_rng(0).random(lexical.out_of_fold.shape), fold_of_row=fold_of_row,
        test=np.random.default_rng(1).random(lexical.test.shape),
    )  # fmt: skip
    write_json(tmp_path / SCORES, {"raw": 1})
    tied = combine_models(tables, {"lexical": lexical, "other": other}, run_folder=tmp_path)
    assert tied.shape == (len(tables.test), 30)
    assert ((tied >= 0) & (tied <= 1)).all()
    assert (np.ptp(tied, axis=0) > 0).all()
    scores = read_json(tmp_path / SCORES)
    assert scores["raw"] == 1
    assert list(scores["nested"]["scores"]) == ["lexical", "other", "blended", "tied"]


def test_lexical_folds_never_see_the_rows_they_predict(toy_folder, tmp_path):
    tables = read_tables(str(toy_folder))
    fold_of_row = assign_folds(question_of(tables.train), split="question", folds=4, seed=0)
    one = train_lexical(tables, fold_of_row=fold_of_row, folds_to_train=1, run_folder=tmp_path)
    assert np.array_equal(one.known, fold_of_row == 0)
    changed = tables.train.copy()
    changed.loc[fold_of_row == 0, list(TARGETS)] = 0.0
    object.__setattr__(tables, "train", changed)
    again = train_lexical(tables, fold_of_row=fold_of_row, folds_to_train=1, run_folder=tmp_path)
    assert np.array_equal(again.out_of_fold, one.out_of_fold, equal_nan=True)
