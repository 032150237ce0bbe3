"""What people say of rules (owner, ticket, labels, description), where commands show it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import POLICY

SAID = """
    description: Nobody asks for more in a day.
    owner: abuse team
    ticket: OPS-12
    labels: {area: money}"""
ABOUT = {
    "description": "Nobody asks for more in a day.",
    "owner": "abuse team",
    "ticket": "OPS-12",
    "labels": {"area": "money"},
}


@pytest.fixture
def owned(folder):
    """Write the policies with an owner of the daily limit."""
    assert "- id: tokens-per-day" in POLICY
    text = POLICY.replace("- id: tokens-per-day", f"- id: tokens-per-day{SAID}")
    (folder / "owned.yaml").write_text(text)
    return "owned.yaml"


def test_the_rules_of_check_have_an_owner_where_any_names_one(run, owned):
    told = run("check", owned, "--traffic", "week.jsonl").out
    head, *rows = told.partition("rules, by requests refused\n")[2].splitlines()

    assert head.split() == ["rule", "matched", "accounts", "decided", "owner"]
    assert rows[0].endswith("–")
    assert rows[1].endswith("abuse team, OPS-12")
    shadowed = told.partition("shadow rules, had they been enforced\n")[2].splitlines()
    assert shadowed[0].split()[-2:] == ["would", "have"]
    assert "owner" not in run("check", "policies", "--traffic", "week.jsonl").out


def test_json_tells_all_that_is_said_of_a_rule_and_nothing_of_others(run, owned):
    told = json.loads(run("check", owned, "--traffic", "week.jsonl", "--format", "json").out)
    rules = {rule["rule"]: rule for rule in told["traffic"]["rules"]}

    assert {name: rules["tokens-per-day"][name] for name in ABOUT} == ABOUT
    assert not ABOUT.keys() & rules["embargo"].keys()


def test_explain_tells_what_is_said_in_text_and_json(run, owned):
    given = (
        "--request",
        '{"account.id": "a1", "geo.country": "DE"}',
        "--used",
        "tokens-per-day=100",
    )
    text = run("explain", owned, *given).out
    written = run("explain", owned, *given, "--format", "json").out
    # What stands for the date of the country database took its closing quote with it.
    told = json.loads(written.replace("guardrail-country …", 'guardrail-country …"'))
    rules = {rule["rule"]: rule for rule in told["rules"]}

    for line in ("Nobody asks for more in a day.", "abuse team", "OPS-12", "area: money"):
        assert line in text
    assert {name: rules["tokens-per-day"][name] for name in ABOUT} == ABOUT
    assert not ABOUT.keys() & rules["embargo"].keys()


def test_a_finding_in_a_rule_names_its_owner(run, owned, folder):
    text = (folder / owned).read_text()
    (folder / owned).write_text(text.replace("tokens: 100,", "tokens: 0,"))
    found = json.loads(run("lint", owned, "--format", "json").out)["findings"]
    mine = [one for one in found if one["line"] in range(13, 22)]

    assert mine
    assert all(one["owner"] == "abuse team, OPS-12" for one in mine)
    assert not any("owner" in one for one in found if one not in mine)
    told = run("lint", owned).out
    assert told.count("= owner: abuse team, OPS-12\n") == len(mine)
    for form in ("concise", "github", "sarif"):
        told = run("lint", owned, "--format", form).out
        assert told.count("owner: abuse team") == len(mine), form


def test_the_page_names_owners(run, owned, folder):
    run("check", owned, "--traffic", "week.jsonl", "--report", "out.html")
    text = (folder / "out.html").read_text("utf-8")

    assert '<td class="text">abuse team, OPS-12</td>' in text
    assert '<td class="text">Nobody asks for more in a day.</td>' in text
