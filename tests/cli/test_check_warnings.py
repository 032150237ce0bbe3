"""What `check` warns of beside its results."""

from __future__ import annotations

from tests.cli.conftest import write_traffic


def warnings_at(time, run, folder):
    """Return what the check of one request at a time says beside its results."""
    facts = {"client.ip": "8.8.8.8", "request.capability": "chat", "account.id": "a"}
    line = {"ts": time, "facts": facts, "usage": {"input_tokens": 9, "output_tokens": 9}}
    write_traffic(folder / "one.jsonl", line)
    outcome = run("check", "policies", "--traffic", "one.jsonl", "--allow-empty")

    assert "1 request" in outcome.out
    return outcome.err


def test_a_geo_database_older_than_the_traffic_is_warned_of(run, folder):
    assert "country.mmdb" in warnings_at("2027-03-01T00:00:00Z", run, folder)


def test_a_geo_database_of_the_traffics_own_time_is_not(run, folder):
    assert "country.mmdb" not in warnings_at("2026-07-01T00:00:00Z", run, folder)
