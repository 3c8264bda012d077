"""A run goes on where it was: nothing finished is repeated, and no other run is taken for it."""

import os
import shutil
from dataclasses import replace

import pytest
import toy
from safetensors.torch import load_file, save_file

from questlib import folds, tasks
from questlib.clock import Clock
from questlib.data import read_tables
from questlib.folds import train_members
from questlib.marks import list_outputs
from questlib.members.transformer import TransformerMember
from questlib.page import write_page
from questlib.recipe import LexicalRecipe, Recipe
from questlib.resume import keep_inputs, refuse_changed, refuse_foreign
from questlib.run_folder import TIMELINE, checkpoint_folder, locked, read_json
from questlib.training.checkpoint import Checkpoint, Checkpoints


@pytest.fixture
def go_on(toy_folder, tmp_path):
    """Train a recipe into one run folder, as often as it is called."""

    def call(recipe, *, data=toy_folder, **options):  # noqa: ANN003
        run_folder = tmp_path / "run"
        tables = read_tables(str(data))
        clock = Clock(run_folder)
        return train_members(
            tables, recipe, run_folder=run_folder, cache_folder=tmp_path / "cache", clock=clock, **options
        )

    return call


@pytest.fixture
def calls(monkeypatch):
    """The names of the folds that are trained."""
    called = []

    def count(task):
        called.append(task.name)
        return tasks.train_fold(task)

    monkeypatch.setattr(folds, "train_fold", count)
    return called


def notes_of(run_folder) -> list[str]:
    return [note["note"] for note in read_json(run_folder / TIMELINE)["notes"]]


def content_of(run_folder) -> dict[str, bytes]:
    """What a run left, but for what tells the time: a history says how long a stage took."""
    files = (path for path in sorted(run_folder.rglob("*")) if path.is_file())
    timed = {TIMELINE, "history.json", "done.json"}
    return {path.relative_to(run_folder).as_posix(): path.read_bytes() for path in files if path.name not in timed}


def test_finished_run_is_not_trained_again(go_on, toy_recipe, calls, tmp_path):
    first = go_on(toy_recipe)
    assert calls == ["lexical, fold 0", "lexical, fold 1", "toy, fold 0", "toy, fold 1"]
    before = content_of(tmp_path / "run")
    calls.clear()
    second = go_on(toy_recipe)
    assert calls == []
    assert content_of(tmp_path / "run") == before
    assert second.equals(first)
    assert notes_of(tmp_path / "run") == ["resumed: finished before were folds 2 of toy, 2 of lexical"]
    assert len(read_json(tmp_path / "run" / TIMELINE)["earlier"]) == 1


