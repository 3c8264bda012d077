"""What `questlib` itself offers: names that come when they are asked for."""

import ast
import inspect
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pandas as pd
import pytest
from test_imports import LAYER, N_LIGHT, PACKAGE

import questlib

NAMES = [name for name in questlib.__all__ if name != "__version__"]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_for_type_checkers() -> dict[str, str]:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports if "questlib" in node.module for alias in node.names)
    return {alias.name: node.module for node in imports if "questlib" in node.module for alias in node.names}


def test_type_checkers_see_the_names_that_are_there() -> None:
    seen = names_for_type_checkers()
    assert sorted(seen) == sorted(NAMES)
    for name, module in seen.items():
        assert getattr(questlib, name) is getattr(import_module(module), name)
    assert set(NAMES) <= set(dir(questlib))


def test_package_is_imported_in_no_time_and_imports_nothing() -> None:
    code = (
        "import sys, time\n"
        "before, start = set(sys.modules), time.perf_counter()\n"
        "import questlib\n"
        "print(time.perf_counter() - start)\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))\n"
    )
    seconds, loaded = zip(*(run(code).splitlines() for _ in range(3)), strict=True)
    assert set(loaded) == {"questlib"}
    assert min(map(float, seconds)) < 0.1


def test_names_of_low_layers_come_without_torch() -> None:
    light = [name for name, module in names_for_type_checkers().items() if LAYER[module.split(".")[1]] < N_LIGHT]
    assert {"Blend", "RankTies", "LexicalModel", "MetadataEncoder", "Recipe", "mean_spearman", "read_tables"} <= set(
        light
    )
    run(f"import sys; from questlib import {', '.join(light)}; assert 'torch' not in sys.modules")


def test_misspelt_name_is_refused_with_the_nearest() -> None:
    assert not hasattr(questlib, "RankTie")
    with pytest.raises(AttributeError, match="module 'questlib' has no attribute 'RankTie'") as caught:
        questlib.RankTie  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("RankTie", questlib)  # what Python's own suggestion is made from


def test_no_module_imports_from_the_front() -> None:
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {
            alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module == "questlib"
            for alias in node.names
        }
        assert not names & set(NAMES), f"{path.name} must import {names & set(NAMES)} from their own modules"


def functions_of(name: str) -> list:
    offered = getattr(questlib, name)
    if not inspect.isclass(offered):
        return [offered] if callable(offered) else []
    public = [each for each in vars(offered).values() if not getattr(each, "__name__", "_").startswith("_")]
    return [offered.__init__, *(getattr(each, "__func__", each) for each in public if not isinstance(each, property))]


@pytest.mark.parametrize("name", NAMES)
def test_paths_may_be_strings_wherever_they_are_given(name: str) -> None:
    for function in functions_of(name):
        hints = get_type_hints(function) if inspect.isfunction(function) else {}
        for argument, hint in hints.items():
            if argument != "return" and (hint is Path or Path in get_args(hint)):
                assert str in get_args(hint), f"{function.__qualname__}: {argument} must be a string too"


def test_run_is_trained_and_predicts_in_folders_that_are_named_by_strings(toy_folder, lexical_recipe, tmp_path) -> None:
    tables, run_folder, cache_folder = (
        questlib.read_tables(str(toy_folder)),
        str(tmp_path / "run"),
        str(tmp_path / "cache"),
    )
    submission = questlib.train_members(
        tables, lexical_recipe, run_folder=run_folder, cache_folder=cache_folder, clock=questlib.Clock(run_folder)
    )
    predicted = questlib.predict_table(run_folder, tables.test, cache_folder=cache_folder)
    path, ids = str(tmp_path / "again.csv"), tables.test["qa_id"]
    again = questlib.write_submission(path, predicted, ids=ids, sample_submission=tables.sample_submission)
    pd.testing.assert_frame_equal(again, submission)
    with pytest.raises(ValueError, match=r"frame must hold the columns \['host'\]"):
        questlib.predict_table(run_folder, tables.test.drop(columns="host"))


def test_folders_may_lie_in_the_home(toy_folder, lexical_recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tables, run_folder, options = questlib.read_tables("~/toy"), "~/run", {"cache_folder": "~/cache"}
    questlib.train_members(tables, lexical_recipe, run_folder=run_folder, clock=questlib.Clock(run_folder), **options)
    questlib.predict_table(run_folder, tables.test, **options)
    fold = questlib.load_member("~/run/members/lexical/fold-0", **options)
    fold.save("~/saved")
    questlib.LexicalModel.load("~/saved").save("~/model")
    assert {path.name for path in tmp_path.iterdir()} == {"toy", "run", "cache", "saved", "model"}


def test_encoder_of_a_recipe_may_be_a_path_and_its_stages_a_list() -> None:
    stage = questlib.Stage(name="full", trainable=["*"], epochs=1, learning_rate=1e-5, head_learning_rate=1e-3)
    recipe = questlib.TransformerRecipe(encoder=Path("some/encoder"), stages=[stage])
    assert recipe == questlib.TransformerRecipe(encoder="some/encoder", stages=(stage,))
    assert questlib.Recipe.from_dict(questlib.Recipe(members=[recipe]).to_dict()).members == (recipe,)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("encoder", None, "encoder must be a name or a folder, however: None"),
        ("stages", {"name": "full"}, "stages must be a list of Stage, however: {'name': 'full'}; put one into"),
        ("stages", [{"name": "full"}], "stages must be a list of Stage"),
        ("name", 5, "name must be of type str, however: 5"),
        ("layout", {"max_length": 32}, "layout must be of type TextLayout, however: {'max_length': 32}"),
        ("model", None, "model must be of type ModelOptions, however: None"),
        ("cycles", 1.5, "cycles must be of type int, however: 1.5"),
    ],
)
def test_recipe_that_is_built_of_something_else_is_refused_at_once(field: str, value: object, message: str) -> None:
    stage = questlib.Stage(name="full", trainable=["*"], epochs=1, learning_rate=1e-5, head_learning_rate=1e-3)
    with pytest.raises(TypeError, match=message):
        questlib.TransformerRecipe(**{"encoder": "bert", "stages": [stage]} | {field: value})
    with pytest.raises(TypeError, match=r"trainable must be a list of str, however: 'head\.\*'; put one into"):
        replace(stage, trainable="head.*")
    with pytest.raises(TypeError, match="members must be a list of MemberRecipe, however: LexicalRecipe"):
        questlib.Recipe(members=questlib.LexicalRecipe())
    with pytest.raises(TypeError, match="use_text_statistics must be of type bool, however: 'no'"):
        questlib.MetadataOptions(use_text_statistics="no")
    with pytest.raises(TypeError, match=r"batch_size must be of type int, however: 16\.0"):
        questlib.TrainingSettings(batch_size=16.0)
