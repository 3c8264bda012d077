import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from questlib.blending import Blend
from questlib.ensemble import Ensemble
from questlib.hosts import HostRates
from questlib.schema import ANSWER_TARGETS, QUESTION_TARGETS, TARGETS
from questlib.scores import score_nested
from questlib.ties import RankTies


@pytest.fixture(scope="module")
def material() -> dict:
    """Zeros for nine of ten rows, a model that sees the others, a model that sees little, and pure noise."""
    generator = np.random.default_rng(0)
    n_rows = 400
    positive = generator.random((n_rows, 30)) < 0.1
    targets = positive * generator.choice([0.5, 1.0], (n_rows, 30))
    noise = generator.random((n_rows, 30))
    return {
        "members": {"good": np.clip(0.6 * positive + 0.3 * noise, 0, 1), "weak": generator.random((n_rows, 30))},
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
    question_of = dict(zip(material["members"]["good"][:, 0], material["questions"], strict=True))
    seen: dict[str, list[set]] = {"fit": [], "transform": []}

    def spy(original, *, name):  # noqa: ANN202
        def call(self, predictions, *given, **named):  # noqa: ANN002, ANN003
            seen[name].append({question_of[value] for value in predictions["good"][:, 0]})
            return original(self, predictions, *given, **named)

        return call

    for name in seen:
        monkeypatch.setattr(Ensemble, name, spy(getattr(Ensemble, name), name=name))
    for folds in (material["folds"], np.zeros(400, dtype=int)):
        score_nested(**material | {"folds": folds})
        fitted, scored = (seen[name][-4:] for name in seen)
        assert set.union(*scored) == set(material["questions"])
        assert not any(set.intersection(*both) for both in zip(fitted, scored, strict=True))
    assert len(seen["fit"]) == len(seen["transform"]) == 8


def test_ensemble_hands_on_questions_groups_and_hosts_to_its_parts(material):
    rows = np.repeat(np.arange(400), np.where(np.arange(400) < 10, 40, 1))  # ten rows have forty answers each
    models, targets = {name: each[rows] for name, each in material["members"].items()}, material["targets"][rows]
    models["good"][:400] = np.random.default_rng(1).random((400, 30))  # which the better model knows nothing of
    targets[:, 3] = np.arange(len(rows)) == 700  # rare, on one host
    hosts = material["hosts"][rows]
    ensemble = Ensemble().fit(models, targets, questions=rows, hosts=hosts)

    def blend(groups: list[int] | None, questions: np.ndarray | None) -> Blend:
        return Blend(groups=groups).fit(list(models.values()), targets, questions=questions)

    groups = [0] * len(QUESTION_TARGETS) + [1] * len(ANSWER_TARGETS)
    found = ensemble.blend_.weights_
    assert np.array_equal(found, blend(groups, rows).weights_)
    assert not np.array_equal(found, blend(groups, None).weights_)
    assert not np.array_equal(found, blend(None, rows).weights_)
    unscaled = blend(groups, rows).transform(list(models.values()))
    blended = HostRates().fit(hosts, targets).transform(unscaled, hosts)
    assert np.array_equal(ensemble.blend(models, hosts=hosts), blended)
    assert not np.array_equal(unscaled, blended)
    ties = RankTies().fit(blended, targets, questions=rows)
    assert ensemble.ties_.intervals_ == ties.intervals_ != RankTies().fit(blended, targets).intervals_
    assert np.array_equal(ensemble.transform(models, hosts=hosts), ties.transform(blended))


def test_state_is_json_and_transforms_alike(material):
    models = material["members"]
    learned = {name: material[name] for name in ("targets", "questions", "hosts")}
    ensemble = Ensemble().fit(models, **learned)
    loaded = Ensemble.from_json(ensemble.to_json())
    assert np.array_equal(
        loaded.transform(models, hosts=material["hosts"]), ensemble.transform(models, hosts=material["hosts"])
    )


def test_ensemble_refuses_to_answer_or_to_be_saved_before_fit(material):
    for call in (lambda: Ensemble().transform(material["members"], hosts=material["hosts"]), Ensemble().to_json):
        with pytest.raises(NotFittedError, match="This Ensemble instance is not fitted yet"):
            call()


def test_members_are_known_by_name_whatever_their_order(material):
    members = material["members"]
    learned = {name: material[name] for name in ("targets", "questions", "hosts")}
    ensemble = Ensemble().fit(members, **learned)
    turned = dict(reversed(members.items()))
    hosts = material["hosts"]
    assert np.array_equal(ensemble.transform(turned, hosts=hosts), ensemble.transform(members, hosts=hosts))
    with pytest.raises(ValueError, match=r"those of \['good', 'weak'\], by name, however missing: \['weak'\]"):
        ensemble.transform({"good": members["good"]}, hosts=hosts)
