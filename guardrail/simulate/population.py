"""The honest population: who its accounts are, what they share, and how much they ask for.

Segments, their shares, volumes and habits are assumptions, grounded where traces were published;
`docs/simulate.md` lists them. Every seed varies shares and medians by half in either direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from guardrail.simulate.draws import Zipf, log_normal, pareto, stream, whole_counts

DAY = 86400.0
"""Seconds in a day."""
START = 1772409600.0
"""When a simulation's first day begins: Monday 2 March 2026, in seconds since the epoch."""

Facts = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One kind of customer.

    `share` is of all accounts; `median` and `sigma` are those of requests on an active day;
    `active` holds the odds of an active day in the week and at the week-end; `sensitive` the beta
    distribution of the share of agentic and code work. `pays` is the share that pays, `proactive`
    the share that verifies before anyone asks. A `program` goes on sending after a refusal.
    """

    name: str
    share: float
    median: float
    sigma: float
    active: tuple[float, float]
    sensitive: tuple[float, float]
    pays: float
    proactive: float
    program: bool = False
    peak: float = 5.0


SEGMENTS = (
    Segment(
        name="hobby",
        share=0.605,
        median=2,
        sigma=1.3,
        active=(0.35, 0.30),
        sensitive=(0.6, 5.4),
        pays=0.25,
        proactive=0.05,
    ),
    Segment(
        name="developer",
        share=0.18,
        median=45,
        sigma=1.2,
        active=(0.72, 0.30),
        sensitive=(9, 1.5),
        pays=0.8,
        proactive=0.15,
    ),
    Segment(
        name="production",
        share=0.12,
        median=30,
        sigma=2.2,
        active=(0.97, 0.93),
        sensitive=(1.2, 2.8),
        pays=0.97,
        proactive=0.5,
        program=True,
        peak=1.3,
    ),
    Segment(
        name="enterprise",
        share=0.07,
        median=30,
        sigma=1.1,
        active=(0.75, 0.12),
        sensitive=(4, 2.5),
        pays=1.0,
        proactive=0.3,
    ),
    Segment(
        name="student",
        share=0.02,
        median=8,
        sigma=1.2,
        active=(0.55, 0.45),
        sensitive=(2, 2.5),
        pays=0.15,
        proactive=0.05,
    ),
    Segment(
        name="evaluation",
        share=0.0049,
        median=1200,
        sigma=1.1,
        active=(0.18, 0.10),
        sensitive=(3, 1.5),
        pays=0.9,
        proactive=0.4,
        program=True,
        peak=1.3,
    ),
    Segment(
        name="reseller",
        share=0.0001,
        median=40_000,
        sigma=1.3,
        active=(1.0, 1.0),
        sensitive=(5, 5),
        pays=1.0,
        proactive=0.8,
        program=True,
        peak=1.3,
    ),
)
"""The seven segments, before a seed varies them."""

COUNTRIES: Mapping[str, tuple[float, int]] = {
    "US": (25, -6),
    "IN": (10, 5),
    "JP": (6, 9),
    "GB": (5, 0),
    "DE": (5, 1),
    "KR": (5, 9),
    "BR": (5, -3),
    "FR": (4, 1),
    "CA": (4, -5),
    "SG": (2, 8),
    "AU": (3, 10),
    "NL": (3, 1),
    "ES": (3, 1),
    "IT": (3, 1),
    "PL": (3, 1),
    "MX": (3, -6),
    "ID": (3, 7),
    "NG": (2, 1),
    "TR": (2, 3),
    "VN": (2, 7),
    "ZA": (2, 2),
}
"""Where customers are, with weights, and hours from UTC."""

_FREE = 30.0
"""What an API gives away a month, in USD: who uses more pays."""
EXPATRIATES = 0.05
_CARDS_ABROAD = {"US": 20, "IN": 20, "GB": 12, "CN": 5, "RU": 3, "HK": 2, "FR": 10, "BR": 8}
TRAVEL = 0.03
"""The odds of a trip abroad in a week."""

FRAMEWORKS = 4000
"""How many published templates of agent frameworks there are."""
VPN_EXITS = 40
SERVERLESS_EXITS = 20
CARRIER_PREFIX = 30
"""How many accounts a carrier has behind one address."""

TOKENS: Mapping[str, tuple[float, float, float, float]] = {
    "chat": (900, 0.9, 180, 0.9),
    "code": (2500, 1.0, 250, 1.0),
    "agentic": (20_000, 1.0, 350, 0.9),
}
"""Median and sigma of input and output tokens a request."""
PRICE_IN, PRICE_OUT = 3e-6, 15e-6
"""What a token is sold for, in USD."""

ENDED = math.inf


@dataclass(slots=True, eq=False)
class Account:
    """One account: what is known of it, how it behaves, and what has become of it.

    `facts` are those its requests share now; `created` and times are in seconds since the epoch.
    `rate` is requests on an active day, `sensitive` the share of agentic and code work, `agentic`
    the part of that which brings tools. `reload` is what it pays at once, in USD, as often as that
    much is used. `answers` and `verifies_in` say how the person behind it takes a refusal: drawn
    beforehand, so that no decision changes what is drawn for others.
    """

    number: int
    segment: int
    created: float
    established: bool = field(init=False)
    operator: int = -1
    shock: str | None = None
    facts: Facts = field(default_factory=dict)
    cached: dict[str, Facts] = field(default_factory=dict)
    tier: str = "email"
    identity: str | None = None
    rate: float = 0.0
    sensitive: float = 0.0
    agentic: float = 0.5
    active: tuple[float, float] = (1.0, 1.0)
    clock: int = 0
    program: bool = False
    model: int = 1
    template: str | None = None
    toolset: str | None = None
    home: Facts = field(default_factory=dict)
    roams: Sequence[Facts] = ()
    trip: Facts | None = None
    trip_ends: float = 0.0
    push: float = 1.0
    paid: float = 0.0
    paid_since: float | None = None
    pays_after: float = ENDED
    spent: float = 0.0
    reload: float = 20.0
    proactive_after: float = ENDED
    verifies_in: float = ENDED
    verifies_at: float = ENDED
    answers: float = 0.5
    # What became of its requests, and of itself.
    asked: int = 0
    served: int = 0
    degraded: int = 0
    refused: int = 0
    held: int = 0
    stepped_requests: int = 0
    throttled: int = 0
    blocked: int = 0
    stepped: bool = False
    asked_to_pay: bool = False
    gone: bool = False
    waited: float = 0.0
    denied_days: set[int] = field(default_factory=set)
    first_action: float | None = None
    walls: int = 0

    def __post_init__(self) -> None:
        self.established = self.created < START


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """How a policy set calls what the population needs: tiers, models by strength, facts.

    `known` are the facts that may be stated.
    """

    unverified: str | None
    verified: str | None
    enterprise: str | None
    models: tuple[str, ...]
    known: frozenset[str]


@dataclass(slots=True)
class Values:
    """Hands out identifiers whose order tells nothing, from a stream of its own."""

    random: Random
    taken: set[int] = field(default_factory=set)

    def number(self) -> int:
        """Return a number that was not handed out before."""
        while True:
            found = self.random.getrandbits(44)
            if found not in self.taken:
                self.taken.add(found)
                return found

    def token(self, prefix: str) -> str:
        """Return a new identifier."""
        return f"{prefix}{self.number():011x}"

    def address(self) -> str:
        """Return a new IPv4 address."""
        while True:
            found = self.random.randrange(11 << 24, 126 << 24)
            if found not in self.taken:
                self.taken.add(found)
                return ".".join(str(found >> shift & 255) for shift in (24, 16, 8, 0))

    def network(self, country: str, kind: str, asn: int | None = None) -> Facts:
        """Return the facts of a connection from a new address."""
        address = self.address()
        number = asn if asn is not None else 1000 + self.random.randrange(60)
        return connection(address, country, kind, number)


def connection(address: str, country: str, kind: str, asn: int) -> Facts:
    """Return the facts of a connection from an address."""
    return {
        "client.ip": address,
        "client.network": f"{address}/32",
        "geo.country": country,
        "geo.asn": asn,
        "network.kind": kind,
    }


def worth_of(account: Account) -> float:
    """Return what an account's requests are sold for, in USD each, on average."""
    agentic = account.sensitive * account.agentic
    shares = {"chat": 1 - account.sensitive, "code": account.sensitive - agentic}
    total = 0.0
    for capability, share in (shares | {"agentic": agentic}).items():
        into, wide, out, broad = TOKENS[capability]
        total += share * (
            into * math.exp(wide**2 / 2) * PRICE_IN + out * math.exp(broad**2 / 2) * PRICE_OUT
        )
    return total


