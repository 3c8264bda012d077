import re

import pytest

from questlib.charts import BLUE, new_figure


def draw():  # noqa: ANN201
    figure = new_figure(width=4, height=3)
    axes = figure.subplots()
    axes.plot([0, 1], [2, 3], color=BLUE)
    axes.set_title("How <it> rises")
    axes.annotate("here", (0.5, 2.5))
    return figure


def test_picture_says_in_words_what_it_shows() -> None:
    assert draw().alt == "How <it> rises. here"


def test_notebook_keeps_the_words_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, *, raw, metadata: shown.append((data, metadata)))
    draw()._ipython_display_()
    [(data, metadata)] = shown
    assert metadata == {"image/png": {"alt": "How <it> rises. here", "width": 440, "height": 330}}
    assert set(data) == {"image/png", "text/plain"}


def test_page_gets_a_picture_that_stretches_and_takes_its_colours_and_font() -> None:
    svg = draw().to_svg()
    assert svg.startswith('<svg role="img" aria-label="How &lt;it&gt; rises. here" viewBox="0 0 288 216"')
    assert svg.endswith("</svg>")
    assert "var(--question)" in svg
    assert "currentColor" in svg
    assert not re.search(r"font-family|<style|<metadata|#000000|#ffffff|\bwidth=\"\d+pt", svg)
    assert draw().to_svg() == svg
