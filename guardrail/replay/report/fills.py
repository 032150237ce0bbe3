"""Each limit against the traffic that meets it: how full keys make it, and what others would do.

The *demand* on a counter is what it holds, the request, and what the rule turned away of the same
key before: in the window, in flight, or not drained by now. A request whose demand is above a limit
some times as large would be refused by that limit, and the most demand of a key tells whether the
key would meet it at all. That is first-order: nobody in a recording reacts, what other rules
refuse stays refused, and a tighter limit is judged by what is used under the present one. A pace
is tried with its burst, each so many times as large.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from guardrail.engine import Decision, Limit, Receipt
from guardrail.model.amounts import SECOND
from guardrail.model.cells import LINE, WINDOW
from guardrail.model.rules import Budget, Distinct
from guardrail.replay.report.sampling import KeySample
from guardrail.traffic.requests import Request

TIMES = (0.5, 0.8, 1.0, 1.25, 2.0)
"""The limits that are tried: so many times the present one."""

BANDS = (0.1, 0.5, 0.8, 1.0, 1.25, 2.0)
"""Where the bands of the distribution over keys begin, after the first; shares of the limit."""

SPREAD = tuple(number / 20 for number in range(51))
"""The shares of the limit for which keys are counted that asked for at least so much."""

_MOST_VALUES = 1_000
"""How many values of one key are told apart."""
_MOST_IN_FLIGHT = 10_000
"""How many requests of one key that were turned away are thought of as in flight."""


class _Known:
    """What is known of one key of a counter, and what was turned away of it.

    `peak` is its most demand, as a share of the limit, and `past` the limits tried that refused
    it, as bits. `at` is the window, or the time in seconds, that `turned` belongs to: units of a
    window or a line; `ends`, when requests that were turned away would have ended; `levels`, how
    full a line would be under each limit tried; `places`, which place in the set each value has.
    """

    __slots__ = ("at", "ends", "levels", "past", "peak", "places", "turned")

    def __init__(self) -> None:
        self.peak = 0.0
        self.past = 0
        self.turned = 0.0
        self.at = 0.0
        self.ends: list[float] | None = None
        self.levels: list[float] | None = None
        self.places: dict[object, int] | None = None

    def merge(self, other: _Known) -> None:
        """Add what is known elsewhere; what was turned away is not: it is of one run."""
        self.peak = max(self.peak, other.peak)
        self.past |= other.past


class Row(NamedTuple):
    """One counter: its limit, its unit, and what the traffic asked of it.

    `keys` and what is counted of them are estimates where only one key in `every` was followed.
    `bands` counts keys by their most demand, `past` has (times, requests, keys) refused by a
    limit so many times as large; `spread` counts the keys that asked for at least each share of
    the limit in `SPREAD`. `steps` are the requests that reached each step, by percent.
    `refused` are requests that the rule refused on this counter, as measured.
    """

    rule: str
    unit: str
    requests: int
    refused: int
    keys: int
    every: int
    bands: tuple[int, ...]
    past: tuple[tuple[float, int, int], ...]
    spread: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]


class Fills:
    """Adds up what requests ask of every counter of a policy set."""

    def __init__(self) -> None:
        self._fills: dict[tuple[str, str], _Fill] = {}
        self._by_number: dict[int, _Fill] = {}

    def add(self, ts: float, request: Request, decision: Decision) -> None:
        """Count what one request at `ts` (seconds) asks of the counters it met."""
        case = decision.case
        consulted = case.consulted
        if not consulted:
            return
        engine = case.engine
        found = [finding for finding in case.found if finding.effect.refuses]
        rules = {finding.order for finding in found}
        counters = {finding.number for finding in found}
        turned = decision.effect.refuses
        for receipt, _ in consulted:
            fill = self._by_number.get(receipt.number)
            if fill is None:
                limit, part = engine.counters[receipt.number]
                name = limit.rule.id, limit.unit(part)
                fill = self._fills.setdefault(name, _Fill(limit, part))
                self._by_number[receipt.number] = fill
            mine = fill.order in rules
            if turned and not mine and not fill.shadow:
                # Others refuse it: whatever this limit were, it is not served.
                continue
            fill.add(ts, case.now, request, decision, receipt, mine, receipt.number in counters)

    def merge(self, other: Fills) -> None:
        """Add what was counted elsewhere of the same policy set."""
        for name, theirs in other._fills.items():
            mine = self._fills.get(name)
            if mine is None:
                self._fills[name] = theirs
            else:
                mine.merge(theirs)

    def __getstate__(self) -> dict[str, object]:
        """Return the figures alone: they go from one process to another, and engines do not."""
        return {"_fills": self._fills, "_by_number": {}}

    def rows(self) -> list[Row]:
        """Return what came of each counter, by rule and unit."""
        return [fill.row(rule, unit) for (rule, unit), fill in sorted(self._fills.items())]


class _Fill:
    """One counter: its keys, and what they asked of it."""

    def __init__(self, limit: Limit, part: int) -> None:
        rule = limit.rule
        self.order, self.shadow = rule.index, limit.shadow
        self._limit, self._verb = limit, rule.verb
        self._unit = limit.units[part] if limit.units else ""
        self._keys: KeySample[_Known] = KeySample(_Known)
        self._requests = self._refused = 0
        self._past = [0] * len(TIMES)
        self._percents = [step.percent for step in rule.verb.on_the_way]
        self._steps: Counter[int] = Counter()

    def add(
        self,
        ts: float,
        now: int,
        request: Request,
        decision: Decision,
        receipt: Receipt,
        refused: bool,
        by_this: bool,
    ) -> None:
        """Count one request that the rule refused or not, be it for this counter or another.

        Figures that came from another process can be merged and told, and not be added to.
        """
        self._requests += 1
        self._refused += by_this
        for percent in self._percents:
            if (receipt.used + receipt.increment) * 100 > receipt.allowance * percent:
                self._steps[percent] += 1
        known = self._keys.state(receipt.key)
        if known is None:
            return
        kind = self._limit.kind
        if kind == WINDOW:
            share = self._of_window(now, request, decision, receipt, known, refused)
        elif kind == LINE:
            share = self._of_line(ts, now, receipt, known, refused)
        elif isinstance(self._verb, Distinct):
            share = self._of_values(now, decision, receipt, known, refused)
        else:
            share = self._in_flight(ts, request, receipt, known, refused)
        known.peak = max(known.peak, share)
        if kind != LINE and share > TIMES[0]:
            for number, times in enumerate(TIMES):
                if share > times:
                    self._pass(number, known)

    def _pass(self, number: int, known: _Known) -> None:
        self._past[number] += self._keys.every
        known.past |= 1 << number

    def merge(self, other: _Fill) -> None:
        self._requests += other._requests
        self._refused += other._refused
        self._past = [a + b for a, b in zip(self._past, other._past, strict=True)]
        self._steps.update(other._steps)
        self._keys.merge(other._keys)

    def __getstate__(self) -> dict[str, object]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_limit", "_verb")
        }

    def row(self, rule: str, unit: str) -> Row:
        every = self._keys.every
        bands = [0] * (len(BANDS) + 1)
        reached = [0] * len(TIMES)
        last = [0] * len(SPREAD)
        for known in self._keys:
            # A sum of shares that falls short of a bound by a rounding has reached it.
            last[bisect_right(SPREAD, known.peak + 1e-9) - 1] += every
            bands[sum(known.peak > start for start in BANDS)] += every
            for number in range(len(TIMES)):
                reached[number] += every * (known.past >> number & 1)
        return Row(
            rule=rule,
            unit=unit,
            requests=self._requests,
            refused=self._refused,
            keys=len(self._keys) * every,
            every=every,
            bands=tuple(bands),
            past=tuple(zip(TIMES, self._past, reached, strict=True)),
            spread=tuple(accumulate(reversed(last)))[::-1],
            steps=tuple((percent, self._steps[percent]) for percent in self._percents),
        )

    def _of_window(
        self,
        now: int,
        request: Request,
        decision: Decision,
        receipt: Receipt,
        known: _Known,
        refused: bool,
    ) -> float:
        verb = self._verb
        assert isinstance(verb, Budget)
        length = verb.window.length
        window = now // length if length else receipt.slot
        if known.at != window:
            known.turned, known.at = 0.0, window
        demand = receipt.used + known.turned + receipt.amount
        if refused:
            known.turned += self._would_use(request, decision, receipt)
        ceiling = self._limit.ceiling(receipt.allowance)
        return demand / (ceiling or receipt.allowance)

    def _of_line(
        self, ts: float, now: int, receipt: Receipt, known: _Known, refused: bool
    ) -> float:
        stand = self._limit.stand(receipt, now, False)
        burst, amount = max(1, stand.most), receipt.amount
        drained = max(0.0, ts - known.at) * receipt.allowance * SECOND / self._limit.period
        known.at = max(ts, known.at)
        known.turned = max(0.0, known.turned - drained)
        demand = stand.used + known.turned + amount
        if refused:
            known.turned += amount
        if known.levels is None:
            known.levels = [float(stand.used)] * len(TIMES)
        for number, times in enumerate(TIMES):
            level = max(0.0, known.levels[number] - drained * times)
            # A millionth of a unit is a rounding, and not what the line refuses.
            if level + amount > burst * times + 1e-6:
                self._pass(number, known)
            else:
                level += amount
            known.levels[number] = level
        return demand / burst

    def _of_values(
        self, now: int, decision: Decision, receipt: Receipt, known: _Known, refused: bool
    ) -> float:
        verb = self._verb
        assert isinstance(verb, Distinct)
        window = now // verb.period
        if known.places is None or known.at != window:
            known.places, known.at, known.turned = {}, window, 0.0
        value = decision.facts.get(verb.count)
        place = known.places.get(value)
        if place is None:
            place = len(known.places) + 1
            if receipt.increment:
                place = receipt.used + int(known.turned) + 1
                known.turned += refused
            if len(known.places) < _MOST_VALUES:
                known.places[value] = place
        return place / receipt.allowance

    def _in_flight(
        self, ts: float, request: Request, receipt: Receipt, known: _Known, refused: bool
    ) -> float:
        ends = known.ends
        if ends is None:
            ends = known.ends = []
        while ends and ends[0] <= ts:
            heapq.heappop(ends)
        demand = receipt.used + len(ends) + 1
        if refused and request.duration and len(ends) < _MOST_IN_FLIGHT:
            heapq.heappush(ends, ts + request.duration)
        return demand / receipt.allowance

    def _would_use(self, request: Request, decision: Decision, receipt: Receipt) -> float:
        """Return what a refused request would have used: its usage, else what it reserves."""
        usage: Mapping[str, object] | None = request.usage
        if not usage:
            return receipt.amount
        case = decision.case
        model = case.facts.get("request.model")
        final, _ = case.engine.sizer.settle(usage, case.estimate, model, model)
        return final.get(self._unit, receipt.amount)
