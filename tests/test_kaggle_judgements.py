"""Sessions that were never run, judged by what they are said to have left."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from questlib.kaggle.findings import FAILED, Check
from questlib.kaggle.judgements import judge_outcomes, judge_probes
from questlib.kaggle.sessions import Outcome, Session, SessionKind
from questlib.kaggle.twin import Twin


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """What a session leaves that submits."""
    session = Session(
        text="",
        twin=Twin(image="here", folder=tmp_path, versions="this environment", stands_in=""),
        owner="alice",
        datasets=(),
        competition=None,
        trains=True,
    )
    return Outcome(
        session=session, status=0, seconds=30.0, first_submission=10.0, seen={"connects": []}, error="",
        error_seconds=0.0, is_complete=True, working=tmp_path, log=tmp_path / "log",
    )  # fmt: skip


CLOSED = "no encoder 'some-owner/some-model', and the hub may not be asked (HF_HUB_OFFLINE=1)"
OPEN = "no encoder 'some-owner/some-model', and the hub did not give it"


@pytest.mark.parametrize(
    ("trains", "changes", "failed"),
    [
        (True, {"error": CLOSED}, set()),
        (True, {"error": OPEN}, {Check.HUB_CLOSED}),
        (True, {"error": CLOSED, "error_seconds": 24.6}, {Check.HUB_CLOSED}),
        (True, {"error": CLOSED, "seen": {"connects": ["connect(192.0.2.1)"]}}, {Check.NETWORK}),
        (False, {"error": "no finished run 'some-owner/some-model'"}, set()),
    ],
)
def test_a_hub_name_must_be_told_by_a_closed_hub_at_once_and_without_a_network_call(
    trains: bool, changes: dict[str, Any], failed: set[Check], outcome: Outcome
) -> None:
    session = replace(outcome.session, kind=SessionKind.HUB_NAME, trains=trains)
    found = list(judge_probes([replace(outcome, session=session, status=1, **changes)]))
    assert {one.check for one in found if one.state == FAILED} == failed


@pytest.mark.parametrize(
    ("installed", "fails"),
    [
        (["bitsandbytes==0.50.2", "questlib==0.1.0"], False),
        (["questlib==0.1.0"], True),
        (["bitsandbytes==0.50.2", "einops==1.0", "questlib==0.1.0"], True),
        ([], True),
    ],
)
def test_every_wheel_that_is_shipped_must_be_installed_and_nothing_else(
    installed: list[str], fails: bool, outcome: Outcome, tmp_path: Path
) -> None:
    for name in ("questlib-0.1.0-py3-none-any.whl", "bitsandbytes-0.50.2-py3-none-manylinux_2_24_x86_64.whl"):
        (tmp_path / name).touch()
    session = replace(outcome.session, datasets=[tmp_path])
    found = judge_outcomes([replace(outcome, session=session, seen={"installed": installed, "removed": []})])
    [install] = [one for one in found if one.check is Check.INSTALL]
    assert (install.state == FAILED) == fails