def varied(seed: int) -> tuple[Segment, ...]:
    """Return the segments as a seed has them: shares and medians times 0.5 to 1.5."""
    random = stream(seed, "segments")
    found = [
        replace(
            segment,
            share=segment.share * random.uniform(0.5, 1.5),
            median=segment.median * random.uniform(0.5, 1.5),
        )
        for segment in SEGMENTS
    ]
    total = sum(segment.share for segment in found)
    return tuple(replace(segment, share=segment.share / total) for segment in found)


class Population:
    """All honest accounts of one seed.

    `accounts` are in the order they were made in; `add` makes more, for shocks.
    """

    def __init__(
        self, seed: int, size: int, days: int, names: Names, segments: Sequence[Segment] = ()
    ) -> None:
        self.seed = seed
        self.days = days
        self.names = names
        self.segments = tuple(segments) or varied(seed)
        self.random = stream(seed, "population")
        self.values = Values(stream(seed, "values"))
        self.templates = Zipf(FRAMEWORKS, 1.6)
        self.accounts: list[Account] = []
        random = self.random
        self.vpn = [self._network("vpn", asn=9000 + exit % 5) for exit in range(VPN_EXITS)]
        self.serverless = [self._network("hosting", asn=9100) for _ in range(SERVERLESS_EXITS)]
        counts = whole_counts(random, size, [segment.share for segment in self.segments])
        self.campuses = [
            self._campus(number) for number in range(max(1, round(size * 12 / 100_000)))
        ]
        carriers = max(1, round(counts[0] * 0.15 / CARRIER_PREFIX))
        self.carriers = [self._network("mobile", asn=9200 + at % 7) for at in range(carriers)]
        for segment, count in enumerate(counts):
            for group in _MAKERS[self.segments[segment].name](self, segment, count):
                self.accounts += group

    # What accounts share

    def country(self) -> str:
        """Return a country with customers."""
        return self.random.choices(list(COUNTRIES), [odds for odds, _ in COUNTRIES.values()])[0]

    def _network(self, kind: str, country: str | None = None, asn: int | None = None) -> Facts:
        return self.values.network(country or self.country(), kind, asn)

    def abroad(self, random: Random) -> Facts:
        """Return a connection from another country, for a traveller."""
        country = random.choice(list(COUNTRIES))
        return self.values.network(country, random.choice(("residential", "mobile", "business")))

    def renumbered(self, home: Facts) -> Facts:
        """Return a home's connection with a new address."""
        address = self.values.address()
        return {**home, "client.ip": address, "client.network": f"{address}/32"}

    def _campus(self, number: int) -> Facts:
        return self._network("business", asn=9300 + number)

    def framework(self) -> tuple[str, str]:
        """Return template and toolset of an agent framework, popular ones more often."""
        rank = self.templates.draw(self.random)
        return f"framework-{rank}", f"tools-framework-{rank}"

    # Accounts

    def add(
        self, segment: int, created: float | None = None, country: str | None = None
    ) -> Account:
        """Return a new account of a segment with a home, a device and a card of its own.

        `created` None draws it: 70 % are established for 60 to 900 days, others sign up within
        the window.
        """
        random, kind = self.random, self.segments[segment]
        if created is None:
            if random.random() < 0.7:
                created = START - random.uniform(60, 900) * DAY
            else:
                created = START + random.random() * self.days * DAY
        account = Account(self.values.number(), segment, created)
        country = country or self.country()
        account.clock = COUNTRIES.get(country, (1, 0))[1]
        account.rate = log_normal(random, kind.median, kind.sigma)
        account.sensitive = random.betavariate(*kind.sensitive)
        account.agentic = random.betavariate(3, 2)
        account.active = kind.active
        account.program = kind.program
        account.answers = random.random()
        account.model = random.choices((0, 1, 2), (3, 5, 2))[0]
        account.home = self._network("residential", country)
        account.template = self.values.token("own-") if random.random() < 0.5 else None
        account.toolset = self.values.token("own-tools-")
        account.verifies_in = self._verification()
        monthly = 22 * account.rate * account.active[0] * worth_of(account)
        paying = random.random() < kind.pays or monthly > _FREE
        account.reload = max(20.0, min(500.0, monthly / 22))
        if random.random() < kind.proactive:
            account.proactive_after = random.expovariate(1 / (0.2 * DAY))
        account.facts = {
            "account.id": f"acct-{account.number:011x}",
            "account.created": created,
            "account.signup": self.signup(created, "mail", account.home["geo.asn"]),
            "credential.id": f"key-{account.number:011x}",
            "request.stream": random.random() < 0.6,
            "client.agent": random.choice(("python-sdk", "node-sdk", "http", "browser")),
        }
        if not kind.program:
            account.facts["device.fingerprint"] = self.values.token("device-")
        if paying:
            self._give_card(account, country)
        self._grow_up(account)
        return account

    def signup(self, created: float, mail: str, asn: object) -> str:
        """Return a registration's label: its hour, the class of its mail, a bucket of its ASN."""
        bucket = asn % 16 if isinstance(asn, int) else 0
        return f"{int(created // 3600)}-{mail}-{bucket}"

    def _verification(self) -> float:
        """Return how long a verification will take in seconds, ENDED if it is abandoned."""
        drawn = self.random.random()
        if drawn < 0.85:
            return self.random.expovariate(1 / (8 * 3600.0))
        return self.random.uniform(1, 5) * DAY if drawn < 0.95 else ENDED

    def _give_card(self, account: Account, country: str) -> None:
        random = self.random
        abroad = random.random() < EXPATRIATES
        account.facts["payment.fingerprint"] = self.values.token("card-")
        account.facts["payment.country"] = (
            random.choices(list(_CARDS_ABROAD), list(_CARDS_ABROAD.values()))[0]
            if abroad
            else country
        )
        kind = self.segments[account.segment]
        delay = random.expovariate(1 / 3 if kind.name == "hobby" else 10)
        account.pays_after = delay * DAY
        if account.established:
            months = (START - account.created) / DAY / 30
            monthly = max(5.0, account.rate * account.active[0] * 22 * worth_of(account))
            account.paid = round(months * monthly, 2)
            account.paid_since = account.created + account.pays_after

    def _grow_up(self, account: Account) -> None:
        """Give an established account the identity that its use has asked for by now."""
        if not account.established:
            return
        days = (START - account.created) / DAY * account.active[0]
        used = account.rate * account.sensitive * days
        proactive = account.proactive_after < ENDED
        if proactive or self.random.random() < 1 - math.exp(-used / 40):
            self.verify(account, account.created + self.random.random() * 20 * DAY)

    def verify(self, account: Account, moment: float) -> None:
        """Make an account verified, with an identity of its own unless it has one."""
        if account.identity is None:
            account.identity = f"id-{account.number:011x}"
        account.facts["kyc.subject"] = account.identity
        account.facts["account.verified_at"] = moment
        if account.tier == "email":
            account.tier = "verified"
        account.proactive_after = ENDED
        account.cached = {}

    # Segments: each yields groups of accounts that belong together

    def hobbyists(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield people who chat: some behind carriers and VPNs, some in households."""
        random, left = self.random, count
        while left:
            size = min(left, random.choices((1, 2, 3), (95, 4, 1))[0])
            left -= size
            household = [self.add(segment) for _ in range(size)]
            for account in household[1:]:
                account.home = household[0].home
                if random.random() < 0.5:
                    self._share_card(household[0], account)
            drawn = random.random()
            for account in household:
                if drawn < 0.15:
                    account.roams = random.sample(self.carriers, min(2, len(self.carriers)))
                elif drawn < 0.21:
                    account.roams = random.sample(self.vpn, 3)
                elif drawn < 0.35:
                    account.roams = (account.home, self._network("mobile", self._at(account)))
            yield household

    def developers(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield agentic developers: most with a framework's templates, some with two accounts."""
        random, left = self.random, count
        while left:
            size = min(left, 1 if random.random() < 0.75 else 2)
            left -= size
            pair = [self.add(segment) for _ in range(size)]
            first = pair[0]
            for account in pair:
                if random.random() < 0.55:
                    account.template, account.toolset = self.framework()
                drawn = random.random()
                if drawn < 0.10:
                    account.roams = (account.home, random.choice(self.serverless))
                elif drawn < 0.16:
                    account.roams = random.sample(self.vpn, 2)
            for account in pair[1:]:
                account.home = first.home
                account.facts["device.fingerprint"] = first.facts["device.fingerprint"]
                self._share_card(first, account)
                self._share_identity(first, account)
            yield pair

    def products(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield production services: on rented servers, a quarter of them behind shared exits."""
        random = self.random
        for _ in range(count):
            account = self.add(segment)
            drawn = random.random()
            if drawn < 0.25:
                account.home = random.choice(self.serverless)
            elif drawn < 0.9:
                account.home = self._network("hosting", self._at(account), asn=9100 + count % 9)
            else:
                account.home = self._network("business", self._at(account))
            account.template = self.values.token("own-")
            account.active = (0.99, 0.98) if random.random() < 0.4 else account.active
            account.facts["account.org"] = self.values.token("org-")
            yield [account]

    def organisations(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield the seats of organisations; one in ten is not declared."""
        left = count
        while left:
            size = min(left, round(pareto(self.random, 1.1, 8, 8000)))
            left -= size
            yield self.organisation(segment, size, declared=self.random.random() < 0.9)

    def organisation(
        self, segment: int, size: int, *, declared: bool, created: float | None = None
    ) -> list[Account]:
        """Return the seats of one organisation, which share card, exits and a template."""
        random, country = self.random, self.country()
        exits = [self._network("business", country) for _ in range(random.randrange(1, 6))]
        template, tools = self.framework()
        name, card = self.values.token("org-"), self.values.token("card-")
        signed = START - random.uniform(60, 900) * DAY if created is None else created
        seats = []
        for _ in range(size):
            joined = signed + random.expovariate(1 / (60 * DAY)) if created is None else created
            joined = min(joined, START + self.days * DAY * 0.99)
            seat = self.add(segment, joined, country=country)
            seat.home, seat.roams = random.choice(exits), exits
            if random.random() < 0.5:
                seat.template, seat.toolset = template, tools
            seat.facts["payment.fingerprint"] = card
            seat.facts["payment.country"] = country
            seat.facts["account.signup"] = self.signup(joined, f"sso-{name}", exits[0]["geo.asn"])
            seat.facts["account.org"] = name
            if signed < START:
                months = (START - signed) / DAY / 30
                seat.paid, seat.paid_since = 30 * months + 1, signed + DAY
            if declared:
                seat.tier = "enterprise"
                seat.identity = f"register-{name}"
                self.verify(seat, signed)
            seats.append(seat)
        return seats

    def students(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield students: behind their campus by day, enrolled in classes that sign up together."""
        random, left = self.random, count
        while left:
            size = min(left, random.randrange(5, 30))
            left -= size
            campus = random.choice(self.campuses)
            country = str(campus["geo.country"])
            start = None
            if random.random() < 0.3:
                start = START + random.random() * self.days * DAY * 0.9
            group = []
            for _ in range(size):
                created = None
                if start is not None:
                    created = start + random.random() * 7200
                student = self.add(segment, created, country=country)
                student.roams = (campus, campus, student.home)
                label = self.signup(student.created, "edu", campus["geo.asn"])
                student.facts["account.signup"] = label
                if random.random() < 0.3:
                    student.template, student.toolset = self.framework()
                group.append(student)
            yield group

    def evaluators(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield evaluation and synthetic-data work: bursts with few templates, several keys."""
        random, left = self.random, count
        while left:
            size = min(left, random.choices((1, 2, 3), (60, 25, 15))[0])
            left -= size
            group = [self.add(segment) for _ in range(size)]
            first = group[0]
            first.template = self.values.token("harness-")
            if random.random() < 0.6:
                first.home = self._network("hosting", self._at(first))
            else:
                first.home = random.choice(self.campuses)
            for account in group[1:]:
                account.home, account.template = first.home, first.template
                self._share_card(first, account)
                self._share_identity(first, account)
            yield group

    def resellers(self, segment: int, count: int) -> Iterator[list[Account]]:
        """Yield resellers: four of five are under contract."""
        for _ in range(count):
            account = self.add(segment)
            account.home = self._network("hosting", self._at(account))
            account.facts["account.org"] = name = self.values.token("org-")
            if self.random.random() < 0.8:
                account.tier, account.identity = "enterprise", f"register-{name}"
                self.verify(account, account.created)
            yield [account]

    def _at(self, account: Account) -> str:
        return str(account.home["geo.country"])

    def _share_card(self, first: Account, other: Account) -> None:
        for name in ("payment.fingerprint", "payment.country"):
            if name in first.facts:
                other.facts[name] = first.facts[name]

    def _share_identity(self, first: Account, other: Account) -> None:
        other.identity = first.identity = first.identity or f"id-{first.number:011x}"
        for account in (first, other):
            if "kyc.subject" in account.facts:
                account.facts["kyc.subject"] = account.identity


_MAKERS = {
    "hobby": Population.hobbyists,
    "developer": Population.developers,
    "production": Population.products,
    "enterprise": Population.organisations,
    "student": Population.students,
    "evaluation": Population.evaluators,
    "reseller": Population.resellers,
}
