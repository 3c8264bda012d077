import re
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
    timeline = read_json(tmp_path / "new" / TIMELINE)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", timeline.pop("began"))
    assert timeline == {
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


class Process:
    """A process, and those that started it."""

    def __init__(self, *starts: float) -> None:
        self.starts = starts

    def create_time(self) -> float:
        return self.starts[0]

    def parents(self) -> list["Process"]:
        return [Process(start) for start in self.starts[1:]]


@pytest.mark.parametrize(
    ("run_type", "starts", "expected"),
    [
        ("", (1000.0, 990.0, 5.0), 1000.0),
        ("Batch", (1000.0, 990.0, 950.0), 950.0),
        ("Batch", (1000.0, 990.0, 5.0), 990.0),  # a container that stood ready for long before the session
        ("Interactive", (1000.0, 990.0), 1000.0),
    ],
)
def test_session_begins_with_its_runner_on_kaggle_and_with_this_process_elsewhere(
    run_type: str, starts: tuple[float, ...], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(clock.SESSION_START, raising=False)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", run_type)
    monkeypatch.setattr("psutil.Process", lambda: Process(*starts))
    assert clock.find_session_start() == expected
    monkeypatch.setenv(clock.SESSION_START, "7.5")
    assert clock.find_session_start() == 7.5


def test_limit_counts_from_the_start_of_the_session_and_earlier_sessions_are_kept(
    tmp_path: Path, seconds: list[float]
) -> None:
    first = clock.Clock(tmp_path, limit_minutes=2)
    assert first.limit == 220.0
    first.note(f"what lies in {tmp_path}/members is left out")
    second = clock.Clock(tmp_path, limit_minutes=2, session_start=clock.time.time() - 30)
    assert second.limit == pytest.approx(190.0, abs=1)
    second.plan("fits: 1 fold")
    second.plan("fits: 1 fold")
    timeline = read_json(tmp_path / TIMELINE)
    assert len(timeline["plan"]) == 1
    assert timeline["limit_seconds"] == 120
    assert [each["notes"][0]["note"] for each in timeline["earlier"]] == ["what lies in ./members is left out"]
