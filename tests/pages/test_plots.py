"""Plots and the frame of pages: figures in proportion, whatever names are in them."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from guardrail.pages import (
    Bar,
    Line,
    bars_plot,
    document,
    label,
    lines_plot,
    nice,
    shown,
    table,
    times_axis,
)

HOSTILE = "<script>alert(1)</script>\"'&"


def test_lines_end_where_their_values_do():
    text = lines_plot("a", "", ["x", "y", "z"], [Line("b", "a", [0.0, 50.0, 100.0], filled=True)])

    points = re.search(r'polyline class="a line" points="([^"]*)"', text)
    assert points is not None
    assert points[1].split()[0] == "58.0,226.0"
    assert points[1].split()[2] == "706.0,12.0"
    assert "z, b: 100" in text


def test_lines_have_their_figures_as_a_table_and_in_words():
    text = lines_plot("a", "%", ["x", "y"], [Line("b", "a", [0.25, 0.5])])

    assert '<tr><th scope="row">y</th><td>50%</td></tr>' in text
    assert "b: 25% at first, at most 50% (y), 50% at last." in text


def test_the_longest_bar_fills_its_plot_and_others_are_in_proportion():
    text = bars_plot(HOSTILE, [Bar(HOSTILE, "a", 0.5, "1"), Bar("c", "a", 0.25, "2")])
    widths = re.findall(r'class="a" x="0" y="0" width="([\d.]+)"', text)

    assert widths == ["1000.0", "500.0"]
    assert "<script" not in text


def test_a_bar_of_a_share_is_that_share_of_its_column():
    text = bars_plot("a", [Bar("b", "a", 0.25, "25%"), Bar("c", "a", 0.0, "0%")], whole=1.0)

    assert re.findall(r'class="a" x="0" y="0" width="([\d.]+)"', text) == ["250.0", "0.0"]


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (1, 1), (1.1, 2), (2.2, 2.5), (430, 500), (0.03, 0.05)]
)
def test_axes_end_at_round_numbers(most, top):
    assert nice(most) == pytest.approx(top)


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
