"""Limits proposed from traffic: how much accounts took at their busiest, and what leaves room."""

from __future__ import annotations

import heapq
import math
from enum import Enum
from typing import NamedTuple

from guardrail.replay.ceilings import MARGIN, USUAL, rounded_up
from guardrail.replay.report.sampling import KeySample
from guardrail.traffic.requests import Request

DAY, MINUTE = 86400, 60
MOST_MODELS = 50
"""How many models are told apart."""
MOST_FACTS = 100
"""How many names of facts are remembered."""
_TYPES = {bool: "bool", int: "number", float: "number", list: "list"}


class Basis(Enum):
    """What decided a proposed number: the room above what is usual, its rounding, or a floor."""

    ROOM = "room"
    ROUNDING = "rounding"
    FLOOR = "floor"


class Busiest(NamedTuple):
    """What accounts took at their busiest, of one thing; `proposed` leaves room above `usual`.

    `median`, `usual` (which 99% of accounts stay at or below) and `most` are of accounts' busiest
    windows; `over` accounts of `accounts` took more than is proposed. `basis` is what decided it.
    """

    accounts: int
    median: int
    usual: int
    most: int
    proposed: int
    over: int
    basis: Basis


class _Taken:
    """What one account took: in the window that runs, and at its busiest."""

    __slots__ = (
        *("day", "minute", "tokens_now", "requests_now", "flying"),
        *("tier", "tokens", "requests", "in_flight"),
    )

    def __init__(self) -> None:
        self.tier: str | None = None
        self.day = self.minute = -1
        self.tokens_now = self.requests_now = 0
        self.tokens = self.requests = self.in_flight = 0
        self.flying: list[float] = []

    def merge(self, other: _Taken) -> None:
        """Add what the account took elsewhere, in windows of its own."""
        self.tokens = max(self.tokens, other.tokens)
        self.requests = max(self.requests, other.requests)
        self.in_flight = max(self.in_flight, other.in_flight)
        self.tier = self.tier or other.tier


class Proposal:
    """Adds up what accounts take, by a fact that names them, of traffic in the order of time.

    `models` maps each model to the most output tokens of one answer, `facts` each fact
    that is stated to the type of its first value. `timed` says whether any request told how
    long it took; `first` and `last` are the times of the traffic's ends.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._taken: KeySample[_Taken] = KeySample(_Taken)
        self.requests = self.nameless = 0
        self.models: dict[str, int] = {}
        self.facts: dict[str, str] = {}
        self.timed = False
        self.first, self.last = math.inf, -math.inf

    def add(self, ts: float, request: Request) -> None:
        """Count one request at `ts` (seconds)."""
        self.requests += 1
        self.first, self.last = min(self.first, ts), max(self.last, ts)
        facts, used = request.facts, {**(request.estimate or {}), **(request.usage or {})}
        for name, value in facts.items():
            if value is not None and name not in self.facts and len(self.facts) < MOST_FACTS:
                self.facts[name] = _TYPES.get(type(value), "string")
        output = int(used.get("output_tokens", 0))
        model = facts.get("request.model")
        if isinstance(model, str) and (model in self.models or len(self.models) < MOST_MODELS):
            self.models[model] = max(self.models.get(model, 0), output)
        key = facts.get(self._key)
        if not isinstance(key, str):
            self.nameless += 1
            return
        taken = self._taken.state(key)
        if taken is None:
            return
        tier = facts.get("account.tier")
        if isinstance(tier, str):
            taken.tier = tier
        tokens = int(used.get("input_tokens", 0)) + output or int(used.get("tokens", 0))
        if taken.day != ts // DAY:
            taken.day, taken.tokens_now = int(ts // DAY), 0
        if taken.minute != ts // MINUTE:
            taken.minute, taken.requests_now = int(ts // MINUTE), 0
        taken.tokens_now += tokens
        taken.requests_now += int(used.get("requests", 1))
        taken.tokens = max(taken.tokens, taken.tokens_now)
        taken.requests = max(taken.requests, taken.requests_now)
        while taken.flying and taken.flying[0] <= ts:
            heapq.heappop(taken.flying)
        self.timed = self.timed or request.duration > 0
        heapq.heappush(taken.flying, ts + request.duration)
        taken.in_flight = max(taken.in_flight, len(taken.flying))

    def merge(self, other: Proposal) -> None:
        """Add what was counted elsewhere."""
        self.requests += other.requests
        self.nameless += other.nameless
        self.facts = {**other.facts, **self.facts}
        self.timed = self.timed or other.timed
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        for model, most in other.models.items():
            self.models[model] = max(self.models.get(model, 0), most)
        self._taken.merge(other._taken)

    @property
    def keys(self) -> int:
        """How many values the fact has that names accounts; where there are many, about."""
        return len(self._taken) * self._taken.every

    @property
    def tiers(self) -> set[str]:
        """The values of `account.tier` that accounts have."""
        return {taken.tier for taken in self._taken if taken.tier is not None}

    @property
    def told_tokens(self) -> bool:
        """Whether any account took a token."""
        return any(taken.tokens for taken in self._taken)

    def tokens_a_day(self, least: int) -> Busiest:
        """Return tokens in the busiest day, in UTC, to propose `least` or more."""
        return self._busiest([taken.tokens for taken in self._taken], least)

    @property
    def is_untold(self) -> bool:
        """Whether accounts were seen whose tier the traffic does not tell."""
        return any(taken.tier is None for taken in self._taken)

    def tokens_of(self, tier: str, least: int, *, with_untold: bool = False) -> Busiest:
        """Return tokens in the busiest day of a tier's accounts, to propose `least` or more.

        `with_untold` takes the accounts for it, too, whose tier the traffic does not tell.
        """
        tiers = (tier, None) if with_untold else (tier,)
        return self._busiest([t.tokens for t in self._taken if t.tier in tiers], least)

    @property
    def requests_a_minute(self) -> Busiest:
        """Requests in the busiest minute; who may have so many at once may ask for so many."""
        least = self.in_flight.proposed if self.timed else 0
        return self._busiest([taken.requests for taken in self._taken], max(5, least))

    @property
    def in_flight(self) -> Busiest:
        """Requests at once."""
        return self._busiest([taken.in_flight for taken in self._taken], 2)

    def _busiest(self, each: list[int], least: int) -> Busiest:
        """Return what is proposed for some accounts' busiest windows, `least` or more."""
        ordered = sorted(each) or [0]
        usual = ordered[max(0, math.ceil(USUAL * len(ordered)) - 1)]
        roomy = math.ceil(rounded_up(usual * MARGIN))
        proposed = max(least, roomy)
        if roomy < least:
            basis = Basis.FLOOR
        else:
            basis = Basis.ROOM if proposed == usual * MARGIN else Basis.ROUNDING
        every = self._taken.every
        return Busiest(
            accounts=len(each) * every,
            median=ordered[(len(ordered) - 1) // 2],
            usual=usual,
            most=ordered[-1],
            proposed=proposed,
            over=every * sum(value > proposed for value in each),
            basis=basis,
        )
