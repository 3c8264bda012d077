from pathlib import Path

import pytest

from questlib import clock
from questlib.run_folder import TIMELINE, read_json


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock shows: the last entry."""
    shown = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: shown[-1])
    return shown


def test_clock_books_each_step_and_keeps_the_timeline_on_disk(tmp_path: Path, seconds: list[float]) -> None:
    watch = clock.Clock(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    seconds.append(103.0)
    assert watch.elapsed == 3.0
    watch.finish_step("read")
    assert read_json(tmp_path / "new" / TIMELINE) == {
        "seconds": 3.0,
        "steps": [{"step": "read", "start": 0.0, "seconds": 3.0}],
        "plan": [],
        "notes": [],
    }
    seconds.append(104.5)
    watch.finish_step("fold 0")
    timeline = read_json(tmp_path / "new" / TIMELINE)
    assert timeline["seconds"] == 4.5
    assert timeline["steps"] == [
        {"step": "read", "start": 0.0, "seconds": 3.0},
        {"step": "fold 0", "start": 3.0, "seconds": 1.5},
    ]


def test_clock_logs_the_step_and_the_total(
    tmp_path: Path, seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    watch = clock.Clock(tmp_path)
    seconds.append(160.0)
    with caplog.at_level("INFO", logger="questlib.clock"):
        watch.finish_step("read")
        seconds.append(190.0)
        watch.finish_step("train")
    assert caplog.messages == ["read: 60.0 s (60.0 s since the start)", "train: 30.0 s (90.0 s since the start)"]
