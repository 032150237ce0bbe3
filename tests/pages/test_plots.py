"""Plots and the frame of pages: figures in proportion, whatever names are in them."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from xml.etree import ElementTree

import pytest

from guardrail.errors import SettingError
from guardrail.pages import (
    Bar,
    Line,
    bars_plot,
    check_drawing,
    document,
    label,
    lines_plot,
    shown,
    table,
    times_axis,
)

HOSTILE = "<script>alert(1)</script>\"'&\u202e${x}\x1b[1m"
INERT = "<script>alert(1)</script>\"'&\\u202e${x}\\x1b[1m"


def drawings(text):
    """Return the `svg` elements of a piece of a page, read strictly."""
    return [ElementTree.fromstring(found) for found in re.findall("<svg.*?</svg>", text, re.DOTALL)]


def paths(text, kind):
    """Return the marks of a kind (`line`, `rect`, …), as Vega names their groups."""
    [drawing] = drawings(text)
    groups = [g for g in drawing.iter("g") if f"mark-{kind} role-mark" in g.get("class", "")]
    return [[path for path in group if path.tag in ("path", "text")] for group in groups]


def widths(text):
    """Return how wide the bars of a plot are, after those that show the whole."""
    bars = paths(text, "rect")[1]
    found = [re.match(r"M0,[\d.]+h([\d.]+)v", bar.get("d")) for bar in bars]
    return [round(float(one[1]) / 360, 3) for one in found if one is not None]


def test_lines_end_where_their_values_do():
    text = lines_plot("a", "", ["x", "y", "z"], [Line("b", "a", [0.0, 50.0, 100.0], filled=True)])

    [[line]] = paths(text, "line")
    assert line.get("d") == "M0,210L320,105L640,0"
    assert "z, b: 100" in text


def test_places_stand_where_their_times_have_them():
    line = Line("b", "a", [1.0, 1.0, 1.0])
    text = lines_plot("a", "", ["x", "y", "z"], [line], [0.0, 86400.0, 4 * 86400.0])

    [[path]] = paths(text, "line")
    assert path.get("d") == "M0,0L160,0L640,0"
    assert "Jan 02" in text


def test_lines_have_their_figures_as_a_table_and_in_words():
    text = lines_plot("a", "%", ["x", "y"], [Line("b", "a", [0.25, 0.5])])

    assert '<tr><th scope="row">y</th><td>50%</td></tr>' in text
    assert "b: 25% at first, at most 50% (y), 50% at last." in text


def test_a_plot_of_nothing_is_drawn():
    text = lines_plot("a", "%", ["x", "y"], [Line("b", "a", [0.0, 0.0])])

    [[path]] = paths(text, "line")
    assert path.get("d") == "M0,210L640,210"


def test_the_longest_bar_fills_its_plot_and_others_are_in_proportion():
    text = bars_plot("a", [Bar("b", "a", 0.5, "1"), Bar("c", "a", 0.25, "2")])

    assert widths(text) == [1.0, 0.5]


def test_what_was_before_is_marked_on_a_bar():
    text = bars_plot("a", [Bar("b", "a", 1.0, "1", 0.5), Bar("c", "a", 0.5, "2", 2.0)])

    assert widths(text) == [0.5, 0.25]
    _, _, marks = paths(text, "rect")
    places = [re.match(r"M([\d.]+),", mark.get("d")) for mark in marks]
    # The mark is as thick as it is, and where its middle is.
    assert [float(one[1]) + 1.25 for one in places if one is not None] == [90.0, 360.0]


def test_a_bar_of_a_share_is_that_share_and_a_small_one_can_be_seen():
    bars = [Bar("b", "a", 0.25, "25%"), Bar("c", "a", 0.0, "0%"), Bar("d", "a", 1e-9, "0.0%")]

    assert widths(bars_plot("a", bars, whole=1.0)) == [0.25, 0.0, 0.004]


@pytest.mark.parametrize(
    "plot",
    [
        lambda: bars_plot(HOSTILE, [Bar(HOSTILE, "a", 0.5, HOSTILE)], (HOSTILE, HOSTILE)),
        lambda: lines_plot(HOSTILE, "", [HOSTILE, "y"], [Line(HOSTILE, "a", [1.0, 2.0])]),
        lambda: lines_plot(HOSTILE, "", [HOSTILE, "y"], [Line(HOSTILE, "a", [1, 2])], [0.0, 60.0]),
    ],
)
def test_text_is_shown_and_not_obeyed_by_what_draws(plot):
    text = plot()
    [drawing] = drawings(text)

    known = {"svg", "g", "path", "line", "text", "title", "desc"}
    assert {element.tag for element in drawing.iter()} <= known
    names = {name for element in drawing.iter() for name in element.attrib}
    assert not any(name.startswith("on") or name in ("style", "href", "src") for name in names)
    assert drawing.get("aria-label") == INERT
    shown_texts = [element.text for element in drawing.iter("text")]
    assert any(INERT.startswith((told or "").removesuffix("…")) for told in shown_texts)
    assert "<script" not in text
    assert "\u202e" not in text


def test_a_plot_is_the_same_each_time():
    def plot():
        return lines_plot("a", "%", ["x", "y"], [Line("b", "a", [0.25, 0.5])], [0.0, 60.0])

    assert plot() == plot()


def test_without_what_draws_a_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)

    message = r"`--report` needs `vl_convert`.* pip install 'guardrail-engine\[report\]'"
    with pytest.raises(SettingError, match=message):
        check_drawing("`--report`")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.125, "%", "12.5%"), (0, "", "0"), (1500, "", "1.5k"), (2_500_000, "", "2.5M")],
)
def test_axes_name_values_briefly(value, unit, text):
    assert label(value, unit) == text


@pytest.mark.parametrize(
    ("starts", "width", "names"),
    [
        ([0, 86400], 86400, ["1970-01-01", "1970-01-02"]),
        ([3600, 7200], 3600, ["01:00", "02:00"]),
        ([82800, 86400], 3600, ["01-01 23:00", "01-02 00:00"]),
        ([5, 10], 5, ["00:00:05", "00:00:10"]),
    ],
)
def test_times_say_no_more_than_tells_them_apart(starts, width, names):
    assert times_axis(starts, width) == names


def test_a_page_allows_its_own_style_and_nothing_else():
    text = document(HOSTILE, "<p>a</p>")

    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}&#x27;" in text
    assert "<script" not in text


def test_a_table_shows_what_a_reader_could_not_see():
    text = table(["name", "n"], [["a‮b\x1b[1m", "<b>"]], caption="c", texts=(1,))

    assert r"a\u202eb\x1b[1m" in text
    assert '<td class="text">&lt;b&gt;</td>' in text


def test_long_text_is_cut():
    assert shown("x" * 300) == "x" * 199 + "…"
