"""What the README shows of the library is executed as it stands there; only the encoder is a toy."""

import ast
import re
from pathlib import Path

import numpy as np
import toy

from questlib import RankTies, load_member
from questlib.pretrained import LOCAL_ENCODER

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("## As a library\n")[1].split("\n## ")[0]
[CODE] = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)


def test_example_is_short() -> None:
    statements = [each for each in ast.parse(CODE).body if not isinstance(each, ast.ImportFrom)]
    assert len(statements) <= 13
    assert max(map(len, CODE.splitlines())) <= 120


def test_example_fits_predicts_scores_blends_ties_and_saves(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(toy, "_POSITIONS", 128)
    encoder = toy.write_encoder(tmp_path / "encoder")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache is there
    assert CODE.count(f'"{LOCAL_ENCODER}"') == 1
    names: dict = {}
    exec(CODE.replace(LOCAL_ENCODER, str(encoder)), names)
    scores = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert len(scores) == 2
    assert np.isfinite(scores).all()
    transformer, test = names["members"][0], names["tables"].test
    assert names["tied"].shape == (len(test), 30)
    assert ((names["tied"] >= 0) & (names["tied"] <= 1)).all()
    assert isinstance(names["ties"], RankTies)
    assert any(names["ties"].intervals_)
    assert (names["blend"].weights_ > 0).any(axis=1).all()
    assert np.array_equal(load_member("build/member").predict(test), transformer.predict(test))
