"""Recorded traces of real services, replayed through their maps and the shipped policies."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from guardrail.guard import Guard
from guardrail.loading import load_policies, load_text
from guardrail.model.policy import PolicySet
from guardrail.replay.running import Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.lines import LineSource
from guardrail.traffic.mapfile import load_map
from guardrail.traffic.reading import Recorded, recorded_requests
from guardrail.traffic.requests import BadLines

ROOT = Path(__file__).parents[2]
TRACES = {
    "azure2023_code": "azure2023_code",
    "mooncake_synthetic": "mooncake_synthetic",
    "ragpulse_week": "ragpulse_week",
    "servegen_deepseek-r1_1h_drawn": "servegen",
    "weblog_elastic_apache": "weblog",
}


def read(folder: Path, trace: str, policies: PolicySet) -> list[Recorded]:
    """Return the requests of a trace; none of its lines is bad, and no column without values."""
    mapping = load_map(str(ROOT / "examples" / "maps" / f"{TRACES[trace]}.yaml"), policies)
    bad = BadLines()
    with LineSource(str(folder / "traces" / f"{trace}.jsonl.gz")) as source:
        found = list(recorded_requests(source, bad, mapping))
    assert (bad.count, mapping.notes.unseen) == (0, set())
    return found


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies([ROOT / "policies"])


@pytest.mark.parametrize("trace", TRACES)
def test_every_line_of_a_trace_becomes_a_request(test_data, policies, trace):
    rows = read(test_data, trace, policies)
    with gzip.open(test_data / "traces" / f"{trace}.jsonl.gz") as lines:
        logged = [json.loads(line) for line in lines]

    assert len(rows) == len(logged)
    assert [ts - rows[0][1] for _, ts, _ in rows] == pytest.approx(
        [row["timestamp"] - logged[0]["timestamp"] for row in logged], abs=1e-5
    )
    for (_, _, request), row in zip(rows, logged, strict=True):
        who = request.facts.get("account.id", request.facts.get("client.ip"))
        assert who == (row["session"] or "azure")
        if "input_tokens" in row:
            wanted = {"input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"]}
            assert request.usage == wanted


@pytest.mark.parametrize("trace", TRACES)
def test_every_request_of_a_trace_is_decided_and_counted(test_data, policies, trace):
    rows = read(test_data, trace, policies)
    tally = Tally(policies)
    with Guard.from_policies(policies, environ={}) as guard:
        for _, ts, request, decision in Replay(guard).run(rows):
            tally.add(ts, request, decision)
    tally.finish()

    assert tally.requests == sum(tally.decided.values()) == len(rows)
    matched = tally.matching.matched
    assert all(matched[rule] >= count for (rule, _), count in tally.decided.items() if rule)


LIMIT = 20_000
HOURLY = f"""
guardrail: 1
policy: p
facts: {{account.tier: {{type: level, values: [verified, enterprise]}}}}
rules:
  - {{id: hourly, when: always, budget: {{tokens: {LIMIT}, per: hour, key: account.id}}}}
"""


@pytest.mark.parametrize("trace", ["mooncake_synthetic", "servegen_deepseek-r1_1h_drawn"])
def test_an_hourly_budget_over_a_trace_is_what_a_plain_sum_says(test_data, trace):
    policies = load_text(HOURLY)
    used: dict[object, int] = defaultdict(int)
    with Guard.from_policies(policies, environ={}) as guard:
        for _, ts, request, decision in Replay(guard).run(read(test_data, trace, policies)):
            assert request.estimate is not None
            assert request.usage is not None
            key = (request.facts["account.id"], ts // 3600)
            fits = used[key] + sum(request.estimate.values()) <= LIMIT
            assert decision.allowed is fits
            if fits:
                used[key] += int(sum(request.usage.values()))

    assert any(amount > LIMIT // 2 for amount in used.values())