def test_run_that_was_ended_between_folds_is_the_run_that_was_not(go_on, toy_recipe, calls, tmp_path, monkeypatch):
    expected = go_on(toy_recipe)
    before = content_of(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    for n_folds in (1, 2):
        calls.clear()

        def end(task, n_folds=n_folds):
            if len(calls) == n_folds:
                raise KeyboardInterrupt
            calls.append(task.name)
            return tasks.train_fold(task)

        with monkeypatch.context() as patch:
            patch.setattr(folds, "train_fold", end)
            with pytest.raises(KeyboardInterrupt):
                go_on(toy_recipe)
        assert (tmp_path / "run" / "submission.csv").exists()
    assert go_on(toy_recipe).equals(expected)
    assert content_of(tmp_path / "run") == before


def test_damaged_fold_is_named_and_trained_again(go_on, toy_recipe, calls, tmp_path):
    expected = go_on(toy_recipe)
    (tmp_path / "run" / "members" / "toy" / "fold-1" / "model.safetensors").write_bytes(b"damage")
    calls.clear()
    assert go_on(toy_recipe).equals(expected)
    assert calls == ["toy, fold 1"]
    assert any(
        note.startswith("toy, fold 1: is trained anew, because ./members/toy/fold-1")
        for note in notes_of(tmp_path / "run")
    )


def test_more_folds_extend_the_run(go_on, lexical_recipe, calls, tmp_path):
    go_on(lexical_recipe)
    calls.clear()
    (lexical,) = lexical_recipe.members
    go_on(replace(lexical_recipe, members=(replace(lexical, folds_to_train=3),)))
    assert calls == ["lexical, fold 2"]
    assert sorted(path.name for path in (tmp_path / "run" / "members" / "lexical").iterdir()) == [
        "fold-0",
        "fold-1",
        "fold-2",
    ]


def test_run_of_ones_own_code_that_is_extended_is_not_finished_until_it_ends_again(go_on, lexical_recipe, tmp_path):
    go_on(lexical_recipe)
    list_outputs(tmp_path / "run")
    keep_inputs(tmp_path / "run", lexical_recipe, read_tables(str(tmp_path / "toy")))
    assert "unfinished" in write_page(tmp_path / "run").read_text(encoding="utf-8")


def change_stage(recipe: Recipe, **changes) -> Recipe:  # noqa: ANN003
    member, *others = recipe.members
    stages = tuple(replace(stage, **changes) for stage in member.stages)
    return replace(recipe, members=(replace(member, stages=stages), *others))


def change_member(recipe: Recipe, **changes) -> Recipe:  # noqa: ANN003
    return replace(recipe, members=(replace(recipe.members[0], **changes), *recipe.members[1:]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda recipe: change_stage(recipe, learning_rate=3e-5), r"stages\.full\.learning_rate was 0\.001, is 3e-05"),
        (lambda recipe: change_stage(recipe, epochs=2.0), r"stages\.full\.epochs was 1\.0, is 2\.0"),
        (lambda recipe: change_stage(recipe, name="all"), r"stages\.full\.name was full, is not there"),
        (lambda recipe: change_member(recipe, stop_share=0.2), r"members\.toy\.stop_share was 0\.3, is 0\.2"),
        (
            lambda recipe: change_member(recipe, settings=replace(recipe.members[0].settings, batch_size=8)),
            r"members\.toy\.batch_size was 4, is 8",
        ),
        (lambda recipe: change_member(recipe, folds_to_train=1), r"members\.toy\.folds_to_train was 2, is 1"),
        (lambda recipe: replace(recipe, seed=1), "seed was 42, is 1"),
        (lambda recipe: replace(recipe, folds=4), "folds was 3, is 4"),
        (lambda recipe: replace(recipe, split="random"), "split was question, is random"),
        (
            lambda recipe: replace(recipe, members=recipe.members[:1]),
            r"members\.lexical\.kind was lexical, is not there",
        ),
    ],
)
def test_another_recipe_is_refused_by_the_difference(trained, toy_recipe, change, told):
    refuse_changed(trained.run_folder, toy_recipe, trained.tables)
    with pytest.raises(ValueError, match=f"can only go on as it began, however: .*{told}"):
        refuse_changed(trained.run_folder, change(toy_recipe), trained.tables)


def stage_of(recipe: Recipe, **changes):  # noqa: ANN003, ANN201
    return replace(recipe.members[0].stages[0], **changes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("full", 1e-3), ("head", 1e-3)], [("head", 1e-3), ("full", 1e-3)]),
        ([("full", 1e-3), ("full", 1e-4)], [("full", 1e-5), ("full", 1e-4)]),
        ([("full", 1e-3), ("full", 1e-4)], [("full", 1e-4)]),
        ([("full", 1e-3), ("full", 1e-4)], [("full", 1e-4), ("full", 1e-3)]),
    ],
)
def test_stages_of_one_name_or_in_another_order_are_another_recipe(before, after, toy_recipe, toy_folder, tmp_path):
    tables, run_folder = read_tables(str(toy_folder)), tmp_path / "run"

    def with_stages(stages) -> Recipe:  # noqa: ANN001
        made = tuple(stage_of(toy_recipe, name=name, learning_rate=rate) for name, rate in stages)
        return change_member(toy_recipe, stages=made)

    keep_inputs(run_folder, with_stages(before), tables)
    refuse_changed(run_folder, with_stages(before), tables)
    with pytest.raises(ValueError, match=r"can only go on as it began, however: members\.toy\.stages"):
        refuse_changed(run_folder, with_stages(after), tables)


