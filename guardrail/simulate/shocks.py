"""Twelve things that happen to honest customers and look like an attack, or break assumptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from guardrail.simulate.draws import stream
from guardrail.simulate.population import COUNTRIES, DAY, START, Account, Population

_FULL = 1_000_000


@dataclass(slots=True)
class Shock:
    """One shock: it begins in the morning of `day` and lasts some days."""

    name: str
    day: int
    lasts: int
    begin: Callable[[Scene], Iterable[Account]]
    push: float = 1.0
    stays: bool = False


class Scene:
    """What a shock acts on: the population, the morning it begins, and random draws of its own."""

    def __init__(self, population: Population, day: int, random: Random) -> None:
        self.population = population
        self.morning = START + day * DAY
        self.random = random
        self.size = len(population.accounts)

    def scaled(self, full: int, least: int) -> int:
        """Return a number of accounts meant for a million, ten times as many for small ones."""
        return max(min(least, self.size // 8), min(full, full * self.size * 10 // _FULL))

    def segment(self, name: str) -> int:
        """Return the number of a segment."""
        return [segment.name for segment in self.population.segments].index(name)

    def of(self, *names: str) -> list[Account]:
        """Return the accounts of segments."""
        wanted = {self.segment(name) for name in names}
        return [account for account in self.population.accounts if account.segment in wanted]

    def newcomer(self, segment: str, within: float) -> Account:
        """Return an account that signs up within some seconds from the shock's beginning at 9 h."""
        created = self.morning + 9 * 3600 + self.random.random() * within
        account = self.population.add(self.segment(segment), created)
        self.population.accounts.append(account)
        return account


def _launch(scene: Scene) -> Iterable[Account]:
    for account in scene.population.accounts:
        if account.sensitive > 0.3:
            if scene.random.random() < 0.5:
                account.model, account.cached = 0, {}
            yield account


def _hackathon(scene: Scene) -> Iterable[Account]:
    campus = scene.population.campuses[0]
    card = scene.population.values.token("card-")
    for _ in range(scene.scaled(3000, 60)):
        account = scene.newcomer("student", 6 * 3600)
        account.home, account.roams = campus, ()
        account.sensitive, account.active = 0.8, (1.0, 1.0)
        account.facts["payment.fingerprint"] = card
        account.facts["payment.country"] = campus["geo.country"]
        label = scene.population.signup(account.created, "edu", campus["geo.asn"])
        account.facts["account.signup"] = label
        yield account


def _onboarding(scene: Scene) -> Iterable[Account]:
    population, count = scene.population, scene.scaled(4000, 60)
    made = population.organisation(
        scene.segment("enterprise"), count, declared=True, created=scene.morning + 8 * 3600
    )
    first = made[0]
    for seat in made:
        seat.home, seat.roams = first.home, ()
        if scene.random.random() < 0.1:
            seat.tier, seat.identity = "email", None
            seat.facts.pop("kyc.subject", None)
            seat.facts.pop("account.verified_at", None)
            seat.facts.pop("account.org", None)
    population.accounts += made
    return made


def _viral(scene: Scene) -> Iterable[Account]:
    template = scene.population.values.token("viral-")
    people = scene.of("hobby", "developer", "student")
    for account in scene.random.sample(people, min(len(people), scene.scaled(20_000, 60))):
        account.template = account.toolset = template
        account.sensitive = max(account.sensitive, 0.6)
        account.cached = {}
        yield account


