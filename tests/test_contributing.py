"""The specimens of CONTRIBUTING.md do what they say, each through a whole run on the toy tables."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from questlib import recipe, stage
from questlib.inference import predict_table
from questlib.members import MEMBERS
from questlib.model.losses import LOSSES
from questlib.model.poolings import POOLINGS
from questlib.recipe import Recipe
from questlib.run_folder import fold_folder, read_json
from questlib.schema import TARGETS
from questlib.training.kinds import STAGE_KINDS

ROOT = Path(__file__).parents[1]
SECTIONS = re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
SPECIMENS = {
    section.splitlines()[0]: code
    for section in SECTIONS
    for code in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
}
STAGE = {"name": "full", "trainable": ["*"], "epochs": 1, "learning_rate": 1e-3, "head_learning_rate": 1e-2}
# What a user adds to the parameters to use each.
USES: dict[str, dict[str, Any]] = {
    "Add a loss": {"loss": "squared_error"},
    "Add a pooling": {"pooling": "max"},
    "Add a member": {"members": [{"name": "means", "kind": "category", "strength": 2.0}]},
    "Add a stage kind": {"stages": [STAGE | {"kind": "shrink", "share": 0.25}]},
}


@pytest.fixture
def tables_as_they_were():
    """What a specimen adds is taken away again."""
    tables: list[Any] = [
        recipe.LOSSES, recipe.POOLINGS, LOSSES, POOLINGS, recipe.MEMBER_RECIPES, MEMBERS, stage.STAGE_RECIPES,
        STAGE_KINDS,
    ]  # fmt: skip
    kept = [table.copy() for table in tables]
    yield
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.extend(before) if isinstance(table, list) else table.update(before)


def test_every_specimen_is_used_here() -> None:
    assert list(SPECIMENS) == list(USES)


@pytest.mark.parametrize("name", USES)
def test_specimen_trains_and_predicts_in_a_run(name, tables_as_they_were, train_toy, encoder_folder, tmp_path) -> None:
    parameters = {
        "members": [{"name": "toy", "kind": "transformer"}],
        "encoder": str(encoder_folder),
        "stages": [STAGE],
        "max_length": 32,
        "title_tokens": 8,
        "precision": "fp32",
        "folds": 2,
        "folds_to_train": 2,
    }
    with pytest.raises(ValueError, match="unknown"):
        Recipe.from_parameters(parameters | USES[name])
    exec(SPECIMENS[name], {"__name__": "specimen"})
    trained = train_toy(Recipe.from_parameters(parameters | USES[name]))
    [member] = trained.recipe.members
    again = predict_table(trained.run_folder, trained.tables.test, cache_folder=tmp_path / "elsewhere")
    assert np.array_equal(again, trained.submission[list(TARGETS)].to_numpy())
    kept = read_json(fold_folder(trained.run_folder, member.name, 0) / "recipe.json")
    assert kept["kind"] == member.kind


def test_layers_are_those_that_the_tests_hold() -> None:
    from test_imports import LAYERS

    page = next(section for section in SECTIONS if section.startswith("Layers"))
    shown = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    for line, names in zip(reversed(shown), LAYERS, strict=True):
        shown_names, *_ = re.split(" {3,}", line)  # what they are for stands apart
        assert set(shown_names.replace("/", "").split()) == set(names)
