"""What an attack was served is told by the kinds of accounts that it came through."""

from __future__ import annotations

import pytest

from guardrail.cli.simulate_text import taken_through
from guardrail.simulate.population import DAY
from guardrail.simulate.report import figures
from guardrail.simulate.running import simulate
from guardrail.simulate.skills import Attack
from guardrail.simulate.through import Kind, Through, band_of
from tests.simulate.worlds import OPEN, TRIAL, options, policies_of


def kind(**given):
    """Return a new account without an identity that has paid nothing and acts alone."""
    return Kind(**{"identity": None, "age": 0.0, "paid": 0.0, "acting": 1, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("no ID", "new", "nothing", "1")),
        ({"age": 60 * DAY - 1}, ("no ID", "new", "nothing", "1")),
        ({"age": 60 * DAY}, ("no ID", "old", "nothing", "1")),
        ({"identity": 0.0}, ("new ID", "new", "nothing", "1")),
        ({"identity": 60 * DAY}, ("old ID", "new", "nothing", "1")),
        ({"paid": 19.99}, ("no ID", "new", "< $20", "1")),
        ({"paid": 20.0}, ("no ID", "new", "$20+", "1")),
        ({"paid": 500.0}, ("no ID", "new", "$500+", "1")),
        ({"acting": 3}, ("no ID", "new", "nothing", "2–3")),
        ({"acting": 5000}, ("no ID", "new", "nothing", "8+")),
        ({"acting": None}, ("no ID", "new", "nothing", None)),
    ],
)
def test_an_account_falls_in_a_band(given, expected):
    assert tuple(band_of(kind(**given))) == expected


def test_rows_begin_with_what_took_most_and_tell_what_refused_it_most():
    through = Through()
    through.serve(kind(), 1, 5)
    through.serve(kind(), 2, 5)
    through.serve(kind(paid=25.0), 3, 70)
    through.refuse(kind(), 4, "first")
    for _ in range(2):
        through.refuse(kind(), 1, "second")

    paid, unpaid = through.rows()

    assert (paid["served"], paid["accounts"], paid["refusals"]) == (70, 1, {})
    assert (unpaid["served"], unpaid["accounts"]) == (10, 3)
    assert list(unpaid["refusals"].items()) == [("second", 2), ("first", 1)]


@pytest.mark.parametrize("rules", [OPEN, TRIAL])
@pytest.mark.parametrize("attack", [Attack.NAIVE, Attack.WHITEBOX, Attack.STOLEN_KEYS])
def test_all_that_an_attack_was_served_went_through_some_account(attack, rules):
    taken = figures(simulate(policies_of(rules), options(attack=attack, days=5), 2))["attacker"]

    assert sum(band["served"] for band in taken["taken_through"]) == taken["served"] > 0


def test_the_rule_that_holds_an_attack_off_is_named():
    taken = figures(simulate(policies_of(TRIAL), options(days=5), 2))["attacker"]
    band = taken["taken_through"][0]

    assert band["known"] == "no ID"
    assert next(iter(band["refusals"])) == "trial"
    assert any("trial" in line and "new, no ID" in line for line in taken_through(taken, 100))


def test_what_is_left_out_of_the_table_is_added_up():
    row = {"known": "no ID", "age": "new", "paid": "nothing", "acting": None, "accounts": 1}
    bands: list[dict[str, object]] = [
        {**row, "served": served, "refusals": {}} for served in range(20, 10, -1)
    ]

    lines = list(taken_through({"taken_through": bands, "wanted": 200}, 100))

    assert len(lines) == 1 + 8 + 1
    assert lines[-1].split() == ["others", "23", "11.50%"]
    assert list(taken_through({"taken_through": [], "wanted": 0}, 100)) == []
