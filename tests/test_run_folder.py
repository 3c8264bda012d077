import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from questlib.cache import find_cache, keep_once, make_room
from questlib.marks import check_finished, finished_whole
from questlib.run_folder import choose_run_folder, read_json, write_json, write_text, written_whole


def test_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across disks would not be atomic
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def write_half(path: Path, error: type[BaseException]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_file_stays_as_it_was_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "scores.json"
    path.write_text("before")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_and_holds_numpy_numbers(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    content = {"rate": np.float32(0.5), "folds": np.int64(5), "use": np.bool_(True), "word": "naïve ☃", "none": None}
    write_json(path, content)
    assert read_json(path) == {"rate": 0.5, "folds": 5, "use": True, "word": "naïve ☃", "none": None}
    assert [type(value) for value in read_json(path).values()] == [float, int, bool, str, type(None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_json_without_a_standard_form_is_refused_and_nothing_is_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"mean": value})
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_other_types_by_value(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"must hold JSON types only, however: \{1, 2\}"):
        write_json(tmp_path / "scores.json", {"rows": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_json_is_readable_outside_python(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mean": 0.25})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {"mean": 0.25}


def write_fold(folder: Path, error: type[BaseException] | None = None) -> None:
    with finished_whole(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "state.json").write_text("{}")
        (temporary / "inner" / "weights").write_bytes(b"w")
        assert not folder.exists()
        if error:
            raise error


def test_folder_is_there_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "members" / "one" / "fold-0"
    write_fold(folder)
    assert {path.name for path in folder.iterdir()} == {"state.json", "inner", "done.json"}
    assert set(read_json(folder / "done.json")["files"]) == {"state.json", "inner/weights"}
    assert list(folder.parent.iterdir()) == [folder]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    check_finished(folder)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_folder_of_which_not_all_was_written_is_not_there(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_fold(tmp_path / "fold-0", error)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_was_not_finished_or_was_changed_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fold-0 must be finished \(done\.json marks it\)"):
        check_finished(tmp_path / "fold-0")
    write_fold(tmp_path / "fold-0")
    (tmp_path / "fold-0" / "inner" / "weights").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"missing or changed: \['inner/weights'\]"):
        check_finished(tmp_path / "fold-0")
    check_finished(tmp_path / "fold-0", "state.json")
    (tmp_path / "fold-0" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"missing or changed: \['state.json'\]"):
        check_finished(tmp_path / "fold-0", "state.json")


def test_file_that_several_want_is_written_by_one_and_found_by_the_others(tmp_path: Path) -> None:
    path, left = tmp_path / "cache" / "file", tmp_path / "cache" / ".unfinished-file-of-a-killed-one"
    left.parent.mkdir()
    left.touch()
    written = []

    def write(temporary: Path) -> None:
        time.sleep(0.2)
        written.append(1)
        temporary.write_text("whole")

    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(keep_once, path, write, Path.read_text) for _ in range(4)]
    assert [each.result() for each in reads] == ["whole"] * 4
    assert written == [1]
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b'{"folds": [1, ', b"\xff\xfe{}", b"null", b"[1]"])
def test_json_that_is_half_written_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "timeline.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"timeline.json must be whole JSON, however it is damaged: .+; copy it anew"):
        read_json(tmp_path / "timeline.json")


@pytest.mark.parametrize("changed", ["file", "file.sha256"])
def test_file_of_a_cache_that_is_not_what_was_written_is_made_anew(
    changed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, written = tmp_path / "file", []

    def write(temporary: Path) -> None:
        written.append(1)
        temporary.write_text("whole")

    for _ in range(2):
        assert keep_once(path, write, Path.read_text) == "whole"
    assert written == [1]
    content = (tmp_path / changed).read_text()
    (tmp_path / changed).write_text("?" + content[1:])  # of the same length
    assert keep_once(path, write, Path.read_text) == "whole"
    assert written == [1, 1]
    assert f"{path} was damaged and is made anew: its content was changed" in caplog.text
    (tmp_path / "file.sha256").unlink()  # of an earlier version, or cleared away: nobody knows what was written
    assert keep_once(path, write, Path.read_text) == "whole"
    assert written == [1, 1, 1]


def test_cache_keeps_within_its_budget_and_loses_what_was_not_read_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("questlib.cache._BUDGET", 1000)

    def write(path: Path) -> None:
        path.write_bytes(bytes(400))

    older, old, new = (
        f"{kind}-{0:032x}.{end}" for kind, end in (("passes", "arrow"), ("states", "npy"), ("vectors", "npy"))
    )
    others = {"thesis.zip", "passes-1.npy"}  # another program's, with checksums of its own

    def keep(name: str) -> None:
        keep_once(tmp_path / name, write, Path.read_bytes, size=400)

    def names() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.suffix not in (".sha256", ".lock")}

    for name in others:
        (tmp_path / name).write_bytes(bytes(400))
        (tmp_path / f"{name}.sha256").touch()
    for age, name in enumerate((older, old)):
        keep(name)
        os.utime(tmp_path / f"{name}.sha256", (age, age))
    keep(older)  # is read, so the other one goes
    keep(new)
    assert names() == {older, new, *others}
    assert not (tmp_path / f"{old}.sha256").exists()
    assert not make_room(tmp_path, 1001)  # would not fit alone
    assert names() == {older, new, *others}
    full = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("questlib.cache.shutil.disk_usage", lambda _: full)
    assert make_room(tmp_path, 100)  # fits into the budget, and not on the disk
    assert names() == {new, *others}


def test_cache_that_cannot_be_written_moves_to_one_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").write_text("no folder can be in it")
    assert find_cache(tmp_path / "cache") == tmp_path / "cache"
    own = find_cache(tmp_path / "file" / "cache")
    assert own.parent == tmp_path / "temporary"
    assert f"the cache {tmp_path / 'file' / 'cache'} cannot be written" in caplog.text


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "far/file.txt")
    for text in ("new", "replaced"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far/file.txt").read_text() == text
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["file.txt"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "through")
    assert read.result() == "through"
    assert pipe.is_fifo()


def test_the_output_of_a_command_may_be_what_is_written_to(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from questlib.run_folder import write_text; write_text(Path('/dev/stdout'), 'told')"
    )
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout == "told"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "told"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_files_in_memory_are_written_whole_as_elsewhere() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "file.json"
        write_text(path, "before")
        with path.open() as reader:
            write_text(path, "after")
            assert reader.read() == "before"  # another file has taken its place
        assert path.read_text() == "after"


@pytest.mark.parametrize("wanted", [".", ""])
def test_cache_may_be_the_current_folder(wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_cache(Path(wanted)).resolve() == tmp_path


def test_folder_that_cannot_take_its_place_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with finished_whole(tmp_path / "fold") as temporary:
        (temporary / "file").write_text("before")
    rename = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "fold" and not path.name.endswith("-before"):
            raise PermissionError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError), finished_whole(tmp_path / "fold") as temporary:
        (temporary / "file").write_text("after")
    assert (tmp_path / "fold/file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["fold"]


def test_rights_follow_the_umask_and_those_of_a_file_that_is_replaced_stay(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "new")
        with finished_whole(tmp_path / "folder") as folder:
            (folder / "file").write_text("in it")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    (tmp_path / "file").chmod(0o604)
    write_text(tmp_path / "file", "replaced")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o604


@pytest.mark.parametrize("name", ["a" * 255, "\u00e9" * 127, "\u4e00" * 85])
def test_names_as_long_as_a_file_system_takes_are_written(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_run_folder_that_is_not_named_is_kaggles_own_or_a_new_one_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    made = [choose_run_folder("") for _ in range(2)]
    assert sorted((tmp_path / "runs").iterdir()) == sorted(folder.resolve() for folder in made)
    assert choose_run_folder("here") == Path("here")
    assert choose_run_folder("~/here") == Path.home() / "here"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert choose_run_folder("") == Path("/kaggle/working")
    assert len(list((tmp_path / "runs").iterdir())) == 2