@pytest.mark.parametrize("name", ["model", "settings", "layout", "metadata"])
def test_a_member_may_be_named_as_a_group_of_parameters_is(name, toy_recipe, toy_folder, tmp_path):
    tables, run_folder = read_tables(str(toy_folder)), tmp_path / "run"
    members = tuple(replace(toy_recipe.members[0], name=each) for each in (name, "other"))
    recipe = replace(toy_recipe, members=members)
    keep_inputs(run_folder, recipe, tables)
    with pytest.raises(ValueError, match=rf"members\.{name}\.stop_share was 0\.3, is 0\.2"):
        refuse_changed(run_folder, change_member(recipe, stop_share=0.2), tables)
    with pytest.raises(ValueError, match=rf"members was \['{name}', 'other'\], is \['other', '{name}'\]"):
        refuse_changed(run_folder, replace(recipe, members=members[::-1]), tables)


def test_processes_that_train_together_begin_anew_and_without_a_limit(
    toy_recipe, toy_folder, tmp_path, monkeypatch, go_on
):
    tables, run_folder = read_tables(str(toy_folder)), tmp_path / "run"
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "::1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    keep_inputs(run_folder, toy_recipe, tables)
    with pytest.raises(ValueError, match=r"must go on in one process, however 2 were launched"):
        go_on(toy_recipe)
    with pytest.raises(ValueError, match="give time_limit_minutes 0"):
        Clock(run_folder, limit_minutes=10)


def test_refusal_of_quite_another_recipe_stays_readable(trained, toy_recipe):
    other = tuple(replace(toy_recipe.members[0], name=name) for name in ("one", "two", "three"))
    with pytest.raises(ValueError, match=r"members\.two\.kind was not there, is transformer") as refused:
        refuse_changed(trained.run_folder, replace(toy_recipe, members=other), trained.tables)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("name", ["train", "test", "sample_submission"])
def test_other_tables_are_refused_by_name(trained, toy_recipe, name):
    frame = getattr(trained.tables, name).copy()
    column = "q" if name == "sample_submission" else "answer"
    if column in frame:
        frame.loc[3, column] += " "
    else:
        frame = frame[::-1]
    with pytest.raises(ValueError, match=rf"{name}\.csv was another"):
        refuse_changed(trained.run_folder, toy_recipe, replace(trained.tables, **{name: frame}))


