"""Draws `examples/traffic/sample-week.jsonl.gz`: a week of the simulator's population, recorded.

    python -m scripts.sample_week                     write the week that is shipped
    python -m scripts.sample_week --seed 7 --out DIR  write another

Nothing in it was recorded from anybody. A server without policies serves the population that
`guardrail simulate` has (its segments, shocks and operators) for two weeks; the third is written
down as its log: what everyone sent, as all of it was served, with the facts that the server knew by
then. Two operators, a naive and a careful one, begin on its first day.

Requests that one account sends in a row, to one capability, are a line for each ten, which asks for
so many completions. Amounts have two digits, and times at which accounts
changed are whole hours. All of it keeps the file small. Addresses are of the
documentation range 2001:db8::/32, and identifiers are short; neither tells who anyone is. What each
account was made as stands beside the traffic, in `sample-week.accounts.csv`, where no policy sees
it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.loading import load_policies
from guardrail.simulate.customers import HOUR, Ask, Customers, ShockTally
from guardrail.simulate.draws import stream
from guardrail.simulate.modes import Baseline, baseline_policies
from guardrail.simulate.operators import Operator, Take
from guardrail.simulate.population import DAY, START, Population
from guardrail.simulate.running import Options, names_of
from guardrail.simulate.shocks import Calendar
from guardrail.simulate.skills import Attack, Prices, skill_of

ROOT = Path(__file__).resolve().parents[1]
TRAFFIC = ROOT / "examples" / "traffic"
NAME = "sample-week"

SEED = 30
"""The first seed that the shipped policies were neither tuned on nor reported on."""
SIZE = 400
"""Honest accounts, of which some send nothing in the week or sign up only later."""
SIMULATED, FIRST, DAYS = 45, 14, 7
"""Days of the simulation, and the day that the week begins on, a Monday."""
FLEETS = {Attack.NAIVE: 50, Attack.CAREFUL: 100}
"""How many accounts the operators have."""
MOST = 10
"""Requests that one line stands for, at most."""
EXPECTED = 1024
"""The longest answer that a request allows, in tokens."""

LEFT_OUT = frozenset(
    {
        "client.agent",
        "client.ip",
        "credential.id",
        "geo.asn",
        "request.endpoint",
        "request.stream",
    }
)
"""What no shipped policy asks for, and would only make the file larger."""
SHORT = {
    "account.id": "a",
    "account.org": "o",
    "device.fingerprint": "d",
    "kyc.subject": "k",
    "payment.fingerprint": "p",
    "request.template": "t",
    "request.toolset": "s",
    "account.signup": "b",
}
"""Facts whose values are identifiers, with the letter that their short forms begin with."""
NETWORK = "client.network"
_PACE = 40.0


@dataclass(frozen=True, slots=True)
class Line:
    """Some requests of one account: when, as what, how many, and what they used."""

    moment: int
    facts: Mapping[str, object]
    count: int
    tokens_in: int
    tokens_out: int


class Log:
    """Writes down what is served from a time on, in seconds since the epoch."""

    def __init__(self, begins: float, random: Random) -> None:
        self.begins = begins
        self.random = random
        self.lines: list[Line] = []

    def write(
        self,
        facts: Mapping[str, object],
        moment: float,
        span: float,
        count: int,
        tokens: tuple[int, int],
    ) -> None:
        """Write requests that come over `span` seconds, in lines of at most ten of them."""
        if moment < self.begins:
            return
        parts = math.ceil(count / MOST)
        weights = [self.random.uniform(0.5, 1.5) for _ in range(parts)]
        for part, weight in enumerate(weights):
            size = count // parts + (part < count % parts)
            share = weight / sum(weights)
            at = moment + span * (part + self.random.random() / 2) / parts
            into, out = (max(size, round(amount * share)) for amount in tokens)
            self.lines.append(Line(int(at), facts, size, two_digits(into), two_digits(out)))


class LoggedCustomers(Customers):
    """Honest customers, all of whose served requests are written down."""

    def __init__(self, population: Population, guard: Guard, log: Log) -> None:
        super().__init__(population, guard)
        self.log = log

    def _decision(self, ask: Ask, moment: float) -> Decision:
        decision = super()._decision(ask, moment)
        facts = ask.account.cached[ask.capability]
        self.log.write(facts, moment, ask.span, ask.size, (ask.tokens_in, ask.tokens_out))
        return decision


class LoggedGuard(Guard):
    """A guard that writes down what operators send: a session's requests come in some minutes."""

    log: Log

    def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        **rest: Any,
    ) -> Decision:
        """Return what a guard decides, and write down what it decided on."""
        assert estimate is not None
        now = rest["now"]
        count, into, out = (
            int(str(estimate[unit])) for unit in ("requests", "input_tokens", "output_tokens")
        )
        self.log.write(facts, now, _PACE * count, count, (into, out))
        return super().decide(facts, estimate, **rest)


def two_digits(amount: int) -> int:
    """Return an amount to two digits."""
    return int(float(f"{amount:.1e}"))


