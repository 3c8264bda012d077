"""A sweep file is read whole and checked before anything runs."""

from pathlib import Path

import pytest
from optuna.distributions import IntDistribution
from sweeping import write_sweep

from questlib.parameters import override, read_parameters
from questlib.profiles import read_profile
from questlib.recipe import Recipe
from questlib.resume import flatten
from questlib.run_folder import read_json
from questlib.sweeps.definition import _list_scores, read_sweep

PROJECT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_project(monkeypatch):
    monkeypatch.chdir(PROJECT)


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((PROJECT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_that_ships_is_valid(path):
    sweep = read_sweep(path)
    assert sweep.settings()


def test_grid_has_every_combination_in_order(tmp_path):
    text = "space:\n  max_length: {low: 64, high: 128, step: 64}\n  pooling: [cls, mean]\n"
    assert read_sweep(write(tmp_path, text)).settings() == [
        {"max_length": length, "pooling": pooling} for length in (64, 128) for pooling in ("cls", "mean")
    ]


def test_one_change_at_a_time_begins_with_the_first_of_all(tmp_path):
    text = "sampler: one_change\nspace:\n  pooling: [cls, mean]\n  head: [linear, hidden]\n"
    text += "  hidden_width: {low: 8, high: 24, step: 16, when: {head: hidden}}\n"
    first = {"pooling": "cls", "head": "linear"}
    assert read_sweep(write(tmp_path, text)).settings() == [
        first,
        {"pooling": "mean", "head": "linear"},
        {"pooling": "cls", "head": "hidden", "hidden_width": 8},
        {"pooling": "cls", "head": "hidden", "hidden_width": 24},
    ]


def test_one_change_at_a_time_goes_through_the_whole_of_a_range(tmp_path):
    text = "sampler: one_change\nspace:\n  max_length: {low: 64, high: 256, step: 64}\n  pooling: [cls, mean]\n"
    settings = read_sweep(write(tmp_path, text)).settings()
    assert [each["max_length"] for each in settings] == [64, 128, 192, 256, 64]


def test_one_change_at_a_time_keeps_to_conditions_that_stand_on_others(tmp_path):
    text = "sampler: one_change\nspace:\n  head: [linear, hidden]\n"
    text += "  pooling: {choices: [cls, gru], when: {head: hidden}}\n"
    text += "  hidden_width: {choices: [8, 16], when: {pooling: gru}}\n"
    sweep = read_sweep(write(tmp_path, text))
    grid = read_sweep(write(tmp_path, text.replace("one_change", "grid"))).settings()
    assert {"head": "hidden", "pooling": "gru", "hidden_width": 16} in sweep.settings()
    assert all(each in grid for each in sweep.settings())


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("head_dropout", 0.5, float),
        ("max_length", 64, int),
        ("stages.full.epochs", 1.5, float),
        ("members.transformer.head_dropout", 0.5, float),
        ("members.transformer.max_length", 64, int),
        ("members.lexical.alpha", 1.5, float),
        ("target_weights.answer_helpful", 0.5, float),
    ],
)
def test_kind_of_a_range_is_that_of_its_parameter(tmp_path, name, value, kind):
    low, high = (64, 128) if kind is int else (1, 2) if value > 1 else (0, 1)
    if name == "head_dropout" or name.endswith(".head_dropout"):
        high = 0.9
    text = f"sampler: random\ntrials: 1\nspace:\n  {name}: {{low: {low}, high: {high}}}\n"
    [dimension] = read_sweep(write(tmp_path, text)).space
    assert dimension.distribution._contains(value)
    assert isinstance(dimension.distribution, IntDistribution) == (kind is int)


def test_conditional_parameter_is_varied_only_where_it_applies(tmp_path):
    text = "space:\n  layout: [pair, joint]\n  body_share: {low: 0.3, high: 0.7, step: 0.4, when: {layout: joint}}\n"
    assert read_sweep(write(tmp_path, text)).settings() == [
        {"layout": "pair"},
        {"layout": "joint", "body_share": 0.3},
        {"layout": "joint", "body_share": pytest.approx(0.7)},
    ]


