"""The page on a simulation: complete in itself, and inert whatever names are in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from guardrail.simulate.modes import ablate, placebo, plain, twin
from guardrail.simulate.page import page
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
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.values += attributes

    def handle_endtag(self, tag):
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

    assert not {name for name, _ in reader.values} & {"src", "href", "onload", "onclick", "style"}
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
    assert text.count("<figure>") == 2
    assert text.count('<figure class="bars">') == 3


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