def _bootcamp(scene: Scene) -> Iterable[Account]:
    values, country = scene.population.values, scene.population.country()
    card, room = values.token("card-"), values.network(country, "business")
    for _ in range(min(40, max(3, scene.size // 20))):
        account = scene.newcomer("student", 36 * 3600)
        account.roams, account.sensitive = (room, room, account.home), 0.8
        account.facts["payment.fingerprint"] = card
        account.facts["payment.country"] = country
        yield account


def _virtual_cards(scene: Scene) -> Iterable[Account]:
    for _ in range(scene.scaled(1500, 30)):
        account = scene.newcomer("developer", 48 * 3600)
        account.facts["payment.fingerprint"] = scene.population.values.token("card-")
        account.facts["payment.country"] = "US"
        yield account


def _vpn_swap(scene: Scene) -> Iterable[Account]:
    population = scene.population
    changed = {id(exit): population.renumbered(exit) for exit in population.vpn}
    population.vpn = list(changed.values())
    for account in population.accounts:
        if any(id(place) in changed for place in account.roams):
            account.roams = [changed.get(id(place), place) for place in account.roams]
            yield account


def _carrier_country(scene: Scene) -> Iterable[Account]:
    population = scene.population
    country = scene.random.choice(("IN", "BR", "ID", "NG", "MX"))
    people = [
        account
        for account in scene.of("hobby", "developer", "student")
        if account.home["geo.country"] == country
    ]
    prefixes = [
        population.values.network(country, "mobile", 9250) for _ in range(max(1, len(people) // 60))
    ]
    for account in people:
        account.roams = scene.random.sample(prefixes, min(2, len(prefixes)))
        yield account


def _reroute(scene: Scene) -> Iterable[Account]:
    population = scene.population
    country, through = scene.random.sample(list(COUNTRIES)[:8], 2)
    relays = [population.values.network(through, "business", 9400) for _ in range(4)]
    for account in population.accounts:
        if account.home["geo.country"] == country and not account.roams:
            account.trip, account.cached = scene.random.choice(relays), {}
            account.trip_ends = scene.morning + DAY
            yield account


def _permitted(scene: Scene) -> Iterable[Account]:
    account = scene.newcomer("evaluation", 3600)
    account.created -= 90 * DAY
    account.established, account.facts["account.created"] = True, account.created
    account.tier, account.identity = "enterprise", f"register-{account.number:011x}"
    scene.population.verify(account, account.created)
    account.rate = min(5000.0, 3.0 * scene.size)
    account.active, account.sensitive = (1.0, 1.0), 0.9
    yield account


def _harness(scene: Scene) -> Iterable[Account]:
    for account in scene.of("evaluation"):
        account.active = (0.9, 0.9)
        yield account


def _renumbering(scene: Scene) -> Iterable[Account]:
    bucket = scene.random.randrange(8)
    for account in scene.population.accounts:
        asn = account.home["geo.asn"]
        at_home = account.home["network.kind"] == "residential"
        if at_home and isinstance(asn, int) and asn % 8 == bucket:
            account.home = scene.population.renumbered(account.home)
            account.cached = {}
            yield account


SHOCKS: tuple[tuple[str, Callable[[Scene], Iterable[Account]], int, float, bool], ...] = (
    ("model launch", _launch, 1, 3.0, False),
    ("hackathon", _hackathon, 2, 2.0, True),
    ("enterprise onboarding", _onboarding, 5, 1.0, True),
    ("viral agent", _viral, 5, 2.0, False),
    ("bootcamp card", _bootcamp, 5, 1.5, True),
    ("virtual card issuer", _virtual_cards, 5, 1.0, True),
    ("VPN exits swapped", _vpn_swap, 3, 1.0, False),
    ("carrier NAT country", _carrier_country, 5, 1.0, False),
    ("outage reroute", _reroute, 1, 1.0, False),
    ("permitted distillation", _permitted, 5, 1.0, True),
    ("evaluation burst", _harness, 2, 10.0, False),
    ("ISP renumbering", _renumbering, 3, 1.0, False),
)
"""Name, what begins, for how many days, times which volume, and whether its accounts stay its own.

Source of the list: what honest traffic has shown that broke rules about sharing and bursts.
"""


class Calendar:
    """When each shock happens: spread over the simulated days, in an order of the seed."""

    def __init__(self, population: Population, days: int) -> None:
        self.population = population
        random = stream(population.seed, "calendar")
        order = list(SHOCKS)
        random.shuffle(order)
        self.shocks: list[Shock] = []
        for at, (name, begin, lasts, push, stays) in enumerate(order):
            day = min(days - 1, int((at + 1 + random.random()) * days / (len(order) + 2)))
            self.shocks.append(Shock(name, day, lasts, begin, push, stays))
        self._running: list[tuple[Shock, list[Account]]] = []

    def morning(self, day: int) -> None:
        """End the shocks that are over, and begin those of the day."""
        for shock, accounts in list(self._running):
            if day >= shock.day + shock.lasts:
                self._running.remove((shock, accounts))
                for account in accounts:
                    account.push = 1.0
                    if not shock.stays and account.shock == shock.name:
                        account.shock = None
        for shock in self.shocks:
            if shock.day == day:
                random = stream(self.population.seed, "shock", shock.name)
                scene = Scene(self.population, day, random)
                accounts = list(shock.begin(scene))
                for account in accounts:
                    account.push = shock.push
                    if account.shock is None or shock.stays:
                        account.shock = shock.name
                self._running.append((shock, accounts))
