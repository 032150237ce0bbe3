"""T17: what finding out whom an account acts as costs, known and at first sight, and its memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import thread_time_ns

from benchmarks.results import Result
from benchmarks.timing import interleaved, micros, ratio
from guardrail import Guard
from guardrail.loading import load_policies, load_text
from guardrail.model.policy import PolicySet

KNOWN_MOST, FIRST_MOST, BYTES_MOST = 1.2, 10.0, 64.0
POLICIES = Path(__file__).parent.parent / "policies"
START = 1_780_272_000.0
ACCOUNTS, TURNS, NEWCOMERS, PAIRS = 200, 6, 2_000, 1_000_000
COMING = {"a second": 1.0, "a minute": 60.0, "an hour": 3600.0, "a day": 86_400.0}
ONE_RULE = """
guardrail: 1
policy: one
facts: {account.tier: {type: level, values: [free, verified]}}
links:
  trusted: {account.tier: verified, account.verified_age: {gte: 30d}}
  strong: [payment.fingerprint, kyc.subject]
  weak: [client.network, device.fingerprint, request.template, request.toolset, account.signup]
rules:
  - {id: pool, when: always, budget: {requests: 100000, per: 30d, key: actor.id}}
"""
ESTIMATE: dict[str, object] = {"input_tokens": 100, "output_tokens": 100}

Facts = dict[str, object]


def linking_costs(rounds: int, scale: float) -> list[Result]:
    """Return T17: decisions on known accounts against no links, first sights, bytes a pair."""
    policies = load_policies([POLICIES])
    count = max(20, int(ACCOUNTS * scale))
    results = [
        result
        for name, each in (("one rule", load_text(ONE_RULE)), ("the shipped policies", policies))
        for result in _coming(name, each, rounds, count)
    ]
    firsts = _Newcomers(policies, max(50, int(NEWCOMERS * scale)))
    firsts_costs = interleaved({"first": firsts.cost}, rounds)
    pairs = max(2_000, int(PAIRS * scale))
    command = [sys.executable, "-m", "benchmarks.linking", str(pairs)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return [
        *results,
        Result(
            target="T17",
            what="the first sight of one value of an account, in memory",
            value=micros(firsts_costs, "first"),
            unit="µs",
            bound=FIRST_MOST,
            note=f"{firsts.values} values an account",
        ),
        Result(
            target="T17",
            what=f"memory for a pair of account and value, of {pairs:,}",
            value=float(run.stdout),
            unit="bytes",
            bound=BYTES_MOST,
        ),
    ]


def _coming(name: str, policies: PolicySet, rounds: int, count: int) -> Iterator[Result]:
    """Yield what decisions on accounts cost that come once in a while, against no links."""
    linked = Guard.from_policies(policies, environ={})
    scoreless = Guard.from_policies(replace(policies, score=None), environ={})
    alone = Guard.from_policies(replace(policies, links=None, score=None), environ={})
    for interval, seconds in COMING.items():
        costs = interleaved(
            {
                "linked": _Known(linked, count, seconds).cost,
                "scoreless": _Known(scoreless, count, seconds).cost,
                "alone": _Known(alone, count, seconds).cost,
            },
            rounds,
        )
        note = f"{micros(costs, 'linked'):.1f} µs against {micros(costs, 'alone'):.1f}"
        if policies.score is not None:
            note += f"; without `score` {ratio(costs, 'scoreless', 'alone'):.2f} ×"
        yield Result(
            target="T17",
            what=f"a decision by {name} on accounts that come once {interval}, against no links",
            value=ratio(costs, "linked", "alone"),
            bound=KNOWN_MOST,
            note=note,
        )


class _Known:
    """Accounts that come again and again, once in so many seconds."""

    def __init__(self, guard: Guard, count: int, seconds: float) -> None:
        self._guard, self._count, self._seconds = guard, count, seconds
        self._round = 0

    def cost(self) -> float:
        """Decide for some accounts in turn, after a first sight; return seconds a request."""
        guard, self._round = self._guard, self._round + 1
        start = START + self._round * 10 * 86_400
        first = int(self._seconds) * 1_000_000 + self._round * self._count
        asked = list(islice(_people(first, start), self._count))
        for at in (0, 1):
            for facts in asked:
                guard.settle(guard.decide(facts, ESTIMATE, now=start + at), ESTIMATE, now=start)
        began = thread_time_ns()
        for turn in range(1, TURNS + 1):
            now = start + 1 + turn * self._seconds
            for facts in asked:
                guard.decide(facts, ESTIMATE, now=now)
        return (thread_time_ns() - began) / (self._count * TURNS) / 1e9


class _Newcomers:
    """Accounts that nobody has seen, each with values some of which others show as well."""

    def __init__(self, policies: PolicySet, count: int) -> None:
        self._guard = Guard.from_policies(policies, environ={})
        self._people = _people(1_000_000)
        self._count = count
        links = policies.links
        assert links is not None
        self.values = 1 + len(links.pairs)

    def cost(self, count: int = 0) -> float:
        """See so many accounts for the first time; return seconds a value."""
        count = count or self._count
        asked = list(islice(self._people, count))
        signal = self._guard._context.signals[-1]
        began = thread_time_ns()
        for facts in asked:
            signal.facts(facts, START)
        return (thread_time_ns() - began) / count / self.values / 1e9


def grown(pairs: int) -> float:
    """Return the bytes that a pair of account and value takes, of so many."""
    policies = load_policies([POLICIES])
    newcomers = _Newcomers(policies, pairs)
    count = pairs // newcomers.values
    tracemalloc.start()
    # What is remembered for half a minute has taken its room by then, where there are many.
    newcomers.cost(count)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    newcomers.cost(count)
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / (count * newcomers.values)


def _people(first: int, now: float = START) -> Iterator[Facts]:
    """Yield accounts that are new `now`: a card each, what others share in threes and fives."""
    number = first
    while True:
        yield {
            "account.id": f"acct-{number:09x}",
            "account.tier": "verified",
            "account.verified_at": now - 3600,
            "account.created": now - 7200,
            "account.paid_usd": 5000,
            "geo.country": "DE",
            "network.kind": "residential",
            "client.network": f"198.51.{number // 768 % 256}.{number // 3 % 256}/32",
            "payment.fingerprint": f"card-{number}",
            "device.fingerprint": f"device-{number}",
            "account.signup": f"signup-{number // 5}",
            "request.template": f"template-{number // 2}",
            "request.toolset": f"tools-{number % 7}",
            "request.capability": "chat",
        }
        number += 1


if __name__ == "__main__":
    print(grown(int(sys.argv[1])))
