"""What honest customers ask for each day, and what they do when they are refused.

All that is random is drawn from streams that no decision touches: the same seed asks for the same
at the same times, whatever it is answered and whoever else is about.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.model.effects import Effect
from guardrail.simulate.draws import poisson, stream
from guardrail.simulate.population import (
    DAY,
    ENDED,
    PRICE_IN,
    PRICE_OUT,
    START,
    TOKENS,
    TRAVEL,
    Account,
    Facts,
    Population,
)

HOUR = 3600.0
SENSITIVE = frozenset({"agentic", "code"})
"""The capabilities that an extraction campaign comes for."""

RETRIES = 2
"""How often the usual SDKs try again by themselves."""
LONGEST_RETRY = 60.0
"""The longest Retry-After, in seconds, that they wait for."""
_WAITS_FOR = 12 * HOUR
_OUT_CAP = 1024
_STEPS = 24
_PART = 3
_PAYS_UP_TO = 0.85
_AHEAD = 45
_TRUSTED_AFTER = 60 * DAY

_SENSITIVE_WALL, _EVERY_WALL = 1, 2


class Ask(NamedTuple):
    """Requests alike of one account, `size` of them over `span` seconds.

    `most` is the longest answer a request allows, in tokens; `attempt` counts the retries,
    `waited` tells that a customer came back once, `shock` what had happened to him when he asked.
    """

    account: Account
    capability: str
    size: int
    span: float
    tokens_in: int
    tokens_out: int
    most: int
    attempt: int = 0
    waited: bool = False
    shock: str | None = None


Watched = tuple[int, float, int, str, str | None, str | None, float | None]
"""A decision on a trusted account: account, time, requests, effect, rule, reason, wait."""

Push = Callable[[float, Ask], None]
"""Puts an ask back for a later time."""


class Hourly:
    """When in a day work is done, by the clock of a place: a cosine with its peak at 14 h."""

    def __init__(self) -> None:
        self._sums: dict[tuple[float, int], list[float]] = {}

    def draw(self, random: Random, peak: float, clock: int, count: int) -> list[int]:
        """Return `count` hours (UTC) of a day, the busiest `peak` times as likely as the least."""
        return random.choices(range(24), cum_weights=self._sums_of(peak, clock), k=count)

    def spread(self, random: Random, peak: float, clock: int, volume: int) -> dict[int, int]:
        """Return how a volume spreads over the hours (UTC) of a day, hours without any left out."""
        sums, sizes = self._sums_of(peak, clock), Counter[int]()
        if volume > 48:
            last = 0
            for hour, upto in enumerate(sums):
                share = int(volume * upto / sums[-1])
                sizes[hour], last = share - last, share
            volume -= last
        sizes.update(self.draw(random, peak, clock, volume))
        return {hour: size for hour, size in sorted(sizes.items()) if size}

    def _sums_of(self, peak: float, clock: int) -> list[float]:
        sums = self._sums.get((peak, clock))
        if sums is None:
            depth = (peak - 1) / (peak + 1)
            odds = [
                1 + depth * math.cos((hour + clock - 14) / 24 * 2 * math.pi) for hour in range(24)
            ]
            sums = self._sums[peak, clock] = list(accumulate(odds))
        return sums


def tokens_of(random: Random, capability: str, count: int) -> tuple[int, int]:
    """Return the input and output tokens that `count` requests use together."""
    median_in, sigma_in, median_out, sigma_out = TOKENS[capability]
    if count <= 3:
        into = count * median_in * math.exp(sigma_in * random.gauss(0, 1))
        out = count * median_out * math.exp(sigma_out * random.gauss(0, 1))
    else:
        noise = max(0.3, 1 + random.gauss(0, 1.0 / math.sqrt(count)))
        into = count * median_in * math.exp(sigma_in**2 / 2) * noise
        out = count * median_out * math.exp(sigma_out**2 / 2) * noise
    return min(int(into) + 1, 180_000 * count), min(int(out) + 1, 8000 * count)


def request_facts(account: Account, capability: str, population: Population) -> Facts:
    """Return the facts of an account's requests to a capability, as they are known now."""
    names = population.names
    facts: Facts = dict(account.facts)
    if account.tier == "enterprise":
        tier = names.enterprise
    else:
        tier = names.verified if account.tier == "verified" else names.unverified
    if tier is not None:
        facts["account.tier"] = tier
    if account.paid_since is not None:
        facts["account.paid_usd"] = round(account.paid, 2)
        facts["account.paid_since"] = account.paid_since
    facts.update(account.trip or account.home)
    facts["request.capability"] = capability
    facts["request.model"] = names.models[min(account.model, len(names.models) - 1)]
    facts["request.endpoint"] = "/v1/messages"
    facts["request.tools"] = 0
    if capability == "agentic":
        facts["request.tools"] = 4
        facts["request.toolset"] = account.toolset or "tools"
    if account.template is not None and (capability != "chat" or account.program):
        facts["request.template"] = account.template
    return {name: value for name, value in facts.items() if name in names.known}