def test_other_weights_of_the_encoder_are_refused_by_its_name(go_on, encoder_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(encoder_folder, folder)
    recipe = Recipe(members=(LexicalRecipe(), toy.build_recipe(folder, folds_to_train=1)), folds=3)
    go_on(recipe)
    weights = load_file(folder / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder\.0 \(bert\) was another"):
        go_on(recipe)


def test_encoder_that_is_replaced_while_a_run_is_under_way_ends_it(go_on, encoder_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(encoder_folder, tmp_path / "bert")
    config = folder / "config.json"

    def replace_encoder(task):
        outcome = tasks.train_fold(task)
        config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        return outcome

    monkeypatch.setattr(folds, "train_fold", replace_encoder)
    with pytest.raises(ValueError, match=r"can only go on as it began, however: encoder\.0 \(bert\) was another"):
        go_on(Recipe(members=(toy.build_recipe(folder, folds_to_train=2),), folds=3))
    assert [path.name for path in (tmp_path / "run" / "members" / "toy").iterdir()] == ["fold-0"]


@pytest.fixture
def twins(encoder_folder, tmp_path):
    """Build a recipe of members with encoders in folders of one name, which hold other weights."""
    for number, name in enumerate("ab"):
        folder = tmp_path / "encoders" / name / "model"
        shutil.copytree(encoder_folder, folder)
        weights = load_file(folder / "model.safetensors")
        weights = {name: each + number for name, each in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def build(names, *, folder=tmp_path / "encoders") -> Recipe:  # noqa: ANN001
        members = (toy.build_recipe(folder / each / "model", name=f"m{at}") for at, each in enumerate(names))
        return Recipe(members=tuple(members), folds=3)

    return build


@pytest.mark.parametrize(
    ("names", "told"), [("abb", r"members\.m2\.encoder was 0 \(model\), is 1 \(model\)"), ("bab", "0 .* was another")]
)
def test_a_member_whose_encoder_lies_in_another_folder_of_one_name_is_another(names, told, twins, toy_folder, tmp_path):
    tables, run_folder = read_tables(str(toy_folder)), tmp_path / "run"
    keep_inputs(run_folder, twins("aba"), tables)
    with pytest.raises(ValueError, match=told):
        refuse_changed(run_folder, twins(names), tables)
    (tmp_path / "encoders").rename(tmp_path / "moved")
    refuse_changed(run_folder, twins("aba", folder=tmp_path / "moved"), tables)


def test_checkpoints_are_of_what_an_encoder_holds_wherever_it_lies(twins, toy_frame, tmp_path, monkeypatch):
    def fit(recipe: Recipe) -> None:
        folders = {"cache_folder": tmp_path / "cache", "checkpoint_folder": tmp_path / "kept"}
        TransformerMember(recipe.members[0], **folders).fit(toy_frame)

    with monkeypatch.context() as patch:
        toy.interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            fit(twins("a"))
    with pytest.raises(ValueError, match="must be of this recipe and these rows, however they are of others"):
        fit(twins("b"))
    (tmp_path / "encoders").rename(tmp_path / "moved")
    fit(twins("a", folder=tmp_path / "moved"))


@pytest.mark.parametrize("name", ["recipe.json", "inputs.json"])
def test_fold_of_a_run_that_is_not_known_to_be_this_one_is_not_taken_for_its_own(go_on, lexical_recipe, tmp_path, name):
    go_on(lexical_recipe)
    (tmp_path / "run" / name).unlink()
    before = content_of(tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"must be new, empty or one run's, however it holds .*'blended_out"):
        go_on(lexical_recipe)
    assert content_of(tmp_path / "run") == before


def test_notebook_that_is_executed_into_the_run_folder_and_hidden_files_are_no_strangers(tmp_path):
    refuse_foreign(tmp_path / "new")
    for name in ("out.ipynb", ".lock", ".unfinished-recipe.json-x1", "timeline.json"):
        (tmp_path / name).touch()
    refuse_foreign(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"however it holds files: \['notes.txt'\]; name another"):
        refuse_foreign(tmp_path)


def test_kaggles_folder_may_hold_the_sessions_own_files_but_no_fold(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    (tmp_path / "__results__.html").touch()
    refuse_foreign(tmp_path)
    (tmp_path / "members").mkdir()
    with pytest.raises(FileExistsError, match=r"however it holds files: \['members'\]"):
        refuse_foreign(tmp_path)


def test_another_process_in_the_folder_is_refused(go_on, lexical_recipe, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(RuntimeError, match="must have one process at work, however another"):
        go_on(lexical_recipe)
    go_on(lexical_recipe)


def test_what_a_killed_process_left_unneeded_or_half_written_is_removed(go_on, lexical_recipe, tmp_path):
    go_on(lexical_recipe)
    before = content_of(tmp_path / "run")
    leftover = tmp_path / "run" / "members" / "lexical" / ".unfinished-fold-0-abc"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    (tmp_path / "run" / ".unfinished-scores.json-abc").write_text("half")
    kept = checkpoint_folder(tmp_path / "run", "lexical", 0, cache_folder=tmp_path / "cache")
    Checkpoints(kept).write(Checkpoint(tensors={}, state={}))  # of a fold that was finished just then
    go_on(lexical_recipe)
    assert content_of(tmp_path / "run") == before


def test_run_folder_holds_no_path_of_this_machine(trained, encoder_folder):
    content = content_of(trained.run_folder)
    content.pop("recipe.json")  # what was asked, for going on here; it does not travel
    for name, each in content.items():
        for path in (str(encoder_folder.parent), str(trained.run_folder), os.path.expanduser("~") + "/"):
            assert path.encode() not in each, (name, path)
    assert str(trained.run_folder) not in (trained.run_folder / TIMELINE).read_text()
