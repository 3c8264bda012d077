import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from questlib.kaggle.manifest import hash_source

AT_HOME = ("kaggle", "sweeps", "encoder_parts.py")

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "questlib"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    built = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        built += folder.glob("*.whl")
    return built


def test_wheel_is_pure_python_and_rebuilt_alike(wheels):
    first, second = wheels
    assert first.name.endswith("-py3-none-any.whl")
    assert "+" not in first.name
    assert first.read_bytes() == second.read_bytes()


def test_wheel_holds_every_module_and_nothing_else(wheels):
    with zipfile.ZipFile(wheels[0]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        modules = [path.relative_to(ROOT) for path in PACKAGE.rglob("*.py")]
        shipped = {path.as_posix() for path in modules if path.parts[1] not in AT_HOME}
        assert names == shipped | {"questlib/py.typed", "questlib/page.html"}
        assert archive.read("questlib/metrics.py") == (PACKAGE / "metrics.py").read_bytes()


def test_a_change_in_any_file_of_the_wheel_makes_it_older_than_its_source(wheels, tmp_path):
    with zipfile.ZipFile(wheels[0]) as archive:
        shipped = [name for name in archive.namelist() if ".dist-info/" not in name]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(PACKAGE, tmp_path / "questlib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "questlib/room").mkdir()
    for name in ("__init__.py", "table.json"):
        (tmp_path / "questlib/room" / name).write_text("")
    hashes = [hash_source(tmp_path)]
    for name in (*shipped, "questlib/room/__init__.py", "questlib/room/table.json", "README.md", "pyproject.toml"):
        with (tmp_path / name).open("a") as stream:
            stream.write("# changed\n")
        hashes.append(hash_source(tmp_path))
    assert len(set(hashes)) == len(hashes) == len(shipped) + 5


def test_wheel_installs_offline_and_imports(wheels, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, str(wheels[0])], check=True, capture_output=True)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import questlib.metrics; print(questlib.__file__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(str(tmp_path))


USER = """
from pathlib import Path
from questlib import LexicalMember, RankTies, Stage, TransformerMember, TransformerRecipe, load_member, mean_spearman

stage = Stage(name="full", trainable=("*",), epochs=1, learning_rate=1e-5, head_learning_rate=1e-3)
recipe = TransformerRecipe(encoder=Path("encoder"), stages=(stage,))
reveal_type(TransformerMember(recipe, cache_folder="cache"))
reveal_type(mean_spearman([[0.1], [0.2]], [[0.5], [0.6]]))
reveal_type(load_member("member").save(Path("elsewhere")))
LexicalMember(recipe)
RankTies(cautoin=3)
from questlib import RankTie
"""


def test_type_checker_of_a_user_sees_the_types(wheels, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    [packages] = (tmp_path / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(packages)
    (tmp_path / "user.py").write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", "env/bin/python", "user.py"]
    told = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path).stdout
    for line in (
        'user.py:7: note: Revealed type is "questlib.members.transformer.TransformerMember"',
        'user.py:8: note: Revealed type is "float"',
        'user.py:9: note: Revealed type is "None"',
        'user.py:10: error: Argument 1 to "LexicalMember" has incompatible type "TransformerRecipe"',
        'user.py:11: error: Unexpected keyword argument "cautoin" for "RankTies"; did you mean "caution"?',
        'user.py:12: error: Module "questlib" has no attribute "RankTie"; maybe "RankTies"?',
        "Found 3 errors in 1 file",
    ):
        assert line in told


def test_kernel_is_offline_and_names_its_notebook():
    metadata = json.loads((ROOT / "kernel-metadata.json").read_text(encoding="utf-8"))
    assert metadata["enable_internet"] is False
    assert (ROOT / metadata["code_file"]).is_file()
    assert metadata["competition_sources"] == ["google-quest-challenge"]
    assert metadata["machine_shape"] == "NvidiaTeslaT4"
    assert set(metadata) == {
        "id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu",
        "enable_internet", "machine_shape", "competition_sources", "dataset_sources", "kernel_sources",
        "model_sources", "keywords", "docker_image_pinning_type",
    }  # fmt: skip
