import re
import subprocess

from questlib import checkout
from questlib.checkout import find_commit
from questlib.run_folder import write_json


def git(folder, *arguments: str):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_commit_of_a_checkout_tells_whether_files_were_changed(tmp_path):
    package = tmp_path / "questlib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    assert find_commit(package) is None  # in some project's folder, and no part of it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = find_commit(package)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (package / "__init__.py").write_text("changed")
    assert find_commit(package) == f"{commit}-dirty"


def test_commit_is_the_checkouts_or_else_that_of_the_attached_wheels(tmp_path, monkeypatch):
    assert find_commit(tmp_path) is None  # no checkout
    write_json(tmp_path / "wheels" / "manifest.json", {"commit": "abc"})
    monkeypatch.setattr(checkout, "find_folder", lambda *_, **__: tmp_path / "wheels")
    assert find_commit(tmp_path) == "abc"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # without git
        assert find_commit() == "abc"
