"""Whatever a parameter is set to: a training that is interrupted ends as it would have, and comes back from its folder.

Parameters of names or truth are found in their dataclasses, so a new one is tried as soon as it is there.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from questlib.members import TransformerMember, load_member
from questlib.recipe import MetadataOptions, ModelOptions, Recipe, TextLayout, TrainingSettings, TransformerRecipe
from questlib.stage import STAGE_RECIPES, Stage

FULL = {"name": "full", "trainable": ["*"], "epochs": 1, "learning_rate": 1e-3, "head_learning_rate": 1e-2}
HEAD = {"name": "head", "trainable": ["head.*"], "epochs": 1, "learning_rate": 0.0, "head_learning_rate": 1e-2}
USUAL = {
    "members": [{"name": "toy", "kind": "transformer"}], "stages": [FULL, HEAD], "max_length": 24, "title_tokens": 6,
    "n_hosts": 2, "stop_share": 0.3, "batch_size": 4, "precision": "fp32", "hidden_width": 8,
}  # fmt: skip
NUMBERS = {
    "accumulation": 2, "attention_dropout": 0.2, "body_share": 0.3, "cycles": 2, "evaluate_every": 3,
    "freeze_layers": 1, "head_dropout": 0.0, "head_share": 0.5, "hidden_dropout": 0.2, "n_mixed_layers": 2,
    "patience": 0, "reset_layers": 1, "stop_share": 0.0, "stride": 4, "target_weights": {"answer_helpful": 2.0},
    "stages": {"average_share": 0.5, "layer_decay": 0.8, "warmup_share": 0.3, "weight_decay": 0.1},
}  # fmt: skip
OF_KIND = {"lora": "head.*", "masked_language": "body.*"}  # what stages of other kinds may train
NOT_FIRST = {"pseudo_label"}
N_EXAMPLES = int(os.environ.get("QUEST_EXAMPLES", "3"))  # `make stress` asks for more
N_STEPS_BEFORE_THE_INTERRUPTION = 3


def list_options() -> Iterator[dict[str, Any]]:
    """Give the usual parameters with one of them set to each other value that it may have."""
    for kind in (TextLayout, MetadataOptions, ModelOptions, TrainingSettings, TransformerRecipe):
        for each in fields(kind):
            values = each.metadata.get("known", [not each.default] if isinstance(each.default, bool) else [])
            yield from ({each.name: value} for value in values if value != USUAL.get(each.name, each.default))
    for each in fields(Stage):
        yield from ({"stages": {each.name: value}} for value in each.metadata.get("known", []) if value != each.default)
    for kind, part in OF_KIND.items():
        of_kind = {"kind": kind, "trainable": [part]}
        yield {"stages": of_kind}
        for each in fields(STAGE_RECIPES[kind]):
            if isinstance(each.default, bool):
                yield {"stages": of_kind | {each.name: not each.default}}
    yield from ({name: value} for name, value in NUMBERS.items() if name != "stages")
    yield {"freeze_layers": 2}  # all that the toy has
    yield from ({"stages": {name: value}} for name, value in NUMBERS["stages"].items())


def name_option(option: dict[str, Any]) -> str:
    [(name, value)] = option.items()
    return "-".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else f"{name}-{value}"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return {family: toy.write_encoder(tmp_path_factory.mktemp(family), family=family) for family in toy.FAMILIES}


def build_recipe(options: list[dict[str, Any]], encoder: Path) -> TransformerRecipe:
    parameters: dict[str, Any] = USUAL | {"encoder": str(encoder)}
    full = FULL
    for option in options:
        full = full | option.get("stages", {})
        parameters = parameters | option
    [recipe] = Recipe.from_parameters(parameters | {"stages": [full, HEAD]}).members
    return recipe


def assert_goes_on_and_comes_back(recipe: TransformerRecipe, frame: pd.DataFrame, folder: Path) -> None:
    def build(name: str) -> TransformerMember:
        folders = {"log_folder": folder / name / "logs", "checkpoint_folder": folder / name / "checkpoints"}
        return TransformerMember(recipe, cache_folder=folder / "cache", **folders)

    expected = build("whole").fit(frame).predict(frame)
    with pytest.MonkeyPatch.context() as patch:
        toy.interrupt_after(patch, N_STEPS_BEFORE_THE_INTERRUPTION)
        with pytest.raises(KeyboardInterrupt):
            build("interrupted").fit(frame)
    resumed = build("interrupted").fit(frame)
    predicted = resumed.predict(frame)
    np.testing.assert_allclose(predicted, expected, atol=1e-6 if resumed.precision == "fp32" else 2e-2)
    resumed.save(folder / "member")
    assert np.array_equal(load_member(folder / "member", cache_folder=folder / "cache").predict(frame), predicted)


def test_every_kind_of_stage_is_among_the_options():
    assert {Stage.kind, *OF_KIND, *NOT_FIRST} == STAGE_RECIPES.keys()


@pytest.mark.parametrize("option", list(list_options()), ids=name_option)
def test_training_goes_on_and_comes_back_whatever_is_set(option, encoder_folder, toy_frame, tmp_path):
    recipe = build_recipe([option], encoder_folder)
    TransformerMember(recipe, cache_folder=tmp_path / "cache").check()  # nothing that works alone is refused
    assert_goes_on_and_comes_back(recipe, toy_frame, tmp_path)


@settings(max_examples=N_EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])  # it is only read
@given(family=st.sampled_from(toy.FAMILIES), options=st.lists(st.sampled_from(list(list_options())), max_size=8))
def test_what_is_set_together_is_refused_before_it_is_trained_or_works(family, options, encoders, toy_frame):
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = build_recipe(options, encoders[family])
            TransformerMember(recipe, cache_folder=Path(folder) / "cache").check()
        except ValueError as refused:
            if "however" in str(refused):
                return
            raise
        assert_goes_on_and_comes_back(recipe, toy_frame, Path(folder))
