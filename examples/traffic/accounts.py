"""Knows who is in the sample week: ordinary customers of every kind, and two farms of accounts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

MONDAY = date(2026, 3, 2)
"""The first day of the sample."""
PACE = 28_800_000 / 25_000 / 45
"""Exchanges a day from one account of the campaign."""

COUNTRIES = {"US": -6, "IN": 5, "JP": 9, "GB": 0, "DE": 1, "KR": 9, "BR": -3, "FR": 1, "NG": 1}
"""Hours from UTC, of the countries customers come from; earlier ones have more of them."""
SHARES = (25, 10, 6, 5, 5, 5, 5, 4, 2)
PERSONAL = ("account.id", "account.created", "device.fingerprint")
"""What the seats of an organisation do not share."""

Facts = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account: the facts its requests share, and how it behaves.

    `volume` is requests on an active day, `active` the odds of one on weekdays and at the
    week-end, `sensitive` the share of agentic and code work, `peak` the busiest hour over the
    quietest. From day `verifies` on it is verified; it is used on `days` only.
    """

    segment: str
    facts: Facts
    volume: float
    active: tuple[float, float] = (0.7, 0.3)
    sensitive: float = 0.1
    peak: float = 5.0
    model: str = "medium"
    template: str | None = None
    label: str = "ordinary"
    verifies: int = 7
    days: range = range(7)


class Registry:
    """Hands out what identifies an account, in an order that tells nothing about it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._numbers = random.sample(range(1000, 2000), 1000)

    def network(self) -> str:
        """Return a network from the documentation range."""
        return f"2001:db8:{self.random.randrange(4096):x}::/64"

    def place(self, country: str | None = None, kind: str = "residential") -> Facts:
        """Return where an account connects from, by default a country with customers."""
        chosen = country or self.random.choices(list(COUNTRIES), SHARES)[0]
        return {
            "geo.country": chosen,
            "network.kind": kind,
            "client.network": self.network(),
        }

    def facts(self, tier: str, age: int | None = None, **place: str) -> Facts:
        """Return the facts of a new account, `age` days old when the week begins."""
        number = self._numbers.pop()
        days = self.random.randrange(20, 600) if age is None else age
        where = self.place(**place)
        found: Facts = {
            "account.id": f"a{number}",
            "account.tier": tier,
            "account.created": str(MONDAY - timedelta(days)),
            "device.fingerprint": f"d{number}",
        }
        if tier != "email":
            found |= {
                "account.org": f"o{number}",
                "kyc.subject": f"k{number}",
                "payment.fingerprint": f"p{number}",
                "payment.country": where["geo.country"],
            }
        return found | where

    def volume(self, median: float, sigma: float, most: float) -> float:
        """Return a mean number of requests a day: log-normal, cut off at `most`."""
        return min(most, median * math.exp(self.random.gauss(0, sigma)))


def everyday(registry: Registry) -> Iterator[Account]:
    """Yield the accounts of people: most of the customers, least of the volume."""
    carriers = [registry.place("NG", "mobile") for _ in range(2)]
    for index in range(190):
        facts = registry.facts("verified" if index % 5 == 0 else "email")
        if index % 7 == 0:  # carriers put many customers behind one address
            facts |= carriers[index % 2]
        elif index % 16 == 5:
            facts["network.kind"] = "vpn"
        volume, active = registry.volume(2, 1.0, 16), (0.35, 0.3)
        yield Account(segment="hobby", facts=facts, volume=volume, active=active, sensitive=0.05)
    for _ in range(12):
        volume = registry.volume(3, 0.8, 12)
        yield Account(segment="visitor", facts=registry.place(), volume=volume, sensitive=0)


def programs(registry: Registry) -> Iterator[Account]:
    """Yield the accounts that work: developers' agents, products, the seats of organisations."""
    for index in range(22):
        yield Account(
            segment="developer",
            facts=registry.facts("verified"),
            volume=registry.volume(30, 0.8, 140),
            active=(0.72, 0.3),
            sensitive=registry.random.betavariate(9, 1.5),
            model="large" if index % 2 else "medium",
            template=f"framework-{index % 4}",
        )
    for _ in range(4):
        yield Account(
            segment="production",
            facts=registry.facts("verified", kind="hosting"),
            volume=registry.volume(40, 0.5, 90),
            active=(0.97, 0.93),
            sensitive=registry.random.betavariate(1.2, 2.8),
            peak=1.3,
            template="own",
        )
    for size in (15, 9):
        office = registry.facts("enterprise", kind="business") | {"account.budget_usd": 500}
        shared = {name: office[name] for name in office if name not in PERSONAL}
        for _ in range(size):
            yield Account(
                segment="seat",
                facts=registry.facts("enterprise") | shared,
                volume=registry.volume(12, 0.6, 60),
                active=(0.75, 0.12),
                sensitive=0.5,
            )