class Customers:
    """The honest traffic of one run: its plans by day, its decisions, and what became of them."""

    def __init__(self, population: Population, guard: Guard) -> None:
        self.population = population
        self.decisions = 0
        self.watched: list[Watched] | None = None
        self.hourly = Hourly()
        self.shocks: dict[str, ShockTally] = {}
        self.by_day: list[list[int]] = []
        self._decide, self._settle = guard.decide, guard.settle

    # Plans

    def plan(self, day: int) -> list[tuple[float, Ask]]:
        """Return what is asked for on a day, in order of time."""
        random = stream(self.population.seed, "day", day)
        morning = START + day * DAY
        weekend = day % 7 in (5, 6)
        found: list[tuple[float, Ask]] = []
        self.by_day.append([0, 0, 0, 0])
        for account in self.population.accounts:
            created = account.created
            if created >= morning + DAY:
                continue
            odds = account.active[weekend]
            if created >= morning:
                odds = max(odds, 0.8)
            if random.random() >= odds:
                continue
            found += self._day_of(account, morning, random)
        found.sort(key=_by_time)
        return found

    def _day_of(
        self, account: Account, morning: float, random: Random
    ) -> Iterator[tuple[float, Ask]]:
        mean = account.rate * account.push * math.exp(random.gauss(-0.18, 0.6))
        volume = poisson(random, mean)
        self._connect(account, morning, random)
        if not volume:
            return
        shock = None if account.shock is None else self.shocks[account.shock]
        if shock is not None:
            shock.accounts.add(account)
            shock.asked += volume
        account.asked += volume
        self.by_day[-1][0] += volume
        for moment, size, span in self._sessions(account, volume, morning, random):
            capability = "chat"
            if random.random() < account.sensitive:
                capability = "agentic" if random.random() < account.agentic else "code"
            into, out = tokens_of(random, capability, size)
            at = moment
            if at < account.created:
                at = account.created + random.random() * HOUR
            yield at, Ask(account, capability, size, span, into, out, _OUT_CAP, shock=account.shock)

    def _sessions(
        self, account: Account, volume: int, morning: float, random: Random
    ) -> Iterator[tuple[float, int, float]]:
        """Yield when a day's requests come, how many of them, and over how many seconds.

        Programs work through the day, told in parts of three hours; people have sessions of half
        an hour.
        """
        peak = self.population.segments[account.segment].peak
        if account.program:
            parts = Counter[int]()
            for hour, size in self.hourly.spread(random, peak, account.clock, volume).items():
                parts[hour // _PART] += size
            for part, size in parts.items():
                yield morning + (_PART * part + random.random() / 60) * HOUR, size, _PART * HOUR
            return
        count = min(volume, 1 + poisson(random, volume / 10))
        each, more = divmod(volume, count)
        for at, hour in enumerate(self.hourly.draw(random, peak, account.clock, count)):
            yield morning + (hour + random.random()) * HOUR, each + (at < more), HOUR / 2

    def _connect(self, account: Account, morning: float, random: Random) -> None:
        """Choose where an account connects from today."""
        drawn = random.random()
        if account.trip is not None and morning >= account.trip_ends:
            account.trip, account.cached = None, {}
        if account.roams:
            account.trip = None
            account.home = account.roams[int(drawn * len(account.roams))]
            account.cached = {}
        elif drawn < TRAVEL / 7 and not account.program:
            account.trip = self.population.abroad(random)
            account.trip_ends = morning + random.uniform(2, 8) * DAY
            account.cached = {}
        elif drawn > 1 - 1 / 30 and account.home["network.kind"] == "residential":
            account.home = self.population.renumbered(account.home)
            account.cached = {}

    # Decisions

    def deliver(self, moment: float, ask: Ask, push: Push) -> None:
        """Ask for a decision, and do what this customer does with it."""
        account = ask.account
        if account.verifies_at <= moment or account.created + account.proactive_after <= moment:
            self._verified(account, moment)
        if account.paid_since is None and account.created + account.pays_after <= moment:
            account.paid_since = account.created + account.pays_after
            account.paid, account.cached = account.reload, {}
        if account.walls and self._holds(account, ask.capability):
            account.held += ask.size
            self.by_day[-1][3] += ask.size
            if ask.shock is not None:
                self.shocks[ask.shock].held += ask.size
            return
        decision = self._decision(ask, moment)
        if decision.effect < Effect.THROTTLE:
            self._served(ask, ask.size, decision)
        elif ask.size == 1:
            self._refused(moment, ask, decision, push)
        else:
            self._in_parts(moment, ask, decision, push)

    def _decision(self, ask: Ask, moment: float) -> Decision:
        account, count, out = ask.account, ask.size, ask.tokens_out
        facts = account.cached.get(ask.capability)
        if facts is None:
            facts = request_facts(account, ask.capability, self.population)
            account.cached[ask.capability] = facts
        # One after another: when one reserves its longest answer, those before it are settled.
        reserved = out + max(0, ask.most - out // count)
        decision = self._decide(
            facts,
            {"requests": count, "input_tokens": ask.tokens_in, "output_tokens": reserved},
            now=moment,
        )
        self.decisions += 1
        if self.watched is not None and trusted(account, moment):
            self.watched.append(
                (
                    account.number,
                    moment,
                    count,
                    str(decision.effect),
                    decision.rule,
                    decision.reason,
                    decision.retry_after,
                )
            )
        if decision.effect < Effect.THROTTLE:
            self._settle(
                decision,
                {"input_tokens": ask.tokens_in, "output_tokens": out},
                now=moment,
            )
        return decision

    def _served(self, ask: Ask, count: int, decision: Decision) -> None:
        account = ask.account
        account.served += count
        account.spent += ask.tokens_in * PRICE_IN + ask.tokens_out * PRICE_OUT
        if account.spent >= account.reload and account.paid_since is not None:
            account.paid += account.spent
            account.spent, account.cached = 0.0, {}
        self.by_day[-1][1] += count
        if decision.effect is Effect.DEGRADE:
            account.degraded += count
        if ask.shock is not None:
            self.shocks[ask.shock].served += count

    def _in_parts(self, moment: float, ask: Ask, decision: Decision, push: Push) -> None:
        """Find what of several requests is served: the first alone, then each half of the rest."""
        first, rest = split(ask, 1)
        alone = self._decision(first, moment)
        if alone.effect >= Effect.THROTTLE:
            wait = alone.retry_after
            step = ask.span if wait is None else max(wait, ask.span / _STEPS)
            if step >= ask.span:
                self._refused(moment, ask, alone, push)
                return
            # Those that come while it is refused are; the others come when it may be open.
            early, late = split(ask, math.ceil(ask.size * step / ask.span))
            self._refused(moment, early, alone, push)
            if late.size:
                push(moment + step, late)
            return
        self._served(first, 1, alone)
        start = moment + first.span
        half, other = split(rest, rest.size // 2)
        if half.size:
            push(start, half)
        push(start + half.span, other)

    def _refused(self, moment: float, ask: Ask, decision: Decision, push: Push) -> None:
        account, wait = ask.account, decision.retry_after
        day = int((moment - START) // DAY)
        if account.first_action is None:
            account.first_action = moment
        shock = None if ask.shock is None else self.shocks[ask.shock]
        verify = decision.remedy == "verify"
        if decision.remedy == "pay":
            account.asked_to_pay = True
            verify = _far_ahead(account)
            if not verify and self._pays_more(account, moment):
                push(moment + 60, ask._replace(attempt=0))
                return
        if verify and account.tier == "email":
            if not account.stepped:
                account.stepped = True
                self._start_verifying(account, moment, ask, wait)
            elif wait is None and not account.program:
                # Told a second time, about more than before.
                account.walls |= _wall(ask.capability)
            account.stepped_requests += ask.size
            if shock is not None:
                shock.stepped.add(account)
        elif wait is None:
            account.blocked += ask.size
            if shock is not None:
                shock.blocked.add(account)
            account.denied_days.add(day)
            if len(account.denied_days) > 3 and not account.program and account.answers < 0.5:
                account.gone, account.walls = True, _EVERY_WALL
        else:
            account.throttled += ask.size
            if ask.attempt < RETRIES and wait <= LONGEST_RETRY:
                push(
                    moment + max(wait, 0.5 * 2**ask.attempt), ask._replace(attempt=ask.attempt + 1)
                )
                return
            waits = not account.program and account.answers < 0.6
            if waits and not ask.waited and wait <= _WAITS_FOR:
                back = moment + wait + 1 + account.answers * HOUR
                push(back, ask._replace(attempt=0, waited=True))
                return
        self._lost(ask)

    def _pays_more(self, account: Account, moment: float) -> bool:
        """Pay for five days in advance, as asked, a hundred dollars at least.

        Most who pay do at once, the others when a hundred of their requests were refused. A program
        for which nobody has paid so far is paid for then.
        """
        never = account.pays_after == ENDED and account.paid_since is None
        late = account.answers > _PAYS_UP_TO or (never and account.program)
        if (never and not account.program) or (late and account.throttled < 100):
            return False
        if _far_ahead(account):
            return False
        if account.paid_since is None:
            account.paid_since = moment
        account.paid += 5 * account.reload
        account.spent -= 5 * account.reload
        account.cached = {}
        return True

    def _lost(self, ask: Ask) -> None:
        account = ask.account
        account.refused += ask.size
        self.by_day[-1][2] += ask.size
        if ask.shock is not None:
            self.shocks[ask.shock].refused += ask.size
            self.shocks[ask.shock].hit.add(account)

    def _start_verifying(
        self, account: Account, moment: float, ask: Ask, wait: float | None
    ) -> None:
        """Show an ID, as asked: most are through in hours, some in days, a few give up."""
        if not account.program:
            account.walls |= _wall(ask.capability) if wait is None else _SENSITIVE_WALL
        if account.verifies_in == ENDED:
            account.gone = account.sensitive > 0.3 or ask.capability == "chat"
            account.walls |= _EVERY_WALL if account.gone else _SENSITIVE_WALL
            return
        account.verifies_at = moment + account.verifies_in
        account.waited += account.verifies_in

    def _verified(self, account: Account, moment: float) -> None:
        account.verifies_at = account.proactive_after = ENDED
        if not account.gone:
            account.walls = 0
            self.population.verify(account, moment)

    def _holds(self, account: Account, capability: str) -> bool:
        """Tell whether a customer keeps back what would be refused while an ID is looked at."""
        return bool(account.walls & _EVERY_WALL) or capability in SENSITIVE

    def finish(self, left: Iterator[Ask]) -> None:
        """Count what still waits when the simulation ends as refused."""
        for ask in left:
            self._lost(ask)


class ShockTally:
    """What a shock's customers asked for while it lasted, and how they fared."""

    def __init__(self) -> None:
        self.accounts: set[Account] = set()
        self.asked = self.served = self.refused = self.held = 0
        self.hit: set[Account] = set()
        self.stepped: set[Account] = set()
        self.blocked: set[Account] = set()


def trusted(account: Account, moment: float) -> bool:
    """Tell whether an account's ID has been known for two months.

    An account that shows one when it is asked to, which an attack may bring about, is not meant.
    """
    since = account.facts.get("account.verified_at", ENDED)
    return account.tier != "email" and moment - float(str(since)) >= _TRUSTED_AFTER


def _far_ahead(account: Account) -> bool:
    """Tell whether paying more would be two months ahead of use, and 900 USD."""
    ahead = 5 * account.reload - account.spent
    return account.paid_since is not None and ahead > _AHEAD * account.reload


def split(ask: Ask, count: int) -> tuple[Ask, Ask]:
    """Return the first `count` of several requests, and the rest."""
    size = ask.size
    into, out = ask.tokens_in * count // size, ask.tokens_out * count // size
    part = count / size
    first = ask._replace(size=count, span=ask.span * part, tokens_in=into, tokens_out=out)
    rest = ask._replace(
        size=size - count,
        span=ask.span * (1 - part),
        tokens_in=ask.tokens_in - into,
        tokens_out=ask.tokens_out - out,
    )
    return first, rest


def _wall(capability: str) -> int:
    return _SENSITIVE_WALL if capability in SENSITIVE else _EVERY_WALL


def _by_time(planned: tuple[float, Ask]) -> float:
    return planned[0]
