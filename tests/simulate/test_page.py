"""The page on a simulation: complete in itself, and inert whatever names are in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from guardrail.simulate.modes import ablate, placebo, plain, twin
from guardrail.simulate.page import page
from guardrail.simulate.plots import Bar, Line, bars_plot, label, lines_plot, nice
from guardrail.simulate.skills import Attack
from tests.simulate.worlds import CARDS, TRIAL, options, policies_of

HOSTILE = "<script>alert(1)</script>\"'&"


class Reader(HTMLParser):
    """Collects tags and attributes, and whether every tag that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.values, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += attributes
        if tag not in {"meta", "line", "circle", "polyline", "polygon", "rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.values += attributes

    def handle_endtag(self, tag):
        if tag not in {"line", "circle", "polyline", "polygon", "rect"}:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def told():
    policies, given = policies_of(TRIAL + CARDS), options(accounts=100, shocks=True)
    return {
        "policy": HOSTILE,
        "revision": "sha256:0",
        "mode": "plain",
        "baseline": None,
        "seeds": [plain(policies, given, seed) for seed in range(2)],
    }


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_a_page_refers_to_nothing_outside_it(told):
    text = page(told)
    reader = read(text)

    assert not {name for name, _ in reader.values} & {"src", "href", "onload", "onclick"}
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert not re.search(r"https?://|url\(|@import", text)


def test_names_on_a_page_are_inert(told):
    text = page(told)

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_page_is_light_and_dark(told):
    assert "prefers-color-scheme: dark" in page(told)


def test_a_page_shows_the_three_figures_of_the_worst_seed(told):
    text = page(told)
    worst = max(told["seeds"], key=lambda found: found["attacker"]["sought_share"])

    assert f"{100 * worst['attacker']['sought_share']:.2f}%" in text
    assert f"{worst['attacker']['cost_multiple']:,.1f}×" in text
    assert f"{100 * worst['honest']['pooled']['new']['refused_share']:.2f}%" in text
    assert text.count("<svg") == 5


@pytest.mark.parametrize("mode", [ablate, placebo, twin])
def test_a_page_tells_what_its_mode_found(mode, told):
    found = mode(policies_of(TRIAL + CARDS), options(accounts=40), 0)
    name = {ablate: "Without each primitive", placebo: "Placebo", twin: "Twin"}[mode]

    text = page(told | {"seeds": [found]})

    read(text)
    assert f"<h2>{name}</h2>" in text


def test_a_page_without_an_attack_has_no_attacker(told):
    found = plain(policies_of(TRIAL), options(attack=Attack.NONE), 0)
    text = page(told | {"seeds": [found]})

    assert "What operators wanted" not in text
    assert "Harm to honest customers" in text


def test_lines_end_where_their_values_do():
    text = lines_plot("a", "", 1, [Line("b", "a", [0.0, 50.0, 100.0], filled=True)])

    points = re.search(r'polyline class="a line" points="([^"]*)"', text)
    assert points is not None
    assert points[1].split()[0] == "64.0,206.0"
    assert points[1].split()[2] == "628.0,12.0"
    assert "day 3, b: 100" in text


def test_the_longest_bar_fills_its_plot_and_others_are_in_proportion():
    text = bars_plot(HOSTILE, [Bar(HOSTILE, "a", 0.5, "1"), Bar("c", "a", 0.25, "2")])
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height', text)]

    assert widths[0] == 2 * widths[1] == 360
    assert "<script" not in text


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