def test_whole_lists_are_choices_and_dotted_names_reach_into_them(tmp_path):
    sweep = read_sweep(PROJECT / "sweeps/stages_small.yaml")
    assert len(sweep.settings()) == 4
    given = sweep.overrides({"stages": "alternating", "stages.full.warmup_share": 0.06})
    assert [stage["name"] for stage in given["stages"]] == ["full", "head", "full", "head"]
    recipe = sweep.recipe({"stages": "alternating", "stages.full.warmup_share": 0.06})
    assert [stage.warmup_share for stage in recipe.members[0].stages] == [0.06, 0.0, 0.06, 0.0]


def test_trial_is_checked_as_it_is_run_where_its_profile_reaches_inside(tmp_path):
    stage = "{name: full, trainable: ['*'], epochs: 1, learning_rate: 1e-5, head_learning_rate: 1e-3}"
    (tmp_path / "own.yaml").write_text("members.transformer.stages.full.epochs: 7\nbody_share: 0\nlayout: joint\n")
    text = f"profile: {tmp_path}/own.yaml\nparameters: {{stages: [{stage}]}}\nspace:\n  body_share: [0.25, 0.5]\n"
    sweep = read_sweep(write(tmp_path, text))
    [chosen, _] = sweep.settings()
    run = override(read_parameters(sweep.notebook), read_profile(tmp_path, sweep.profile), sweep.overrides(chosen))
    assert sweep.recipe(chosen) == Recipe.from_parameters(run)
    assert sweep.recipe(chosen).members[0].stages[0].epochs == 7
    assert sweep.recipe(chosen).members[0].stages[0].learning_rate == 1e-5


