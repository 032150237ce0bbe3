"""`--by` and `--expect` tell of facts that no rule uses, as far as a source establishes them."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import MONDAY, write_traffic

POLICY = """\
guardrail: 1
policy: p
rules:
  - {id: day, when: always, budget: {requests: %s, per: day, key: account.id}}
tests:
  - {name: t, facts: {account.id: a}, expect: allow}
"""


@pytest.fixture(autouse=True)
def addresses(folder):
    """Two versions whose rules know no country, and requests that state an address at most."""
    (folder / "old.yaml").write_text(POLICY % 2)
    (folder / "new.yaml").write_text(POLICY % 1)
    rows = [
        {"account.id": "a", "client.ip": "5.160.139.132"},
        {"account.id": "a", "client.ip": "5.160.139.132"},
        {"account.id": "b", "client.ip": "8.8.8.8"},
        {"account.id": "c", "client.ip": "8.8.8.8", "geo.country": "FR"},
        {"account.id": "d"},
    ]
    write_traffic(folder / "t.jsonl", *({"ts": MONDAY, "facts": facts} for facts in rows))


def segments(told: dict) -> dict[str, int]:
    (division,) = told["segments"]
    return {one["values"]["geo.country"]: one["requests"] for one in division["segments"]}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_countries_are_looked_up_for_segments_alone(run, workers):
    given = ("--traffic", "t.jsonl", "--by", "geo.country", "--format", "json")
    check = json.loads(run("check", "old.yaml", *given, "--workers", workers).out)["traffic"]
    diff = run("diff", "old.yaml", "new.yaml", *given, "--workers", workers)
    plain = json.loads(run("check", "old.yaml", "--traffic", "t.jsonl", "--format", "json").out)
    expected = {"IR": 2, "US": 1, "FR": 1, "(missing)": 1}

    assert segments(check) == expected
    assert segments(json.loads(diff.out)["traffic"]) == expected
    assert check["decisions"] == plain["traffic"]["decisions"]


def test_an_expectation_finds_the_requests_of_a_country(run):
    given = ("--traffic", "t.jsonl", "--expect", "geo.country=IR throttled >= 50%")
    outcome = run("check", "new.yaml", *given)

    assert "1 of 1 expectation of traffic holds" in outcome.out
    assert "GR503" not in outcome.out