class Shortened:
    """Replaces identifiers by short ones and addresses by made-up ones, each always by the same."""

    def __init__(self, random: Random) -> None:
        self._numbers = {
            name: iter(random.sample(range(1000, 10_000), 9000)) for name in (*SHORT, NETWORK)
        }
        self._known: dict[tuple[str, object], str] = {}

    def facts(self, facts: Mapping[str, object]) -> dict[str, object]:
        """Return facts as the file has them: times in whole hours, identifiers short."""
        found: dict[str, object] = {}
        for name, value in facts.items():
            if name in LEFT_OUT:
                continue
            if name in SHORT or name == NETWORK:
                value = self._short(name, value)
            elif name == "account.paid_usd":
                value = two_digits(int(str(value).partition(".")[0]))
            elif isinstance(value, float):
                value = int(value // HOUR * HOUR)
            elif name == "request.tools" and not value:
                continue
            found[name] = value
        return found

    def _short(self, name: str, value: object) -> str:
        found = self._known.get((name, value))
        if found is None:
            number = next(self._numbers[name])
            found = f"2001:db8:{number:x}::/64" if name == NETWORK else f"{SHORT[name]}{number}"
            self._known[name, value] = found
        return found


@dataclass(frozen=True, slots=True)
class Week:
    """The week: its lines in order of time, and what each account in it was made as."""

    lines: Sequence[str]
    accounts: Sequence[tuple[str, str, str]]


def week(seed: int = SEED) -> Week:
    """Return the week of a seed."""
    names = names_of(load_policies([ROOT / "policies"]), Options().tiers)
    begins = START + FIRST * DAY
    log = Log(begins, stream(seed, "sample-week"))
    guard = LoggedGuard.from_policies(
        baseline_policies(Baseline.NONE), clock=lambda: START, environ={}
    )
    guard.log = log
    with guard:
        population = Population(seed, SIZE, SIMULATED, names)
        customers = _served(population, log)
        operators = list(_attacking(seed, begins, guard, population))
    shortened = Shortened(stream(seed, "sample-week-names"))
    kept = sorted(
        (line for line in log.lines if line.moment < begins + DAYS * DAY),
        key=lambda line: line.moment,
    )
    lines = [_text(line, shortened.facts(line.facts)) for line in kept]
    made_as = {
        account.facts["account.id"]: (
            population.segments[account.segment].name,
            account.shock or "",
        )
        for account in customers.population.accounts
    }
    made_as |= {
        puppet.facts["account.id"]: (f"{attack} operator", "")
        for attack, operator in operators
        for puppet in operator.accounts
    }
    seen = {line.facts["account.id"]: None for line in kept}
    rows = [
        (str(shortened.facts({"account.id": account})["account.id"]), *made_as[account])
        for account in seen
    ]
    return Week(lines, sorted(rows))


def _served(population: Population, log: Log) -> LoggedCustomers:
    """Serve the honest population all it asks for, day by day."""
    nobody = Guard.from_policies(baseline_policies(Baseline.NONE), clock=lambda: START, environ={})
    customers = LoggedCustomers(population, nobody, log)
    calendar = Calendar(population, SIMULATED)
    customers.shocks = {shock.name: ShockTally() for shock in calendar.shocks}
    with nobody:
        for day in range(FIRST + DAYS):
            calendar.morning(day)
            for moment, ask in customers.plan(day):
                customers.deliver(moment, ask, _never)
    return customers


def _never(moment: float, ask: Ask) -> None:
    raise RuntimeError("a server without policies refused a request")


def _attacking(
    seed: int, begins: float, guard: LoggedGuard, population: Population
) -> Iterator[tuple[Attack, Operator]]:
    """Serve the operators all they ask for; yield each with its skill."""
    random = stream(seed, "operators")
    for number, (attack, fleet) in enumerate(FLEETS.items()):
        operator = Operator(
            number,
            skill_of(attack, random, fleet),
            fleet=fleet,
            begins=begins,
            days=DAYS,
            supply=0.05,
            seed=seed,
            guard=guard,
            names=population.names,
            prices=Prices(),
            take=Take.over(24 * (FIRST + DAYS + 1)),
            vpn=population.vpn,
        )
        for day in range(DAYS):
            for moment in operator.morning(day):
                operator.work(moment)
            operator.evening(day)
        yield attack, operator


def _text(line: Line, facts: Mapping[str, object]) -> str:
    into = line.tokens_in
    estimate = {
        "requests": line.count,
        "input_tokens": into,
        "output_tokens": EXPECTED * line.count,
    }
    usage = {"input_tokens": into, "output_tokens": line.tokens_out}
    if line.count == 1:
        del estimate["requests"]
    duration = 1 + line.tokens_out // 60
    told = {"ts": line.moment, "facts": facts, "estimate": estimate, "usage": usage}
    return json.dumps(told | {"duration": duration}, separators=(",", ":")) + "\n"


def write(folder: Path, seed: int = SEED) -> None:
    """Write the week and what its accounts were made as; their bytes depend on the seed alone."""
    found = week(seed)
    with (
        (folder / f"{NAME}.jsonl.gz").open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=0) as packed,
    ):
        packed.writelines(line.encode() for line in found.lines)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("account.id", "made_as", "shock"))
    rows.writerows(found.accounts)
    (folder / f"{NAME}.accounts.csv").write_text(table.getvalue(), encoding="ascii")


def main() -> None:
    """Write the week beside the examples, or where the command line says."""
    parser = argparse.ArgumentParser(description="Draw the sample week of traffic.")
    parser.add_argument("--out", type=Path, default=TRAFFIC, help="the folder to write to")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
