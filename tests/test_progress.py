"""A stage tells how far it is: in a notebook by one bar that moves, everywhere by a line now and then."""

import logging
import sys
from types import SimpleNamespace

import IPython.display
import pytest
from transformers import TrainerControl, TrainerState

from questlib.training import progress
from questlib.training.progress import StageLog
from questlib.training.tape import Tape

N_STEPS = 40


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What a notebook's one output was, in order, as HTML."""
    states: list[str] = []

    def display(shown: object, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        states.append(shown._repr_html_())
        return SimpleNamespace(update=lambda other: states.append(other._repr_html_()))

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", display)
    return states


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Go through a stage of 40 steps, of so many seconds each."""

    def call(seconds: float) -> None:
        now = [1000.0]
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        log, state, control = (
            StageLog("full", Tape(), folder=tmp_path),
            TrainerState(max_steps=N_STEPS),
            TrainerControl(),
        )
        arguments = SimpleNamespace(train_batch_size=8, gradient_accumulation_steps=1)
        log.on_train_begin(arguments, state, control)
        for step in range(1, N_STEPS + 1):
            now[0] += seconds
            state.global_step = step
            log.on_step_end(arguments, state, control)

    return call


def test_bar_of_a_notebook_moves_with_the_steps_to_their_end(shown, steps):
    steps(1.0)
    assert len(shown) == 1 + N_STEPS
    assert shown[0].endswith("</progress> full: 40 steps")
    assert 'value="0.500"></progress> full: step 20 of 40 (50 %), loss not logged yet, 8.0 rows/s, 0.3 min' in shown[20]
    assert 'value="1.000"></progress> full: step 40 of 40 (100 %)' in shown[-1]


def test_bar_moves_twice_a_second_at_most_and_still_comes_to_its_end(shown, steps):
    steps(0.01)
    assert len(shown) == 2
    assert 'value="1.000"' in shown[-1]


def test_without_a_notebook_lines_are_all_that_is_shown(steps, caplog, capsys):
    caplog.set_level(logging.INFO)
    steps(1.0)
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in told] == ["full: step 15 of 40 (38 %)", "full: step 30 of 40 (75 %)"]
    assert capsys.readouterr() == ("", "")
    assert "ipywidgets" not in sys.modules
