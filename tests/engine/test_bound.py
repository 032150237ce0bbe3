"""No farm takes more than the printed bound, and one that a simple policy meets takes all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.engine import ANY, Bound, Fleet, bounds
from guardrail.loading import load_text
from guardrail.model.amounts import SECOND
from guardrail.testing import guard_of

START = 1_769_990_400
"""2026-02-02, a Monday: a week that starts with the period."""
DAY = 86_400
HEAD = """\
guardrail: 1
policy: bounded
facts:
  account.tier: {type: level, values: [free, email, verified]DEFAULT}
  x.flag: {type: bool, source: server}
  x.plan: {type: string, source: server}
  x.room: {type: number, source: server}
"""

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "request.capability": (None, "chat", "code", "agentic", "image"),
    "request.model": (None, "large", "larger", "small"),
    "request.tools": (None, 0, 1, 5),
    "geo.country": (None, "IR", "DE", "FR"),
    "network.kind": (None, "residential", "hosting", "vpn"),
    "client.network": (None, "192.0.2.0/24", "198.51.100.0/24"),
    "client.ip": (None, "192.0.2.7", "198.51.100.7"),
    "credential.id": (None, "c1", "c2", "c3"),
    "account.age": (None, 0, 86_400, 10**7),
    "x.flag": (None, True, False),
    "x.plan": (None, "gold", "golden", "other"),
    "x.room": (None, 0, 1, 1_000),
}
"""What an attacker chooses of each request, or may be lucky with."""


def condition(rng: Random, depth: int = 2) -> str:
    """Return a condition on facts of every kind."""
    if depth and rng.random() < 0.45:
        parts = [condition(rng, depth - 1) for _ in range(rng.randint(1, 2))]
        word = rng.choice(("any", "all", "not"))
        return f"{{not: {parts[0]}}}" if word == "not" else f"{{{word}: [{', '.join(parts)}]}}"
    return rng.choice(
        (
            "{account.tier: {below: verified}}",
            "{account.tier: email}",
            "{request.capability: {in: [code, agentic]}}",
            "{request.capability: {not: chat}}",
            "{request.tools: {gt: 0}}",
            "{request.model: {prefix: large}}",
            "{geo.country: IR}",
            "{geo.country: {exists: false}}",
            "{network.kind: {in: [hosting, vpn]}}",
            "{client.ip: {cidr: [192.0.2.0/24]}}",
            "{account.age: {lt: 7d}}",
            "{account.id: a0}",
            "{kyc.subject: {exists: true}}",
            "{payment.fingerprint: {exists: true}}",
            "{account.paid_usd: {gte: 20}}",
            "{x.flag: true}",
            "{x.plan: {in: [gold]}}",
            "{x.plan: {same_as: request.model}}",
            "{actor.accounts: {gte: 2}}",
        )
    )


def amount(rng: Random) -> str:
    """Return an amount of requests, mostly small."""
    n = [str(rng.choice((0, 1, 2, 3, 4, 5, "unlimited"))) for _ in range(3)]
    plain = str(rng.randint(1, 5))
    return rng.choice(
        (
            *(plain,) * 5,
            f"{{by: account.tier, free: {n[0]}, email: {n[1]}, verified: {n[2]}}}",
            f"{{by: request.model, large: 2, else: {plain}}}",
            f"{{by: account.paid_usd, bands: {{0: 1, 20: {n[0]}, 500: unlimited}}}}",
            f"{{by: account.age, bands: {{1d: {n[0]}, 30d: {n[1]}}}, else: {plain}}}",
            f"{{fact: x.room, else: {plain}}}",
        )
    )


def key(rng: Random) -> str:
    """Return a key, mostly that of an account."""
    return rng.choice(
        (
            *("account.id",) * 5,
            "global",
            "actor.id",
            "kyc.subject",
            "payment.fingerprint",
            "credential.id",
            "geo.country",
            "account.org",
            "[account.id, network.kind]",
            "[kyc.subject, account.tier]",
        )
    )


def rule(rng: Random, number: int) -> str:
    """Return one rule."""
    per = rng.choice(("lifetime", "lifetime", "day", "hour", "week", "month", "6h", "30d"))
    verb = rng.choice(
        (
            "block: {}",
            *(f"budget: {{requests: {amount(rng)}, per: {per}, key: {key(rng)}}}",) * 4,
            f"rate: {{requests: {rng.randint(1, 3)}/{rng.choice(('hour', 'day'))}, "
            f"burst: {amount(rng)}, key: {key(rng)}}}",
            f"distinct: {{count: account.id, max: {rng.randint(1, 2)}, per: "
            f"{rng.choice(('2h', '1d', '30d'))}, "
            f"key: {rng.choice(('kyc.subject', 'payment.fingerprint', 'global'))}}}",
            "distinct: {count: credential.id, max: 2, per: 30d, key: account.id}",
        )
    )
    when = "always" if rng.random() < 0.5 else condition(rng)
    lines = [f"  - id: r{number}", f"    when: {when}", f"    {verb}"]
    drawn = rng.random()
    if drawn < 0.15:
        lines.append("    unknown: skip")
    elif drawn < 0.25:
        lines.append("    unknown: match")
    if rng.random() < 0.08:
        lines.append("    mode: shadow")
    if verb.startswith("budget") and rng.random() < 0.2:
        lines.append("    over: " + rng.choice(("{degrade: {max_output_tokens: 5}}", "block")))
    return "\n".join(lines)


def policy(seed: int) -> str:
    """Return a random policy."""
    rng = Random(seed)
    rules = [rule(rng, number) for number in range(rng.randint(1, 5))]
    text = HEAD.replace("DEFAULT", rng.choice(("", ", default: free")))
    text += "rules:\n" + "\n".join(rules) + "\n"
    if rng.random() < 0.25:
        when = rng.choice(
            ("{account.id: a0}", "{x.flag: true}", "{account.tier: verified}", "{account.org: o9}")
        )
        exemption = f"{{id: e, rules: [r0], when: {when}, reason: r, expires: 2198-01-01}}"
        text += f"exemptions: [{exemption}]\n"
    return text


def accounts(bound: Bound, fleet: Fleet) -> list[dict[str, Any]]:
    """Return the facts of each account of a profile; none is one that a policy names."""
    profile, found = bound.profile, []
    for number in range(fleet.accounts):
        facts: dict[str, Any] = {"account.id": f"f{number}"}
        if profile.tier:
            facts["account.tier"] = profile.tier
        if profile.identity:
            facts["kyc.subject"] = f"k{number % (fleet.identities or fleet.accounts)}"
        if profile.card:
            facts["payment.fingerprint"] = f"p{number % (fleet.cards or fleet.accounts)}"
        if profile.paid is not None:
            facts["account.paid_usd"] = profile.paid
        if number % 2:
            facts["account.org"] = f"o{number}"
        found.append(facts)
    return found


def attack(text: str, bound: Bound, fleet: Fleet, seed: int) -> int:
    """Return how many requests a farm gets served that tries whatever may be different."""
    rng, guard, served = Random(seed), guard_of(text), 0
    farm = accounts(bound, fleet)
    moments = {"day": range(0, DAY, DAY // 8), "month": range(0, 30 * DAY, 2 * DAY + 3_000)}
    moments["ever"] = range(0, 70 * DAY, 7 * DAY)
    for moment in moments[bound.period]:
        last = moment + 600
        for now in (*(moment for _ in range(60)), *(last for _ in range(10))):
            facts = {**rng.choice(farm)}
            for name, values in CHOICES.items():
                value = rng.choice(values)
                if value is not None:
                    facts[name] = value
            if bound.capability != ANY:
                facts["request.capability"] = bound.capability
            served += guard.decide(facts, now=START + now).allowed
    return served


FLEETS = (
    Fleet(accounts=3, identities=1, cards=2),
    Fleet(accounts=2, identities=2, cards=1),
    Fleet(accounts=1),
)


def worked_out(text: str, fleet: Fleet) -> Iterator[Bound]:
    """Yield the bounds of requests, of those capabilities that attackers name."""
    for bound in bounds(load_text(text), fleet, START * SECOND):
        if bound.unit == "requests" and bound.capability in (ANY, "code"):
            yield bound


@settings(max_examples=120)
@given(st.integers(0, 2**32), st.sampled_from(FLEETS), st.data())
def test_no_farm_takes_more_than_the_bound(seed: int, fleet: Fleet, data: st.DataObject) -> None:
    text = policy(seed)
    found = [bound for bound in worked_out(text, fleet) if bound.most is not None]
    for bound in data.draw(st.sets(st.sampled_from(found), max_size=4)) if found else ():
        taken = attack(text, bound, fleet, seed)
        assert taken <= (bound.most or 0), (text, bound)


def test_attacks_of_that_test_find_what_a_bound_forgets() -> None:
    met = reached = 0
    for seed in range(60):
        text, fleet = policy(seed), FLEETS[seed % 3]
        for bound in list(worked_out(text, fleet))[::5]:
            if bound.most:
                met += 1
                reached += attack(text, bound, fleet, seed) >= 0.9 * bound.most

    assert met > 40
    assert reached / met > 0.2
