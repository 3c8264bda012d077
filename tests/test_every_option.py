"""Whatever a parameter is set to: a training that is interrupted ends as it would have, and comes back from its folder.

Parameters of names or truth are found in their dataclasses, so a new one is tried as soon as it is there.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import toy

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
N_STEPS_BEFORE_THE_INTERRUPTION = 3


def list_options() -> Iterator[dict[str, Any]]:
    """Give the usual parameters with one of them set to each other value that it may have."""
    for kind in (TextLayout, MetadataOptions, ModelOptions, TrainingSettings, TransformerRecipe):
        for each in fields(kind):
            values = each.metadata.get("known", [not each.default] if isinstance(each.default, bool) else [])
            yield from ({each.name: value} for value in values if value != USUAL.get(each.name, each.default))
    for each in fields(Stage):
        yield from ({"stages": {each.name: value}} for value in each.metadata.get("known", []) if value != each.default)
    yield from ({"stages": {"kind": kind, "trainable": ["head.*"]}} for kind in STAGE_RECIPES if kind != Stage.kind)
    yield from ({name: value} for name, value in NUMBERS.items() if name != "stages")
    yield from ({"stages": {name: value}} for name, value in NUMBERS["stages"].items())


def name_option(option: dict[str, Any]) -> str:
    [(name, value)] = option.items()
    return "-".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else f"{name}-{value}"


@pytest.mark.parametrize("option", list(list_options()), ids=name_option)
def test_training_goes_on_and_comes_back_whatever_is_set(option, encoder_folder, toy_frame, tmp_path, monkeypatch):
    parameters = USUAL | {"encoder": str(encoder_folder)} | option
    if "stages" in option:
        parameters["stages"] = [FULL | option["stages"], HEAD]
    [recipe] = Recipe.from_parameters(parameters).members

    def build(name: str) -> TransformerMember:
        folders = {"log_folder": tmp_path / name / "logs", "checkpoint_folder": tmp_path / name / "checkpoints"}
        return TransformerMember(recipe, cache_folder=tmp_path / "cache", **folders)

    expected = build("whole").fit(toy_frame).predict(toy_frame)
    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, N_STEPS_BEFORE_THE_INTERRUPTION)
        with pytest.raises(KeyboardInterrupt):
            build("interrupted").fit(toy_frame)
    resumed = build("interrupted").fit(toy_frame)
    predicted = resumed.predict(toy_frame)
    np.testing.assert_allclose(predicted, expected, atol=1e-6 if resumed.precision == "fp32" else 2e-2)
    resumed.save(tmp_path / "member")
    assert np.array_equal(
        load_member(tmp_path / "member", cache_folder=tmp_path / "cache").predict(toy_frame), predicted
    )
