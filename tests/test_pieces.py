import re

import numpy as np
import pandas as pd

from questlib.pieces import draw_curve, draw_spans, draw_steps, show_distributions, show_table, show_ties
from questlib.schema import TARGETS


def test_table_has_no_row_numbers_and_escapes_what_it_shows():
    shown = show_table(pd.DataFrame({"a<b": ["x&y", None], "n": [0.12345, np.nan]}))
    assert "a&lt;b" in shown
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells == ["x&amp;y", "0.1235", "", ""]
    assert shown._repr_html_() == shown.__html__() == shown


def test_bars_are_as_long_as_their_share_of_the_largest():
    shown = show_table(pd.DataFrame({"n": [1.0, 4.0, -2.0]}), bars=["n"])
    assert re.findall(r"([\d.]+)%", shown) == ["25.0", "100.0", "0.0"]


def test_steps_curve_and_spans_fill_their_picture():
    assert draw_steps(np.array([1.0, 0.5]), color="red").startswith("<path d='M0 50V0.0h50.00V25.0h50.00V50z'")
    assert "M0.0 50.0L100.0 0.0'" in draw_curve(np.array([0.0, 1.0]))
    widths = re.findall(r"x='([\d.]+)' y='0' width='([\d.]+)'", draw_spans([True, False, False, True], color="red"))
    assert widths == [("0.00", "25.00"), ("75.00", "25.00")]


def test_distributions_say_the_means_of_ratings_and_predictions():
    predicted = pd.DataFrame(0.25, index=range(4), columns=list(TARGETS))
    shown = show_distributions(predicted, {TARGETS[0]: {"0": 0.5, "1": 0.5}})
    assert shown.count("<svg") == 30
    assert shown.count("rated 0.50 on average, predicted 0.25 ± 0.00") == 2  # in the picture's words, and below it


def test_ties_say_the_share_of_rows_that_share_a_value():
    before = pd.DataFrame({name: np.linspace(0, 1, 4) for name in TARGETS})
    after = before.copy()
    after.loc[:2, TARGETS[3]] = 0.2
    shown = show_ties(before, after)
    assert shown.count("<rect") == 1
    assert shown.count(">75% of rows tied<") == 1
    assert shown.count(">0% of rows tied<") == 29


def test_rows_that_had_the_common_value_before_are_tied_too():
    before = pd.DataFrame({name: np.linspace(0, 1, 4) for name in TARGETS})
    after = before.copy()
    after.loc[:1, TARGETS[3]] = 0.0
    assert show_ties(before, after).count(">50% of rows tied<") == 1
