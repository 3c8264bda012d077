from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from questlib import explore
from questlib.data import fill_nulls
from questlib.schema import TARGETS

SAMPLE = Path(__file__).parents[1] / "notebooks" / "sample"
NULLS = pd.DataFrame({"column": ["question_title", "answer"], "train": [0, 3], "test": [1, 0]})
LENGTHS = np.array([40, 100, 128, 129, 200, 300, 700, 5_000])
COVERAGE = {128: 0.375, 256: 0.625, 512: 0.75}


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return pd.read_csv(SAMPLE / "train.csv")


@pytest.fixture(scope="module")
def test_table() -> pd.DataFrame:
    return pd.read_csv(SAMPLE / "test.csv")


@pytest.fixture(scope="module")
def figures(train: pd.DataFrame, test_table: pd.DataFrame, encoder_folder: Path) -> dict[str, Figure]:
    return {
        "nulls": explore.plot_nulls(NULLS),
        "memory": explore.plot_memory(train),
        "categories_and_hosts": explore.plot_categories_and_hosts(train, test_table),
        "repeats": explore.plot_repeats(train),
        "coverage": explore.plot_coverage(fill_nulls(train), str(encoder_folder)),
        "lengths": explore.plot_lengths(LENGTHS, coverage=COVERAGE),
        "targets": explore.plot_targets(train),
        "target_correlations": explore.plot_target_correlations(train),
    }


def test_figures_are_one_per_function(figures: dict[str, Figure]) -> None:
    assert {f"plot_{name}" for name in figures} == {name for name in dir(explore) if name.startswith("plot_")}


@pytest.mark.parametrize(
    "name",
    ["nulls", "memory", "categories_and_hosts", "repeats", "coverage", "lengths", "targets", "target_correlations"],
)
def test_figure_cuts_nothing_off_and_titles_its_bars(figures: dict[str, Figure], name: str) -> None:
    figure = figures[name]
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()  # inches
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.01
    assert drawn.y0 >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01
    assert all(axes.get_title(loc="left") or axes.get_title() for axes in figure.axes if axes.patches)


def test_figures_are_not_kept_by_pyplot(figures: dict[str, Figure]) -> None:
    assert figures
    assert plt.get_fignums() == []


def test_nulls_are_counted_per_column_and_table() -> None:
    axes = explore.plot_nulls(NULLS).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0, 3, 1, 0]
    assert axes.get_title(loc="left").startswith("4 nulls")
    assert explore.plot_nulls(NULLS.assign(train=0, test=0)).axes[0].get_title(loc="left").startswith("No nulls")


def test_memory_adds_up_and_shows_the_targets_as_one_bar(train: pd.DataFrame) -> None:
    axes = explore.plot_memory(train).axes[0]
    kilobytes = sum(bar.get_width() for bar in axes.patches)
    assert kilobytes == pytest.approx(train.memory_usage(index=False, deep=True).sum() / 1e3)
    assert len(axes.patches) == 12
    assert "30 targets together" in [label.get_text() for label in axes.get_yticklabels()]


def test_memory_takes_a_table_without_targets(test_table: pd.DataFrame) -> None:
    assert len(explore.plot_memory(test_table).axes[0].patches) == 11


def test_hosts_beyond_the_largest_become_one_bar() -> None:
    hosts = [f"host{number:02d}.example" for number in range(40) for _ in range(40 - number)]
    frame = pd.DataFrame({"category": "SCIENCE", "host": hosts})
    axes = explore.plot_categories_and_hosts(frame, frame.assign(host="new.example")).axes[1]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "host00.example"
    assert labels[-1] == "16 others"
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(2)
    assert axes.get_title(loc="left") == "40 hosts in train, 1 more in test only"


def test_repeats_count_a_question_once_for_its_asker() -> None:
    frame = pd.DataFrame({"url": list("aabc"), "question_user_page": ["u1", "u1", "u1", "u2"]})
    left, right = explore.plot_repeats(frame).axes
    assert {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in left.patches} == {1: 2, 2: 1}
    assert {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in right.patches} == {1: 1, 2: 1}


def test_repeats_are_told_by_title_and_body_where_no_url_does_and_without_askers() -> None:
    frame = pd.DataFrame({"url": [None] * 3, "question_title": list("aab"), "question_body": list("xxy")})
    [only] = explore.plot_repeats(frame).axes
    assert {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in only.patches} == {1: 1, 2: 1}
    assert only.get_title(loc="left") == "2 questions, 50% with several answers"
    assert len(explore.plot_repeats(frame.assign(question_user_page=None)).axes) == 1


def test_lengths_are_all_shown_beside_the_coverage() -> None:
    upper, lower = explore.plot_lengths(LENGTHS, coverage=COVERAGE).axes
    assert sum(bar.get_height() for bar in upper.patches) == pytest.approx(1)
    assert [text.get_text() for text in lower.texts] == ["37.5% fit 128", "62.5% fit 256", "75.0% fit 512"]
    assert len({bar.get_facecolor() for bar in upper.patches}) == 4


@pytest.mark.parametrize("length", [1, 64, 100])
def test_lengths_may_all_be_equal(length: int) -> None:
    upper, _ = explore.plot_lengths(np.full(5, length), coverage={128: 1.0}).axes
    assert sum(bar.get_height() for bar in upper.patches) == pytest.approx(1)


def test_targets_show_every_rating(train: pd.DataFrame) -> None:
    axes = explore.plot_targets(train).axes
    assert len(axes) == len(TARGETS)
    for panel, name in zip(axes, TARGETS, strict=True):
        assert len(panel.patches) == train[name].nunique()
        assert sum(bar.get_height() for bar in panel.patches) == pytest.approx(1)


def test_target_correlations_are_spearmans_and_a_constant_target_has_none(train: pd.DataFrame) -> None:
    frame = train.assign(**{TARGETS[5]: 0.5})
    axes = explore.plot_target_correlations(frame).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert shown[0, 1] == pytest.approx(spearmanr(frame[TARGETS[0]], frame[TARGETS[1]]).statistic, abs=1e-12)
    assert np.isnan(shown[5]).all()
    assert np.isnan(np.diag(shown)).all()
    assert len(axes.texts) == np.sum(np.abs(shown) >= 0.2)
