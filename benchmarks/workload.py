"""The requests that are measured: a thousand accounts of R5, and a clock that always moves on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks import r5
from benchmarks.timing import Contender
from guardrail import Guard
from guardrail.signals.geo import GeoSignal

R5_POLICY = Path(__file__).with_name("r5.yaml")
START = 1_767_600_000.0
STEP = 0.5
"""Seconds between requests: slow enough for each of a thousand accounts to stay in its limits."""

TIERS = ("anon", "basic", "verified", "enterprise")
SERVED = frozenset("AU BR CA CN DE FR GB IN IT JP KR NL SE US".split())
COUNTRIES = ("DE", "FR", "US", "JP", "BR", "IN", "NG", "AU")

TOKENS: dict[str, object] = {"input_tokens": 40, "output_tokens": 30}


class Requests(NamedTuple):
    """The same requests in two forms: facts and estimate, and arguments of R5 by hand."""

    stated: list[tuple[dict[str, object], dict[str, object]]]
    positional: list[tuple[Any, ...]]


def r5_requests(count: int, *, accounts: int = 1000, tier: str | None = None) -> Requests:
    """Return `count` requests of R5 in random order, with `tier` for all accounts or one each."""
    draw = random.Random(5)
    made = Requests([], [])
    people = [_account(number, tier) for number in range(accounts)]
    places = [n % accounts for n in range(count)] if count <= 10 * accounts else None
    for n in range(count):
        facts = people[places[n] if places else draw.randrange(accounts)]
        tokens = (20 + n * 7 % 50, n * 3 % 40)
        made.stated.append((facts, {"input_tokens": tokens[0], "output_tokens": tokens[1]}))
        values: list[Any] = list(facts.values())
        made.positional.append((*values, sum(tokens)))
    return made


def _account(number: int, tier: str | None) -> dict[str, object]:
    level = tier or TIERS[number % 4]
    capabilities = ("chat", "code", "agentic") if level in TIERS[2:] else ("chat", "code")
    return {
        "account.id": f"acct_{number:07}",
        "account.org": f"org_{number // 4:06}",
        "account.tier": level,
        "geo.country": COUNTRIES[number % len(COUNTRIES)],
        "request.capability": capabilities[number % len(capabilities)],
    }


def one_of_many(number: int) -> dict[str, object]:
    """Return the facts of one of a great many accounts that R5 refuses nothing."""
    return {
        "account.id": f"acct_{number:07}",
        "account.org": f"org_{number // 4:06}",
        "account.tier": "enterprise",
        "geo.country": "DE",
        "request.capability": ("chat", "code", "agentic")[number % 3],
    }


def addresses_served(count: int) -> list[str]:
    """Return so many random addresses of countries that R5 serves."""
    draw, country_of = random.Random(12), GeoSignal.open().country_of
    addresses: list[str] = []
    while len(addresses) < count:
        address = ".".join(str(draw.randrange(1, 224)) for _ in range(4))
        if country_of(address, START) in SERVED:
            addresses.append(address)
    return addresses


def r5_guard(**settings: Any) -> Guard:
    """Return a guard for R5 with empty counters in memory, whatever the environment says."""
    return Guard.load(R5_POLICY, **{"store": "memory://", "environ": {}, **settings})


class Clock:
    """The time of one contender, in seconds: it goes on from round to round."""

    def __init__(self, step: float = STEP) -> None:
        self.now = START
        self.step = step


def deciding(
    guard: Guard,
    stated: Sequence[tuple[Any, Any]],
    clock: Clock,
    timer: Callable[[], float] = perf_counter,
) -> Contender:
    """Return a contender that decides every request; it gives seconds a request, by `timer`."""

    def run() -> float:
        decide, now, step = guard.decide, clock.now, clock.step
        began = timer()
        for facts, estimate in stated:
            now += step
            decide(facts, estimate, now=now)
        took = timer() - began
        clock.now = now
        return took / len(stated)

    return run


def by_hand(positional: Sequence[tuple[Any, ...]], clock: Clock) -> Contender:
    """Return the yardstick: the same requests decided by the hand-written R5, begun afresh."""
    r5.restart()

    def run() -> float:
        decide, now, step = r5.decide, clock.now, clock.step
        began = perf_counter()
        for account, org, tier, country, capability, tokens in positional:
            now += step
            decide(account, org, tier, country, capability, tokens, now)
        took = perf_counter() - began
        clock.now = now
        return took / len(positional)

    return run
