"""Generates `sample-week.jsonl.gz`: a week of ordinary use and a slice of an extraction campaign.

Nothing in it was recorded. Accounts, cards and devices are invented, networks come from the
documentation range 2001:db8::/32, and the few addresses are public resolvers, whose countries are
well known, or TEST-NET, whose country is unknown. One seed gives one file.

It is calibrated on published figures:

* Volumes are heavy-tailed: an account's mean is log-normal and its days vary around it (clients of
  the model service in the ServeGen study: the busiest tenth makes 39 to 79 % of the requests).
* Requests come in sessions, so gaps vary more than a Poisson process's (ServeGen: a coefficient of
  variation of 1.4 at the median), by a local clock with a peak five times the trough for people.
* Tokens are log-normal. Chat and code are as in Azure's 2023 trace (prompts of 1,020 and 1,469 at
  the median, answers of 129 and 13, code's made longer here); agents read and write more.
* The campaign: 28.8 million exchanges from 25,000 accounts in 45 days, as a provider alleged in
  June 2026, are 25.6 a day from each. Two operators: a naive one shares cards, devices and hosting
  exits and repeats a few templates; a careful one has residential exits in served countries, a
  device for each account, at most three accounts on a card, and some cover chat. Each hands its
  work out from one queue, account after account, the clock round.

Token counts are rounded to two digits to keep the file small. `label` and `segment` say what a
line was made as; they stand outside `facts`, where no policy sees them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

from accounts import (
    COUNTRIES,
    PACE,
    Account,
    Registry,
    beginners,
    careful_farm,
    everyday,
    naive_farm,
    odd_ones,
    programs,
)

SEED = 20260302
START = 1772409600
"""Monday 2 March 2026, 00:00 UTC."""
DAY = 86400

PROMPTS = {"chat": (1020, 0.75), "code": (1469, 0.9), "agentic": (5000, 0.8), "embedding": (400, 1)}
ANSWERS = {"chat": (129, 0.9), "code": (60, 1.1), "agentic": (250, 0.9)}
"""Median and sigma of the logarithm."""
EXPECTED = {"chat": 512, "code": 512, "agentic": 1024, "embedding": 0}
"""The answer a host reserves for."""


def line(random: Random, account: Account, moment: int) -> dict[str, object]:
    """Return one line of traffic: a request of an account at a moment, and what it came to."""
    capability = "chat"
    if random.random() < account.sensitive:
        capability = "agentic" if random.random() < 0.6 else "code"
    elif account.segment == "production" and random.random() < 0.3:
        capability = "embedding"
    facts = dict(account.facts)
    if moment >= START + account.verifies * DAY:
        facts |= {"account.tier": "verified", "kyc.subject": f"k{facts['account.id']}"}
    facts["request.capability"] = capability
    facts["request.model"] = "small" if capability == "embedding" else account.model
    if capability == "agentic":
        facts["request.tools"] = random.choice((4, 8, 12))
    if account.model == "large":
        facts["request.reasoning"] = True
    if account.template and capability != "embedding":
        facts["request.template"] = account.template
    prompt = two_digits(random, *PROMPTS[capability])
    answer = two_digits(random, *ANSWERS[capability]) if capability in ANSWERS else 0
    return {
        "ts": moment,
        "label": account.label,
        "segment": account.segment,
        "facts": facts,
        "estimate": {"input_tokens": prompt, "output_tokens": EXPECTED[capability]},
        "usage": {"input_tokens": prompt, "output_tokens": answer},
        "duration": 1 + answer // 60,
    }


def two_digits(random: Random, median: float, sigma: float) -> int:
    """Return a log-normal number of tokens, to two digits."""
    drawn = median * math.exp(sigma * random.gauss(0, 1))
    return int(float(f"{min(drawn, 100_000):.1e}"))


def moments(random: Random, account: Account) -> Iterator[int]:
    """Yield when an account sends requests: active days, the hours of its clock, sessions."""
    offset = COUNTRIES.get(str(account.facts.get("geo.country")), 0)
    hours = [
        1 + (account.peak - 1) * (1 + math.cos((h + offset - 14) * math.pi / 12)) / 2
        for h in range(24)
    ]
    for day in account.days:
        if random.random() >= account.active[day >= 5]:
            continue
        left = round(account.volume * math.exp(random.gauss(-0.18, 0.6)))
        while left > 0:
            session = min(left, 1 if random.random() < 0.6 else 2 + int(random.expovariate(0.2)))
            start = random.choices(range(24), hours)[0] * 3600 + random.randrange(3600)
            for _ in range(session):
                yield START + day * DAY + start
                start = (start + 5 + int(random.expovariate(1 / 90))) % DAY
            left -= session


def rotation(random: Random, farm: list[Account]) -> Iterator[tuple[int, Account]]:
    """Yield a farm's requests: one queue, dealt out account after account, the clock round."""
    gap = DAY / (PACE * len(farm))
    days = farm[0].days
    clock, turn = days.start * DAY + 0.0, 0
    while clock < days.stop * DAY:
        yield START + int(clock), farm[turn % len(farm)]
        clock += gap * (0.9 + 0.2 * random.random())
        turn += 1


def week(seed: int = SEED) -> Iterator[str]:
    """Yield the sample, a line at a time, in the order of time."""
    random = Random(seed)
    registry = Registry(random)
    accounts = [
        account for kind in (everyday, programs, odd_ones, beginners) for account in kind(registry)
    ]
    requests = [(at, account) for account in accounts for at in moments(random, account)]
    for farm in (naive_farm(registry), careful_farm(registry)):
        requests += rotation(random, farm)
    requests.sort(key=lambda request: request[0])
    for at, account in requests:
        yield json.dumps(line(random, account, at), separators=(",", ":")) + "\n"


def write(path: Path, seed: int = SEED) -> None:
    """Write the sample; its bytes depend on the seed alone, not on the time or the path."""
    with path.open("wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        packed.writelines(text.encode() for text in week(seed))


def main() -> None:
    """Write the sample beside this file, or where the command line says."""
    parser = argparse.ArgumentParser(description="Generate the sample week of traffic.")
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path(__file__).with_name("sample-week.jsonl.gz")
    )
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