def odd_ones(registry: Registry) -> Iterator[Account]:
    """Yield customers who look odd and are honest."""
    whale = registry.facts("enterprise", kind="hosting")
    yield Account(
        segment="whale", facts=whale, volume=150, active=(1, 1), sensitive=0.4, peak=1.3,
        model="large", template="own",
    )  # fmt: skip
    for abroad in ("JP", "DE"):
        facts = registry.facts("verified", country="US")
        for days, country in ((range(3), "US"), (range(3, 7), abroad)):
            place = facts | {"geo.country": country}
            yield Account(
                segment="traveller", facts=place, volume=20, active=(1, 1), sensitive=0.6, days=days
            )
        facts = registry.facts("verified") | {"payment.country": "CN"}
        yield Account(segment="expat", facts=facts, volume=15, sensitive=0.6)
    family = {"payment.fingerprint": "p900", "device.fingerprint": "d900"}
    for _ in range(3):
        yield Account(segment="family", facts=registry.facts("email") | family, volume=5)
    for address in ("8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "192.0.2.17", "198.51.100.4"):
        facts = registry.facts("verified") | {"client.ip": address}
        del facts["geo.country"], facts["client.network"]
        yield Account(segment="by-address", facts=facts, volume=12, sensitive=0.5)


def beginners(registry: Registry) -> Iterator[Account]:
    """Yield new customers: a hackathon's, and developers who try, are asked for an ID, give it."""
    hall = registry.place("DE", "business") | {"account.signup": "hackathon"}
    for _ in range(45):  # one Saturday behind one address, with accounts made that morning
        facts = registry.facts("email", age=-5) | hall
        yield Account(
            segment="hackathon", facts=facts, volume=12, active=(0, 1), sensitive=0.6,
            template="framework-1", days=range(5, 6),
        )  # fmt: skip
    for day in (1, 2, 3):
        facts = registry.facts("email", age=1)
        yield Account(
            segment="newcomer", facts=facts, volume=30, active=(1, 0.5), sensitive=0.85,
            template="framework-0", verifies=day,
        )  # fmt: skip


def naive_farm(registry: Registry) -> list[Account]:
    """Return 160 accounts used for a day: a card and a device for 40, few exits, few templates."""
    exits = [
        registry.place(kind=kind) for kind in ("hosting", "vpn", "residential") for _ in range(6)
    ]
    farm = []
    for index in range(160):
        facts = registry.facts("email", age=index % 6) | exits[index % len(exits)]
        facts["payment.fingerprint"] = f"p{901 + index // 40}"
        facts["payment.country"] = "US"
        facts["device.fingerprint"] = f"d{901 + index // 40}"
        facts["account.signup"] = "batch"
        farm.append(
            Account(
                segment="naive-farm",
                facts=facts,
                volume=PACE,
                sensitive=0.97,
                model="large",
                template=f"task-{index % 8}",
                label="campaign",
                days=range(1, 2),
            )
        )
    return farm


def careful_farm(registry: Registry) -> list[Account]:
    """Return 40 accounts used all week: three on a card, everything else their own."""
    farm = []
    for index in range(40):
        facts = registry.facts("email", age=16 + index % 25)
        facts["payment.fingerprint"] = f"p{910 + index // 3}"
        facts["payment.country"] = facts["geo.country"]
        facts["account.signup"] = "start-ups"
        template = f"task-{index % 8}" if index % 10 < 3 else f"own-{index}"
        farm.append(
            Account(
                segment="careful-farm",
                facts=facts,
                volume=PACE,
                sensitive=0.8,
                model="large",
                template=template,
                label="campaign",
            )
        )
    return farm
