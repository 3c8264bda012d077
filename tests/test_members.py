"""What every kind of member owes: one contract, whoever fits it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy

from questlib import devices
from questlib.members import MEMBERS, load_member, transformer
from questlib.members.base import Member
from questlib.recipe import (
    MEMBER_RECIPES,
    BoostedRecipe,
    LexicalRecipe,
    MemberRecipe,
    MetadataOptions,
    ModelOptions,
)
from questlib.schema import TARGETS

KINDS = list(MEMBERS)


@pytest.fixture
def recipes(encoder_folder: Path) -> dict[str, MemberRecipe]:
    # Without rows to stop by: a fit that learns noise would be given back its first weights, whatever it had seen.
    toy_recipe = toy.build_recipe(encoder_folder, stop_share=0.0)
    return {"transformer": toy_recipe, "lexical": LexicalRecipe(), "boosted": BoostedRecipe(n_stumps=20)}


@pytest.fixture
def build(recipes: dict[str, MemberRecipe], tmp_path: Path):
    return lambda kind: MEMBERS[kind](recipes[kind], cache_folder=tmp_path / "cache")


def test_every_kind_has_a_recipe() -> None:
    assert set(MEMBERS) == set(MEMBER_RECIPES)


@pytest.mark.parametrize("kind", KINDS)
def test_member_is_fitted_on_a_frame_and_predicts_another(kind, build, toy_frame, toy_test_frame):
    member = build(kind)
    assert member.fit(toy_frame) is member
    predictions = member.predict(toy_test_frame)
    assert predictions.shape == (len(toy_test_frame), len(TARGETS))
    assert ((predictions >= 0) & (predictions <= 1)).all()
    json.dumps(member.history)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_member_predicts_to_the_last_bit_as_before(kind, build, toy_frame, toy_test_frame, tmp_path):
    member: Member = build(kind).fit(toy_frame)
    member.save(tmp_path / "saved")
    loaded = load_member(tmp_path / "saved", cache_folder=tmp_path / "elsewhere")
    assert type(loaded) is MEMBERS[kind]
    assert np.array_equal(loaded.predict(toy_test_frame), member.predict(toy_test_frame))
    assert loaded.recipe == member.recipe.without_paths()
    suffixes = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    text = "".join(path.read_text() for path in (tmp_path / "saved").rglob("*.json"))
    assert str(tmp_path.parent) not in text


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, {}) for kind in KINDS),
        ("transformer", {"target_scale": "rank"}),
        ("transformer", {"target_weighing": "inverse_spread"}),
    ],
    ids=str,
)
def test_rows_that_are_not_named_are_not_learned_from(kind, changes, build, recipes, toy_frame, toy_test_frame):
    recipes[kind] = replace(recipes[kind], **changes)
    rows = np.arange(4, 20)
    part = build(kind).fit(toy_frame, rows=rows).predict(toy_test_frame)
    changed = toy_frame.copy()
    changed.loc[:3, list(TARGETS)] = 0.0
    assert np.array_equal(build(kind).fit(changed, rows=rows).predict(toy_test_frame), part)
    assert not np.array_equal(build(kind).fit(toy_frame).predict(toy_test_frame), part)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_named_are_predicted_in_their_order(kind, build, toy_frame):
    member = build(kind).fit(toy_frame)
    rows = np.array([7, 2, 11])
    np.testing.assert_allclose(member.predict(toy_frame, rows=rows), member.predict(toy_frame)[rows], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_are_given_their_stated_value_in_fit_and_in_predict(kind, build, toy_frame, toy_test_frame):
    toy_frame.loc[2, ["question_body", "host"]] = None
    toy_test_frame.loc[1, ["answer", "category"]] = None
    before = toy_frame.copy()
    member = build(kind).fit(toy_frame)
    stated = toy_test_frame.fillna({"answer": "", "category": "unknown"})
    assert np.array_equal(member.predict(toy_test_frame), member.predict(stated))
    pd.testing.assert_frame_equal(toy_frame, before)


@pytest.mark.parametrize("kind", KINDS)
def test_member_refuses_what_it_cannot_do(kind, build, toy_frame, tmp_path):
    member = build(kind)
    with pytest.raises(RuntimeError, match="must be fitted before it predicts"):
        member.predict(toy_frame)
    with pytest.raises(RuntimeError, match="must be fitted before it is saved"):
        member.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match=r"frame must hold the columns \['answer', 'host'\]"):
        member.fit(toy_frame.drop(columns=["answer", "host"]))
    for rating, shown in ((1.5, "1.5"), (np.nan, "nothing"), ("high", "high")):
        ratings = [0.5] * 4 + [rating] + [0.5] * 15
        message = rf"frame: {TARGETS[2]} must be a number in \[0, 1\], however: {shown} in row 4 \(1 such rows\)"
        with pytest.raises(ValueError, match=message):
            member.fit(toy_frame.assign(**{TARGETS[2]: ratings}))
    with pytest.raises(TypeError, match="frame must be a pandas DataFrame, however: <class 'dict'>"):
        member.fit(toy_frame.to_dict())
    with pytest.raises(ValueError, match=r"there must be rows to learn from, however: len\(frame\)=0"):
        member.fit(toy_frame.iloc[:0])
    with pytest.raises(ValueError, match=r"must hold the columns \['question_title'\]"):
        member.fit(toy_frame).predict(toy_frame.drop(columns="question_title"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.arange(20) % 2 == 0, TypeError, r"rows must be indices, .*dtype\('bool'\).*numpy.flatnonzero"),
        (np.arange(6) / 2, TypeError, "rows must be indices"),
        ([0, 1, 25], ValueError, r"rows must lie in \[0, 20\), however: \[25\]"),
        ([-1, 3], ValueError, r"rows must lie in \[0, 20\), however: \[-1\]"),
        ([], ValueError, r"there must be rows to learn from, however: len\(frame\)=20, len\(chosen\)=0"),
    ],
)
def test_rows_that_are_no_indices_of_the_frame_are_refused(kind, rows, error, message, build, toy_frame):
    with pytest.raises(error, match=message):
        build(kind).fit(toy_frame, rows=rows)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_counted_from_0_whatever_the_index_of_the_frame(kind, build, toy_frame):
    part = toy_frame[toy_frame.index % 3 > 0]
    expected = build(kind).fit(part.reset_index(drop=True)).predict(part.reset_index(drop=True))
    assert np.array_equal(build(kind).fit(part, rows=range(len(part))).predict(part), expected)
    assert np.array_equal(build(kind).fit(part.set_index(["host", "url"], drop=False)).predict(part), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_member_that_could_not_be_fitted_anew_is_not_what_it_was(kind, build, toy_frame, monkeypatch):
    member = build(kind).fit(toy_frame)
    n_notes, n_records = len(member.notes), len(member.history)
    member.fit(toy_frame)
    assert (len(member.notes), len(member.history)) == (n_notes, n_records)
    monkeypatch.setattr(member, "_fit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        member.fit(toy_frame)
    with pytest.raises(RuntimeError, match="must be fitted before it predicts"):
        member.predict(toy_frame)


@pytest.mark.parametrize("kind", KINDS)
def test_folders_may_be_named_by_strings(kind, recipes, toy_frame, toy_test_frame, tmp_path):
    folders = {name: str(tmp_path / name) for name in ("cache_folder", "log_folder", "checkpoint_folder")}
    member = MEMBERS[kind](recipes[kind], **folders).fit(toy_frame)
    member.save(str(tmp_path / "saved"))
    loaded = load_member(str(tmp_path / "saved"), cache_folder=str(tmp_path / "cache"))
    assert np.array_equal(loaded.predict(toy_test_frame), member.predict(toy_test_frame))


def test_member_is_built_from_the_recipe_of_its_kind_alone(recipes, toy_frame, tmp_path):
    with pytest.raises(TypeError, match="TransformerMember must be built from a TransformerRecipe, however: Lexical"):
        MEMBERS["transformer"](recipes["lexical"])
    with pytest.raises(TypeError, match="LexicalMember must be built from a LexicalRecipe, however: str"):
        MEMBERS["lexical"]("all-MiniLM-L6-v2")
    MEMBERS["lexical"](recipes["lexical"]).fit(toy_frame).save(tmp_path / "saved")
    with pytest.raises(TypeError, match="TransformerMember must be built from"):
        MEMBERS["transformer"].load(tmp_path / "saved")


def test_folder_that_holds_no_member_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere must hold recipe.json of a member, .*members/<name>/fold-<k>"
    ):
        load_member(tmp_path / "nowhere")
    (tmp_path / "recipe.json").write_text('{"members": []}')  # that of a run
    with pytest.raises(FileNotFoundError, match="must hold recipe.json of a member"):
        load_member(tmp_path)


# The transformer's own


def fit_transformer(encoder_folder, frame, folder, **changes):  # noqa: ANN003
    recipe = toy.build_recipe(encoder_folder, **changes)
    return MEMBERS["transformer"](recipe, cache_folder=folder / "cache").fit(frame)


def test_questions_to_stop_by_are_not_learned_from(encoder_folder, toy_frame, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(transformer, "fit_stages", lambda *_, **each: given.update(each) or [])
    frame = toy_frame.assign(host=[f"host-{row}" for row in range(20)])
    member = fit_transformer(encoder_folder, frame, tmp_path, metadata=MetadataOptions(n_hosts=20))
    assert len(given["train_rows"]) + len(given["stop_rows"]) == 20
    assert len(member._metadata.hosts_) == len(given["train_rows"])  # a host a row: metadata is not learned from either


def test_questions_too_few_to_stop_by_are_refused_with_the_remedy(encoder_folder, toy_frame, tmp_path):
    with pytest.raises(
        ValueError, match="three questions at least, .*n_questions=2; give more, or set stop_share to 0"
    ):
        fit_transformer(encoder_folder, toy_frame.head(5), tmp_path)
    fit_transformer(encoder_folder, toy_frame.head(5), tmp_path, stop_share=0.0)


def test_without_a_stop_share_nothing_is_held_out(encoder_folder, toy_frame, tmp_path):
    member = fit_transformer(encoder_folder, toy_frame, tmp_path, stop_share=0.0)
    assert not [record for record in member.history if "eval_spearman" in record]
    assert [record for record in fit_transformer(encoder_folder, toy_frame, tmp_path).history if "eval_loss" in record]


def test_passes_longer_than_the_encoder_reads_are_refused(encoder_folder, toy_frame, tmp_path):
    layout = replace(toy.build_recipe(encoder_folder).layout, max_length=81)
    with pytest.raises(ValueError, match=r"max_length of member 'toy' must not exceed what .*81.*limit=80"):
        fit_transformer(encoder_folder, toy_frame, tmp_path, layout=layout)


def test_checkpoint_is_known_by_rows_and_their_questions_and_not_by_ids(recipes, toy_frame, tmp_path):
    member = MEMBERS["transformer"](recipes["transformer"], checkpoint_folder=tmp_path / "kept")
    expected = member._open_checkpoints(toy_frame)._of
    assert member._open_checkpoints(toy_frame.drop(columns="qa_id"))._of == expected
    for name in ("url", "answer", TARGETS[3]):  # another question may be held out, another row be learned from
        changed = toy_frame.assign(**{name: toy_frame[name].iloc[::-1].to_numpy()})
        assert member._open_checkpoints(changed)._of != expected


def test_cycles_go_through_the_stages_again(encoder_folder, toy_frame, tmp_path):
    member = fit_transformer(encoder_folder, toy_frame, tmp_path, cycles=3)
    assert {record["number"] for record in member.history} == {0, 1, 2}


def test_options_of_the_recipe_reach_the_model(encoder_folder, toy_frame, tmp_path):
    options = ModelOptions(pooling="gru", head="hidden", hidden_width=8, attention_dropout=0.0, n_mixed_layers=2)
    member = fit_transformer(encoder_folder, toy_frame, tmp_path, model=options)
    assert member._model.config.model_options == options
    assert member._model.body.config.attention_probs_dropout_prob == 0.0


def test_tensorboard_logs_lie_where_they_are_wanted(encoder_folder, toy_frame, tmp_path):
    recipe = toy.build_recipe(encoder_folder)
    recipe = replace(recipe, settings=replace(recipe.settings, use_tensorboard=True))
    MEMBERS["transformer"](recipe, cache_folder=tmp_path / "cache", log_folder=tmp_path / "logs").fit(toy_frame)
    assert list((tmp_path / "logs").rglob("events.out.tfevents*"))


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_precision_of_the_training_is_kept_or_the_other_one_is_said(
    has_bf16, expected, encoder_folder, toy_frame, toy_test_frame, tmp_path, monkeypatch, caplog
):
    recipe = toy.build_recipe(encoder_folder)
    recipe = replace(recipe, settings=replace(recipe.settings, precision="bf16"))
    member = MEMBERS["transformer"](recipe, cache_folder=tmp_path / "cache").fit(toy_frame)
    member.save(tmp_path / "saved")
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: has_bf16)
    loaded, seen = load_member(tmp_path / "saved", cache_folder=tmp_path / "cache"), []
    monkeypatch.setattr(
        "questlib.members.transformer.predict",
        lambda *_, precision, **__: seen.append(precision) or np.zeros((len(toy_test_frame), 30)),
    )
    loaded.predict(toy_test_frame)
    assert (loaded.precision, seen) == ("bf16", [expected])
    assert ("trained in bf16, which cpu does not have: predicts in fp32" in caplog.text) != has_bf16