def test_members_are_choices_too(tmp_path):
    text = "space:\n  members: [[{name: words, kind: lexical}], [{name: words, kind: lexical, alpha: 3e0}]]\n"
    sweep = read_sweep(write(tmp_path, text))
    recipes = [sweep.recipe(chosen) for chosen in sweep.settings()]
    assert [recipe.members[0].alpha for recipe in recipes] == [10.0, 3.0]


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("space:\n  max_lenght: [64]\n", ValueError, "unknown parameter: 'max_lenght' (did you mean 'max_length'?)"),
        ("space:\n  learning_rate: [1e-5]\n", ValueError, "name it by one of: stages.full.learning_rate"),
        ("space:\n  stages.ful.epochs: [1]\n", ValueError, "'ful' (did you mean 'full'?)"),
        ("space:\n  max_length: ['64']\n", TypeError, "parameter max_length must be of type int, however: '64'"),
        ("space:\n  pooling: [clss]\n", ValueError, "unknown pooling: 'clss' (did you mean 'cls'?)"),
        ("space:\n  max_length: [64, 100000]\n", ValueError, "max_length must lie in [8, 8192], however: 100000"),
        (
            "space:\n  max_length: {low: 64, high: 256}\nsampler: random\ntrails: 3\n",
            ValueError,
            "did you mean 'trials'",
        ),
        ("space:\n  max_length: {low: 64, hihg: 256}\n", ValueError, "'hihg' (did you mean 'high'?)"),
        (
            "space:\n  head_dropout: {low: 0.1, high: 0.3}\n",
            ValueError,
            "sampler grid needs choices, or ranges with a step",
        ),
        (
            "space:\n  head_dropout: {low: 0.1, high: 2.5}\nsampler: tpe\ntrials: 2\n",
            ValueError,
            "head_dropout must lie",
        ),
        (
            "space:\n  head_dropout: {low: 0.1, high: 0.3}\nsampler: random\n",
            ValueError,
            "trials or minutes must be given",
        ),
        ("space:\n  pooling: [cls]\nsampler: gird\n", ValueError, "unknown sampler: 'gird' (did you mean 'grid'?)"),
        (
            "space:\n  pooling: [cls]\nprofile: smaple\n",
            ValueError,
            "unknown profile: 'smaple' (did you mean 'sample'?)",
        ),
        (
            "space:\n  pooling: [cls]\nparameters: {fold: 3}\n",
            ValueError,
            "unknown parameter: 'fold' (did you mean 'folds'",
        ),
        ("space:\n  seed: [1, 2]\n", ValueError, "list seeds"),
        ("space:\n  pooling: [cls]\nseeds: [a]\n", TypeError, "seed"),
        ("space:\n  pooling: [cls]\nseeds: [42, 1, 42]\n", ValueError, "seeds must be listed once each, however these"),
        (
            "space:\n  max_length: {low: 128, high: 128}\nsampler: tpe\ntrials: 2\n",
            ValueError,
            "max_length must have a range of several values, however: {'low': 128, 'high': 128}",
        ),
        (
            "space:\n  head_dropout: {low: 0.3, high: 0.1}\nsampler: tpe\ntrials: 2\n",
            ValueError,
            "head_dropout must have a range, however: {'low': 0.3, 'high': 0.1}; `low <= high` must hold",
        ),
        (
            "space:\n  head_dropout: {low: 0.0, high: 0.1, log: true}\nsampler: tpe\ntrials: 2\n",
            ValueError,
            "head_dropout must have a range, however: {'low': 0.0, 'high': 0.1, 'log': True}; ",
        ),
        (
            "profile: cpu\nspace:\n  batch_size: [8]\npruner: median\n",
            ValueError,
            "pruner 'median' needs questions held out to judge by: set stop_share",
        ),
        (
            "space:\n  pooling: [cls]\nobjective: nested.scores.tied.mean_without_rar\n",
            ValueError,
            "objective 'nested.scores.tied.mean_without_rar' must name a number in scores.json",
        ),
        ("space:\n  pooling: [cls]\nobjective: raw.minilm.all_rows.mean\n", ValueError, "'minilm' is not in"),
        (
            "space:\n  head_dropout: {low: 0.1, high: 0.3, log: no}\nsampler: tpe\ntrials: 2\n",
            TypeError,
            "head_dropout must have true or false for log, however: 'no'",
        ),
        ("space:\n  max_length: {low: 64.5, high: 128}\nsampler: tpe\ntrials: 2\n", TypeError, "whole numbers"),
        (
            "space:\n  max_length: {low: 64, high: 128}\nsampler: tpe\ntrials: 2.5\n",
            TypeError,
            "trials must be of type",
        ),
        (
            "space:\n  max_length: {low: 64, high: 128}\nsampler: tpe\ntrials: true\n",
            TypeError,
            "trials must be of type",
        ),
        (
            "space:\n  layout: [pair, joint]\n  body_share: {choices: [0.1], when: joint}\n",
            TypeError,
            "the when of body",
        ),
        ("space:\n  1: [pair, joint]\n", TypeError, "a parameter must be named by a word, however: 1"),
        (
            "space:\n  pooling: [cls]\nparameters: {1: 2}\n",
            TypeError,
            "a parameter must be named by a word, however: 1",
        ),
        ("space:\n  max_length: {choices: [64], low: 64, high: 128}\n", ValueError, "must have choices or a range"),
        ("space:\n  pooling: [cls]\nparameters: {out: here}\n", ValueError, "out must be given with the command"),
        ("space:\n  data: [here, there]\n", ValueError, "data must be given with the command"),
        (
            "space:\n  batch_size: [8, 16]\nparameters: {members: [{name: lexical, kind: lexical}]}\n",
            ValueError,
            "however ['batch_size'] change nothing",
        ),
        (
            "space:\n  max_length: {low: 64, high: 128}\nsampler: random\ntrials: 2\n"
            "parameters: {members: [{name: lexical, kind: lexical}]}\n",
            ValueError,
            "however ['max_length'] change nothing",
        ),
        (
            "space:\n  layout: [pair, joint]\n  pooling: {choices: [cls, mean], when: {layout: pair}}\n"
            "  head: {choices: [linear], when: {layout: joint, pooling: mean}}\nsampler: one_change\n",
            ValueError,
            "head must apply to some settings, however what it needs of ['layout'] excludes it",
        ),
        (
            "space:\n  layout: [pair, joint]\n  pooling: {choices: [cls, mean], when: {layout: []}}\n",
            ValueError,
            "pooling must apply to some settings, however what it needs of ['layout'] excludes it",
        ),
        (
            "space:\n  head_dropout: {low: 0.1, high: 0.3}\n"
            "  pooling: {choices: [cls, gru], when: {head_dropout: 0.2}}\n"
            "sampler: tpe\ntrials: 2\n",
            ValueError,
            "pooling must apply where head_dropout has a certain value, however its range has no step",
        ),
        (
            "space:\n  head_dropout: {low: 0.0, high: 0.9, step: 1.0e-12}\n",
            ValueError,
            "head_dropout must have at most 10000 values, however: {'low': 0.0, 'high': 0.9, 'step': 1e-12}; leave the",
        ),
        ("space:\n  batch_size: {low: 1, high: 1000000000000}\n", ValueError, "must have 10000 points at most"),
        (
            "space:\n  batch_size: {low: 1, high: 1000000000000}\nsampler: one_change\n",
            ValueError,
            "sampler one_change must have 10000 points at most, however it has more",
        ),
        ("notebook: notebooks/explore.ipynb\nspace:\n  x: [a]\n", ValueError, "must declare ['out'] in a cell tagged"),
        ("space: {}\n", ValueError, "space must name a parameter to vary"),
        ("space:\n  body_share: {low: 0.1, high: 0.5, step: 0.4, when: {layuot: joint}}\n", ValueError, "'layuot'"),
        ("- a\n", ValueError, "must map"),
    ],
)
def test_mistake_is_refused_by_name_with_the_file(tmp_path, text, error, told):
    path = write(tmp_path, text)
    with pytest.raises(error) as caught:
        read_sweep(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


UNREAD = [
    ("body_share: [0.3, 0.7]", "{layout: pair}", "{layout: joint}"),
    ("body_share: [0.3, 0.7]", "{layout: joint, stride: 8}", "{layout: joint, stride: 0}"),
    ("head_share: [0.3, 0.7]", "{stride: 8}", "{stride: 0}"),
    ("max_windows: [2, 4]", "{stride: 0}", "{stride: 8}"),
    ("hidden_width: [128, 256]", "{head: linear}", "{head: hidden}"),
    ("hidden_width: [128, 256]", "{head: linear}", "{pooling: gru}"),
    ("patience: [1, 3]", "{stop_share: 0.0}", "{stop_share: 0.1}"),
    ("threshold: [0.0, 0.1]", "{patience: 0}", "{patience: 1}"),
    ("use_tensorboard: [false, true]", "{}", None),
    ("use_internet: [false, true]", "{}", None),
    ("cache: [here, there]", "{}", None),
]


@pytest.mark.parametrize("sampler", ["sampler: grid", "sampler: random\ntrials: 2"])
@pytest.mark.parametrize(("space", "unread", "read"), UNREAD)
def test_what_nothing_reads_is_not_varied(tmp_path, sampler, space, unread, read):
    text = f"{sampler}\nspace:\n  {space}\n"
    with pytest.raises(ValueError, match=rf"\['{space.split(':')[0]}'\] change nothing .* say `when` it counts"):
        read_sweep(write(tmp_path, f"{text}parameters: {unread}\n"))
    assert read is None or read_sweep(write(tmp_path, f"{text}parameters: {read}\n"))


def test_what_is_no_part_of_a_recipe_may_be_varied(tmp_path):
    assert len(read_sweep(write(tmp_path, "space:\n  time_limit_minutes: [1, 2]\n")).settings()) == 2


def test_missing_file_says_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"those that ship are sweeps/\*\.yaml"):
        read_sweep(tmp_path / "none.yaml")


def test_objectives_that_are_known_are_those_that_a_run_leaves(trained_lexical):
    left = dict(flatten(read_json(trained_lexical.run_folder / "scores.json")))
    known = [name for name, _ in flatten(_list_scores(trained_lexical.recipe))]
    assert "nested.scores.tied.mean_without_rare" in known
    assert set(known) <= set(left)


def test_any_notebook_can_be_swept(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, "space:\n  x: [0.1, 0.2]\n"))
    assert sweep.settings() == [{"x": 0.1}, {"x": 0.2}]
    with pytest.raises(ValueError, match="unknown parameter: 'z'"):
        read_sweep(write_sweep(tmp_path, "space:\n  z: [0.1, 0.2]\n"))
    with pytest.raises(ValueError, match="must not be called as a column of the report is, however: 'seconds'"):
        read_sweep(write_sweep(tmp_path, "space:\n  seconds: [0.1, 0.2]\n"))
