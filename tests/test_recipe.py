import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from questlib.parameters import override, read_parameters
from questlib.profiles import read_profile
from questlib.recipe import (
    MEMBER_RECIPES,
    PRECISIONS,
    BoostedRecipe,
    LexicalRecipe,
    ModelOptions,
    Recipe,
    TextLayout,
    TrainingSettings,
    TransformerRecipe,
    is_unread,
)
from questlib.stage import SCHEDULES, Stage
from questlib.typed_json import list_leaves

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STAGE = {"name": "full", "trainable": ["*"], "epochs": 3, "learning_rate": 3e-5, "head_learning_rate": 1e-3}
PARAMETERS = {
    "members": [{"name": "minilm", "kind": "transformer"}, {"name": "lexical", "kind": "lexical"}],
    "encoder": "all-MiniLM-L6-v2",
    "max_length": 256,
    "n_hosts": 3,
    "pooling": "cls_mean",
    "stages": [STAGE],
    "batch_size": 8,
    "seed": 7,
    "folds": 4,
    "folds_to_train": 2,
    "cache": "not of a recipe",
}
stages = st.builds(
    Stage,
    name=st.text(min_size=1),
    trainable=st.lists(st.sampled_from(["*", "head.*", "body.*.bias", "?ody.*"]), max_size=3).map(tuple),
    epochs=st.floats(1e-3, 1000),
    learning_rate=st.floats(0, 1),
    head_learning_rate=st.floats(0, 1),
    schedule=st.sampled_from(SCHEDULES),
)
members = st.lists(
    st.builds(
        TransformerRecipe,
        encoder=st.text(),
        layout=st.builds(TextLayout, max_length=st.integers(40, 512)),
        model=st.builds(ModelOptions, attention_dropout=st.none() | st.floats(0, 0.9)),
        stages=st.lists(stages, min_size=1, max_size=3).map(tuple),
        settings=st.builds(TrainingSettings, precision=st.sampled_from(PRECISIONS), seed=st.integers(0, 99)),
    )
    | st.builds(LexicalRecipe, alpha=st.floats(0.1, 10))
    | st.builds(BoostedRecipe, shrinkage=st.floats(0.01, 1)),
    min_size=1,
    max_size=3,
).map(lambda found: tuple(replace(each, name=f"member-{number}") for number, each in enumerate(found)))


