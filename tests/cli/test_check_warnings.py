"""What `check` warns of beside its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def warnings_at(time: str, folder: Path) -> str:
    """Return what the check of one request at a time says beside its results."""
    traffic = folder / "one.jsonl"
    facts = {"client.ip": "8.8.8.8", "request.capability": "chat"}
    line = {"ts": time, "facts": facts, "usage": {"input_tokens": 9, "output_tokens": 9}}
    traffic.write_text(json.dumps(line) + "\n", "utf-8")
    command = [sys.executable, "-m", "guardrail", "check", "policies/", "--traffic", str(traffic)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stderr


def test_a_geo_database_older_than_the_traffic_is_warned_of(tmp_path):
    assert "country.mmdb" in warnings_at("2027-03-01T00:00:00Z", tmp_path)


def test_a_geo_database_of_the_traffics_own_time_is_not(tmp_path):
    assert "country.mmdb" not in warnings_at("2026-07-01T00:00:00Z", tmp_path)
