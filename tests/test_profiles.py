"""Profiles and values on the command line are read the same way, and nothing is taken for what it is not."""

from pathlib import Path

import pytest

from questlib.profiles import read_profile, read_value

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PROFILES = sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))


STAGE = {"name": "full", "trainable": ["head.*", "*"], "epochs": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bert", "bert"),
        ("3", 3),
        ("1_000", 1000),
        ("010", 10),
        ("2e-5", 2e-5),
        ("1e5", 1e5),
        (".5", 0.5),
        ("-1", -1),
        ("false", False),
        ("False", False),
        ("null", None),
        # Of these the older YAML makes other things, or nothing at all; where a number is due, they are refused.
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("NaN", "NaN"),
        (".inf", ".inf"),
        ("0x1F", "0x1F"),
        # Quotes that a shell or make left, or took away.
        ('"5"', "5"),
        ("'joint'", "joint"),
        ('{"a": 2}', {"a": 2}),
        ("{a: 2}", {"a": 2}),
        ("[*]", ["*"]),
        ('[{"name": "full", "trainable": ["head.*", "*"], "epochs": 3}]', [STAGE]),
        ("[{name: full, trainable: [head.*, *], epochs: 3}]", [STAGE]),
        # A word is what was typed, whatever YAML would make of it.
        ("", ""),
        (" ", " "),
        ("*", "*"),
        ("&a", "&a"),
        ("[1", "[1"),
        ("it's", "it's"),
        ("/data/a #1", "/data/a #1"),
        ("5 # rows", "5 # rows"),
        ("!!str 5", "!!str 5"),
        ("!!python/name:os.system", "!!python/name:os.system"),
        ("---", "---"),
    ],
)
def test_a_value_is_yaml_as_in_a_profile_or_the_text_as_it_is(text: str, value: object) -> None:
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["1e-5", "1_000", "010", "on", "no", "2026-01-01", "1:30", "[a, {b: 1e-5}]", "False"])
def test_a_value_is_the_same_in_a_profile(text: str, tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text(f"name: {text}\n")
    assert read_profile(tmp_path, "few") == {"name": read_value(text)}


def test_profile_that_is_unknown_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown profile: 'smaple' \(did you mean 'sample'\?\); known: .*seed"):
        read_profile(NOTEBOOKS / "profiles", "smaple")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- folds\n- 3\n", r"few.yaml must map names of parameters to values, however: \['folds', 3\]"),
        ("folds: 3\n1: 2\n", r"few.yaml must map names of parameters to values, however: \{'folds': 3, 1: 2\}"),
        ("folds: [3\n", "few.yaml must be YAML in UTF-8, however"),
        ("members: &all [*all]\n", "few.yaml must be YAML in UTF-8, however: Circular reference detected"),
        ("data: caf\xe9\n", "few.yaml must be YAML in UTF-8, however: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_profile_that_is_no_mapping_is_refused_by_path(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "few.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_profile(tmp_path, "few")


@pytest.mark.parametrize("text", ["seed: 1\nfolds: 2\nseed: 3\n", "stages:\n  - {epochs: 1, name: full, epochs: 2}\n"])
def test_name_that_stands_twice_in_a_profile_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "doubled.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"must be YAML in UTF-8, however: \['(seed|epochs)'\] stand there twice"):
        read_profile(tmp_path, "doubled")


def test_profile_is_its_file_and_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("folds: 3\nstages.full.epochs: 2\n")
    (tmp_path / "plain.yaml").write_text("# nothing\n")
    assert read_profile(tmp_path, "few") == {"folds": 3, "stages.full.epochs": 2}
    assert read_profile(tmp_path, "plain") == {}


def test_profiles_are_those_that_are_documented() -> None:
    assert PROFILES == ["cpu", "cpu-best", "kaggle", "kaggle-cpu", "kaggle-predict", "sample", "seed"]