@given(recipe=st.builds(Recipe, members=members, folds=st.integers(2, 9), seed=st.integers(0, 99)))
def test_recipe_is_read_back_from_json_as_what_it_was_written_from(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_parameters_reach_the_groups_they_belong_to() -> None:
    minilm, lexical = Recipe.from_parameters(PARAMETERS).members
    assert isinstance(minilm, TransformerRecipe)
    assert (minilm.layout.max_length, minilm.metadata.n_hosts, minilm.model.pooling) == (256, 3, "cls_mean")
    assert (minilm.settings.batch_size, minilm.settings.seed, minilm.folds_to_train) == (8, 7, 2)
    assert minilm.stages == (Stage(**STAGE),)
    assert lexical == LexicalRecipe(name="lexical", folds_to_train=2)


def test_a_member_overrides_what_it_names_for_itself_alone() -> None:
    entry = {"name": "other", "kind": "transformer", "encoder": "roberta-base", "max_length": 384, "seed": 1}
    recipe = Recipe.from_parameters(PARAMETERS | {"members": [*PARAMETERS["members"], entry]})
    first, _, other = recipe.members
    assert (first.layout.max_length, other.layout.max_length) == (256, 384)
    assert (first.settings.seed, other.settings.seed, recipe.seed) == (7, 1, 7)
    assert recipe.encoders == ["all-MiniLM-L6-v2", "roberta-base"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"members": [{"name": "a", "kind": "transformr"}]},
            ValueError,
            r"unknown kind of member 'a': 'transformr' \(did you mean 'transformer'\?\)",
        ),
        (
            {"members": [{"name": "a", "kind": "transformer", "max_lenght": 3}]},
            ValueError,
            r"unknown parameter of transformer member 'a': 'max_lenght' \(did you mean 'max_length'\?\)",
        ),
        (
            {"members": [{"name": "a", "kind": "lexical", "pooling": "cls"}]},
            ValueError,
            "unknown parameter of lexical member 'a': 'pooling'",
        ),
        ({"members": ["lexical"]}, ValueError, r"members\[0\] must map parameters to values, name and kind among them"),
        ({"members": [{"kind": "lexical"}]}, ValueError, r"members\[0\] must map .* name and kind among them"),
        ({"members": "lexical"}, TypeError, "members must be a list of members, however: 'lexical'"),
        ({"members": []}, ValueError, "there must be members"),
        ({"members": [PARAMETERS["members"][1]] * 2}, ValueError, "each with a name of its own"),
        ({"members": [{"name": "tied", "kind": "lexical"}]}, ValueError, "a member's name must be a word"),
        ({"members": [{"name": "../x", "kind": "lexical"}]}, ValueError, r"however: '\.\./x'"),
        ({"members": [{"name": 3, "kind": "lexical"}]}, TypeError, r"members\[0\]\.name must be of type str"),
        ({"folds_to_train": 5}, ValueError, r"folds_to_train of member 'minilm' must lie in \[1, 4\], however: 5"),
        ({"folds": 1}, ValueError, "folds must lie in"),
        ({"split": "questions"}, ValueError, r"unknown split: 'questions' \(did you mean 'question'"),
        ({"pooling": "mena"}, ValueError, r"unknown pooling: 'mena' \(did you mean 'mean'"),
        ({"loss": "bce"}, ValueError, "unknown loss: 'bce'"),
        ({"max_length": "256"}, TypeError, r"members\[0\]\.layout\.max_length must be of type int, however: '256'"),
        ({"max_length": 16, "title_tokens": 30}, ValueError, r"title_tokens must lie in \[1, 16\], however: 30"),
        ({"batch_size": 0}, ValueError, "settings: batch_size must lie in"),
        ({"batch_size": 2.5}, TypeError, r"settings\.batch_size must be of type int, however: 2.5"),
        ({"use_split_head": 1}, TypeError, "use_split_head must be of type bool, however: 1"),
        ({"seed": 2**31}, ValueError, "seed must lie in"),
        ({"stages": []}, ValueError, "there must be a stage"),
        ({"evaluate_every": 50, "stop_share": 0.0}, ValueError, "held out, however: self.stop_share=0.0"),
        ({"stages": [STAGE | {"epoch": 1}]}, ValueError, r"stages\[0\]: 'epoch' \(did you mean 'epochs'"),
        ({"stages": [STAGE | {"epochs": "3"}]}, TypeError, r"stages\[0\]\.epochs must be of type float, however: '3'"),
        ({"stages": [STAGE | {"epochs": 0}]}, ValueError, r"stages\[0\]: epochs must lie in"),
        ({"stages": [STAGE | {"schedule": "linaer"}]}, ValueError, "did you mean 'linear'"),
        (
            {"stages": [STAGE | {"schedule": "constant", "warmup_share": 0.1}]}, ValueError,
            "has no warm-up, however self.warmup_share=0.1 in stage 'full'; name the schedule constant_with_warmup",
        ),
        ({"stages": [STAGE | {"kind": "fine"}]}, ValueError, r"unknown kind of .*stages\[0\]: 'fine' \(did you mean"),
        ({"stages": [STAGE | {"trainable": ["haed.*"]}]}, ValueError, r"must match a parameter, however: 'haed\.\*'"),
        ({"stages": [{"name": "full"}]}, ValueError, r"stages\[0\] must state \['trainable', 'epochs', 'learning"),
        ({"target_weights": {"answer_helpfull": 2}}, ValueError, "did you mean 'answer_helpful'"),
        ({"target_weights": {"answer_helpful": "2"}}, TypeError, r"target_weights\['answer_helpful'\] must be of type"),
    ],
)  # fmt: skip
def test_what_is_misspelt_or_unfitting_is_refused_by_name(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Recipe.from_parameters(PARAMETERS | changes)


@pytest.mark.parametrize("kind", MEMBER_RECIPES)
def test_every_field_of_a_recipe_has_a_name_of_its_own(kind: str) -> None:
    def count(recipe: type) -> int:
        groups = [each for each in fields(recipe) if hasattr(each.default, "__dataclass_fields__")]
        return len(fields(recipe)) - len(groups) + sum(count(type(each.default)) for each in groups)

    assert len(list_leaves(MEMBER_RECIPES[kind])) == count(MEMBER_RECIPES[kind])


def test_folds_of_a_transformer_have_seeds_of_their_own() -> None:
    minilm, lexical = Recipe.from_parameters(PARAMETERS).members
    assert [minilm.for_fold(fold).settings.seed for fold in range(3)] == [7, 8, 9]
    assert lexical.for_fold(2) == lexical
    last = replace(minilm, settings=replace(minilm.settings, seed=2**31 - 1))
    assert [last.for_fold(fold).settings.seed for fold in range(2)] == [2**31 - 1, 0]


def test_a_recipe_that_travels_names_no_path_of_the_machine() -> None:
    minilm = Recipe.from_parameters(PARAMETERS).members[0]
    assert minilm.without_paths() == minilm
    assert replace(minilm, encoder="/home/alice/bert").without_paths().encoder == "bert"


def test_the_notebooks_parameters_and_every_profile_make_a_recipe() -> None:
    defaults = read_parameters(NOTEBOOKS / "quest.ipynb")
    for path in (each for each in (NOTEBOOKS / "profiles").glob("*.yaml") if each.stem != "kaggle-predict"):
        recipe = Recipe.from_parameters(override(defaults, read_profile(NOTEBOOKS / "profiles", path.stem)))
        assert {member.kind for member in recipe.members} - {"boosted"} == {"transformer", "lexical"}


def test_every_parameter_of_a_member_can_be_given_in_the_notebook() -> None:
    defaults = read_parameters(NOTEBOOKS / "quest.ipynb")
    assert set(list_leaves(TransformerRecipe)) - {"name"} <= set(defaults)


def test_a_parameter_is_unread_where_each_member_has_its_own_or_no_use_for_it() -> None:
    def unread(*members: dict) -> list[str]:
        names = ["encoder", "stages.full.epochs", "alpha", "seed", "folds", "data", "members.lexical.alpha"]
        return [name for name in names if is_unread(name, PARAMETERS | {"members": list(members)})]

    minilm, lexical = PARAMETERS["members"]
    # Its own stages are a copy of those that all have, where a dotted name reached into them.
    own = {"name": "own", "kind": "transformer", "encoder": "bert", "stages": [STAGE]}
    assert unread(minilm, lexical) == []
    assert unread(own, minilm) == ["alpha"]
    assert unread(own, lexical) == ["encoder"]
    assert unread(lexical) == ["encoder", "stages.full.epochs"]


def test_recipe_survives_yaml_too() -> None:
    recipe = Recipe.from_parameters(PARAMETERS)
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
