"""No farm takes more than the printed bound, and one that a simple policy meets takes all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.analysis import ANY, Bound, Fleet, all_together, bounds
from guardrail.analysis.splits import numbers
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


def pace(rng: Random) -> str:
    """Return a pace, one for all or by what is asked for."""
    period = rng.choice(("hour", "day"))
    quick, slow = (f"{rng.randint(1, 4)}/{period}" for _ in range(2))
    return rng.choice(
        (
            slow,
            f"{{by: request.model, large: {quick}, else: {slow}}}",
            f"{{by: account.age, bands: {{0d: {slow}, 10d: {quick}}}}}",
        )
    )


def rule(rng: Random, number: int) -> str:
    """Return one rule."""
    per = rng.choice(("lifetime", "lifetime", "day", "hour", "week", "month", "6h", "30d"))
    verb = rng.choice(
        (
            "block: {}",
            *(f"budget: {{requests: {amount(rng)}, per: {per}, key: {key(rng)}}}",) * 3,
            f"budget: {{tokens: {amount(rng)}, per: {per}, key: {key(rng)}}}",
            f"budget: {{tokens: 9, requests: {amount(rng)}, per: {per}, key: {key(rng)}}}",
            f"rate: {{requests: {pace(rng)}, burst: {amount(rng)}, key: {key(rng)}}}",
            f"rate: {{requests: {pace(rng)}, key: {key(rng)}}}",
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
    if rng.random() < 0.04:
        lines.append("    rollout: 50%")
    if verb.startswith("budget") and rng.random() < 0.2:
        over = ("over: {degrade: {max_output_tokens: 5}}", "over: block")
        steps = "steps: [{at: 50%, throttle: {}}, {at: 100%, block: {}}]"
        lines.append("    " + rng.choice((*over, steps)))
    return "\n".join(lines)


def raised(rng: Random, text: str) -> str:
    """Return what an exemption may raise the amounts of a rule to, nothing where it has none."""
    more = rng.choice(("7", "12", "unlimited"))
    found = re.search(r"(budget|rate|distinct): .*?requests: ([^{,]*)", text)
    if "distinct: {count" in text:
        return f"raise: {{max: {more}}}, "
    if found is None:
        return ""
    if found[1] == "budget":
        return f"raise: {{requests: {more}}}, "
    period = re.search(r"/(hour|day)", text)
    assert period is not None
    burst = f", burst: {more}" if rng.random() < 0.5 else ""
    return f"raise: {{requests: 9/{period[1]}{burst}}}, "


def policy(seed: int) -> str:
    """Return a random policy."""
    rng = Random(seed)
    rules = [rule(rng, number) for number in range(rng.randint(1, 5))]
    text = HEAD.replace("DEFAULT", rng.choice(("", ", default: free")))
    if rng.random() < 0.2:
        text += "defaults: {timezone: Europe/Berlin}\n"
    text += "rules:\n" + "\n".join(rules) + "\n"
    if rng.random() < 0.25:
        when = rng.choice(
            ("{account.id: a0}", "{x.flag: true}", "{account.tier: verified}", "{account.org: o9}")
        )
        raises = rng.choice(("", raised(rng, rules[0])))
        exemption = f"id: e, rules: [r0], {raises}when: {when}, reason: r, expires: 2198-01-01"
        exemption = f"{{{exemption}}}"
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
    """Return how much of a unit a farm gets served that tries whatever may be different."""
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
            tokens = rng.randint(0, 2)
            estimate = {"input_tokens": tokens, "output_tokens": 0}
            if guard.decide(facts, estimate, now=START + now).allowed:
                served += tokens if bound.unit == "tokens" else 1
    return served


FLEETS = (
    Fleet(accounts=3, identities=1, cards=2),
    Fleet(accounts=2, identities=2, cards=1),
    Fleet(accounts=1),
)


def worked_out(text: str, fleet: Fleet) -> Iterator[Bound]:
    """Yield the bounds, of those capabilities that attackers name."""
    for bound in bounds(load_text(text), fleet, START * SECOND):
        if bound.capability in (ANY, "code"):
            yield bound


@settings(max_examples=80)
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

    assert met > 30
    assert reached / met > 0.25


SIMPLE = """\
guardrail: 1
policy: simple
facts:
  account.tier: {type: level, values: [email, verified], default: email}
  x.contract: {type: bool, source: server}
  x.room: {type: number, source: server}
rules:
"""


def most(rules: str, period: str = "ever", unit: str = "requests", **more: Any) -> float | None:
    """Return the most that 10 accounts can take of any capability, whatever they have."""
    fleet = Fleet(**{"accounts": 10, **more})
    found = [
        bound.most
        for bound in bounds(load_text(SIMPLE + rules), fleet, START * SECOND)
        if (bound.capability, bound.unit, bound.period) == (ANY, unit, period)
    ]
    return None if None in found else max(known for known in found if known is not None)


def budget(text: str, when: str = "always", more: str = "", name: str = "b") -> str:
    """Return a rule with a budget."""
    return f"  - {{id: {name}, when: {when}, budget: {{{text}}}{more}}}\n"


@pytest.mark.parametrize(
    ("text", "day", "month", "ever"),
    [
        ("requests: 5, per: lifetime, key: account.id", 50, 50, 50),
        ("requests: 5, per: lifetime, key: actor.id", 50, 50, 50),
        ("requests: 5, per: lifetime, key: global", 5, 5, 5),
        ("requests: 5, per: day, key: account.id", 50, 1500, None),
        ("requests: 5, per: hour, key: account.id", 1200, 36_000, None),
        ("requests: 5, per: week, key: account.id", 50, 300, None),
        ("requests: 5, per: month, key: account.id", 50, 150, None),
        ("requests: 5, per: 7d, key: account.id", 50, 250, None),
        ("requests: 5, per: 30d, key: account.id", 50, 50, None),
        ("requests: 5, per: 366d, key: global", 5, 5, None),
        ("requests: 5, per: day, key: [account.id, request.capability]", 450, 13_500, None),
        ("requests: 5, per: day, key: [account.id, request.model]", None, None, None),
        ("requests: 5, per: day, key: credential.id", None, None, None),
        ("requests: unlimited, per: day, key: account.id", None, None, None),
        ("requests: 0, per: day, key: account.id", 0, 0, 0),
        ("requests: {fact: x.room, else: 3}, per: day, key: account.id", None, None, None),
        ("requests: {by: account.tier, email: 1, verified: 2}, per: day, key: global", 2, 60, None),
        ("requests: {by: request.model, large: 7, else: 2}, per: day, key: global", 7, 210, None),
    ],
)
def test_a_budget_bounds_by_its_keys_and_its_windows(
    text: str, day: float | None, month: float | None, ever: float | None
) -> None:
    found = tuple(most(budget(text), period) for period in ("day", "month", "ever"))

    assert found == (day, month, ever)


@pytest.mark.parametrize(
    ("when", "more", "expected"),
    [
        ("{request.capability: code}", "", None),
        ("{any: [{request.capability: code}, {not: {request.capability: code}}]}", "", 5),
        ("{geo.country: DE}", "", None),
        ("{account.age: {lt: 7d}}", "", None),
        ("{account.age: {gte: 0d}}", "", 5),
        ("{account.age: {gte: 0d}}", ", unknown: skip", None),
        ("{time.hour: {gte: 9}}", "", None),
        ("{account.tier: {below: verified}}", "", None),
        ("{account.tier: {at_least: email}}", "", 5),
        ("{account.id: {not: acct_42}}", "", 5),
        ("{x.contract: {not: true}}", "", None),
        ("{request.tools: {gte: 0}}", "", None),
        ("{client.ip: {cidr: [192.0.2.0/24]}}", "", None),
        ("always", ", mode: shadow", None),
        ("always", ", mode: 'off'", None),
        ("always", ", until: 2198-12-31", None),
        ("always", ", from: 2198-12-31", None),
        ("always", ", from: 2020-12-31", 5),
        ("always", ", over: {degrade: {max_output_tokens: 1}}", None),
        ("always", ", over: throttle", 5),
        ("always", ", steps: [{at: 40%, throttle: {}}]", 2),
        ("always", ", steps: [{at: 40%, degrade: {max_output_tokens: 1}}]", 5),
    ],
)
def test_a_rule_bounds_what_it_surely_applies_to(
    when: str, more: str, expected: float | None
) -> None:
    assert most(budget("requests: 5, per: lifetime, key: global", when, more)) == expected


def test_a_pace_is_what_is_due_and_what_comes_at_once() -> None:
    rate = "  - {id: r, when: always, rate: {requests: 6/minute, burst: 20, key: account.id}}\n"

    assert most(rate, "day") == 10 * (20 + 6 * 1440)
    assert most(rate, "month") == 10 * (20 + 6 * 1440 * 30)
    assert most(rate, "ever") is None


def test_rules_of_which_each_request_meets_one_are_added_up() -> None:
    code = budget(
        "requests: 3, per: lifetime, key: account.id", "{request.capability: code}", name="c"
    )
    others = "{not: {request.capability: code}}"
    rest = budget("requests: 20, per: lifetime, key: account.id", others, name="d")

    assert most(code + rest) == 230
    assert most(code + rest + budget("requests: 90, per: lifetime, key: global")) == 90


def test_refusals_leave_less_to_bound() -> None:
    blocked = "  - {id: s, when: {not: {request.capability: code}}, block: {}}\n"
    code = budget("requests: 3, per: lifetime, key: account.id", "{request.capability: code}")

    assert most(blocked + code) == 30
    assert most(blocked + "  - {id: t, when: {request.capability: code}, block: {}}\n") == 0


def test_what_is_hard_to_have_bounds_what_shares_it() -> None:
    by_card = budget("requests: 5, per: lifetime, key: payment.fingerprint")
    few = (
        "  - id: few\n    when: always\n"
        "    distinct: {count: account.id, max: 2, per: 90d, key: payment.fingerprint}\n"
    )
    per_account = budget("requests: 5, per: lifetime, key: account.id")
    carded = "  - {id: n, when: {payment.fingerprint: {exists: false}}, block: {}}\n"

    # Accounts without a card have a counter of their own: it stands in.
    assert most(by_card, cards=3) == 50
    assert most(by_card + carded, cards=3) == 15
    assert most(few + carded + per_account, "month", cards=3) == 30
    assert most(few + carded + per_account, "ever", cards=3) == 50
    assert most(few + per_account, "month", cards=3) == 50


def test_exemptions_that_may_hold_lift_a_bound_and_named_identities_are_not_the_farms() -> None:
    rule = budget("requests: 5, per: lifetime, key: account.id")
    exempt = "exemptions: [{id: e, rules: [b], when: %s, reason: r, expires: %s}]\n"

    assert most(rule + exempt % ("{account.org: acme}", "2198-01-01")) == 50
    assert most(rule + exempt % ("{x.contract: true}", "2198-01-01")) is None
    assert most(rule + exempt % ("{x.contract: true}", "2020-01-01")) == 50
    lifted = rule + exempt % ("{x.contract: true}", "2198-01-01")
    assert most(lifted, assumed={"x.contract": False}) == 50
    assert most(lifted, assumed={"x.contract": None}) == 50


def test_an_amount_that_may_be_raised_bounds_as_it_is_raised() -> None:
    rule = budget("requests: 5, per: lifetime, key: account.id")
    raises = "exemptions: [{id: e, rules: [b], raise: {requests: 8}, when: %s, reason: r, "
    raises += "expires: %s}]\n"

    assert most(rule + raises % ("{x.contract: true}", "2198-01-01")) == 80
    assert most(rule + raises % ("{account.org: acme}", "2198-01-01")) == 50
    assert most(rule + raises % ("{x.contract: true}", "2020-01-01")) == 50
    lower = raises.replace("requests: 8", "requests: 2")
    assert most(rule + lower % ("{x.contract: true}", "2198-01-01")) == 50


def test_a_rule_that_is_rolled_out_to_a_share_bounds_nobody() -> None:
    rule = budget("requests: 5, per: lifetime, key: account.id", more=", rollout: 99%")
    assert most(rule) is None


def test_who_paid_more_is_a_profile_of_its_own() -> None:
    amount = "{by: account.paid_usd, bands: {0: 5, 20: 50, 500: unlimited}}"
    policies = load_text(SIMPLE + budget(f"requests: {amount}, per: lifetime, key: account.id"))
    found = {
        bound.profile.text: bound.most
        for bound in bounds(policies, Fleet(accounts=10), 0)
        if bound.period == "ever"
    }

    assert found == {"paid nothing": 50, "paid 20 USD": 500, "paid 500 USD": None}


def test_what_does_not_bound_is_named_with_what_would() -> None:
    rules = budget("requests: 5, per: day, key: account.id", name="daily")
    rules += budget("requests: 9, per: lifetime, key: global", more=", mode: shadow", name="all")
    rules += budget("requests: 9, per: lifetime, key: credential.id", name="keys")
    policies = load_text(SIMPLE + rules)
    (found,) = bounds(policies, Fleet(accounts=10), START * SECOND, periods=["ever"])

    assert found.missing == (
        "`daily` counts per `day`; `all` is in shadow; "
        "`keys` counts by `credential.id`, of which there can be any number"
    )
    assert found.remedy == (
        "add `budget: {requests: …, per: lifetime, key: account.id}`, or one with `key: global`"
    )


def test_a_rule_that_does_not_bound_is_named_for_the_capabilities_it_is_about() -> None:
    about = "{request.capability: {in: [code, agentic]}}"
    rules = budget("requests: 5, per: lifetime, key: account.id", "{request.capability: image}")
    rules += budget("requests: 9, per: day, key: global", about, more=", mode: shadow", name="s")
    policies = load_text(SIMPLE + rules)
    found = bounds(policies, Fleet(accounts=10), START * SECOND, periods=["ever"])
    told = {one.capability: one.missing or one.most for one in found if one.unit == "requests"}
    nobody = "no rule limits requests of all of them"

    assert told.pop("image") == 50
    assert {told.pop(name) for name in ("code", "agentic")} == {"`s` is in shadow"}
    assert set(told) == {ANY, "chat", "embedding", "audio", "batch", "other"}
    assert set(told.values()) == {nobody}


@pytest.mark.parametrize(
    ("name", "boundaries", "expected"),
    [
        ("x.room", [20.0, 30], (19, 20, 25, 30, 31)),
        ("x.room", [], (-1, 0, 1)),
        ("account.age", [0, 10], (0, 5, 10, 11)),
        ("account.created", [5.0], (4, 5, 6)),
        ("request.tools", [2.5], (0, 1, 2, 3)),
        ("request.tools", [], (0,)),
        ("time.hour", [23, 0], (0, 1, 22, 23)),
        ("actor.accounts", [1], (1, 2)),
    ],
)
def test_numbers_stand_on_each_boundary_and_on_either_side_of_it(
    name: str, boundaries: list[float], expected: tuple[float, ...]
) -> None:
    fact = load_text(SIMPLE + budget("requests: 5, per: 1d, key: global")).facts[name]

    assert numbers(fact, boundaries) == expected


@pytest.mark.parametrize(
    ("rule", "period", "formula"),
    [
        ("budget: {requests: 5, per: lifetime, key: account.id}", "ever", "10 accounts × 5"),
        ("budget: {requests: 5, per: 6h, key: global}", "day", "5 × 4 windows of 6h, all together"),
        ("budget: {requests: 5, per: day, key: global}", "day", "5, all together"),
        (
            "budget: {requests: 5, per: hour, key: global}",
            "day",
            "5 × 24 windows of an hour, all together",
        ),
        (
            "budget: {requests: 5, per: day, key: [account.id, network.kind]}",
            "month",
            "10 accounts × 9 values of `network.kind` × 5 × 30 windows of a day",
        ),
        (
            "rate: {requests: 60/hour, burst: 4, key: actor.id}",
            "day",
            "10 actors × (4 at once + 1,440 in the time)",
        ),
        (
            "budget: {requests: 5, per: lifetime, key: credential.id}",
            "month",
            "60 values of `credential.id` (by `few`: 2 for each of 10 accounts, 3 times) × 5",
        ),
    ],
)
def test_a_formula_says_how_often_a_limit_counts(rule: str, period: str, formula: str) -> None:
    few = "distinct: {count: credential.id, max: 2, per: 10d, key: account.id}"
    known = "  - {id: k, when: {credential.id: {exists: false}}, block: {}}\n"
    rules = f"{known}  - {{id: r, when: always, {rule}}}\n  - {{id: few, when: always, {few}}}\n"
    policies = load_text(SIMPLE + rules)
    (found,) = bounds(policies, Fleet(accounts=10), START * SECOND, periods=[period])

    assert [term.formula for term in found.terms] == [formula]
    assert found.most == sum(term.total for term in found.terms)


def test_what_a_time_with_an_end_lacks_is_a_budget_per_day() -> None:
    rules = budget("requests: 9, per: lifetime, key: account.id", more=", until: 2198-12-31")
    policies = load_text(SIMPLE + rules + budget("tokens: 9, per: day, key: global", name="t"))
    found = bounds(policies, Fleet(accounts=10), START * SECOND, periods=["month"])

    assert found[0].missing == "`b` refuses nothing, or ends"
    assert found[0].remedy == (
        "add `budget: {requests: …, per: day, key: account.id}`, or one with `key: global`"
    )


def test_clocks_that_change_make_a_day_longer() -> None:
    zoned = SIMPLE.replace("rules:", "defaults: {timezone: Europe/Berlin}\nrules:")
    policies = load_text(zoned + budget("requests: 5, per: 24h, key: global"))
    (found,) = bounds(policies, Fleet(accounts=10), START * SECOND, periods=["day"])

    assert found.most == 10


def test_all_together_are_those_without_an_identity_and_the_trusted_ones() -> None:
    rules = budget("requests: 5, per: lifetime, key: account.id", "{account.tier: email}", name="e")
    rules += budget("requests: 50, per: lifetime, key: kyc.subject", "{account.tier: verified}")
    fleet = Fleet(accounts=100, trusted=10, identities=4, identity_from="verified")
    found = bounds(load_text(SIMPLE + rules), fleet, START * SECOND)

    assert {bound.profile.text: bound.most for bound in found} == {
        "email, no identity": 500,
        "verified, identity": 200,
    }
    assert all_together(found, ANY, "requests", "ever") == 700


def test_tiers_tell_who_has_an_identity_also_where_no_rule_asks_for_them() -> None:
    rules = budget("requests: 5, per: lifetime, key: kyc.subject")
    fleet = Fleet(accounts=100, identities=4, identity_from="verified")
    found = bounds(load_text(SIMPLE + rules), fleet, START * SECOND, periods=["ever"])

    assert [(bound.profile.text, bound.most) for bound in found] == [
        ("email, no identity", 500),
        ("verified, identity", 20),
    ]


def test_facts_too_many_to_tell_apart_are_as_the_caller_would_have_them() -> None:
    names = [f"x.f{number}" for number in range(14)]
    facts = "".join(f"  {name}: {{type: bool, source: server}}\n" for name in names)
    rules = "".join(
        budget(
            "requests: 5, per: lifetime, key: global", f"{{{name}: {value}}}", name=f"r{i}{value}"
        )
        for i, name in enumerate(names)
        for value in ("true", "false")
    )
    text = SIMPLE.replace("rules:\n", f"{facts}rules:\n") + rules
    (found,) = bounds(load_text(text), Fleet(accounts=10), START * SECOND, periods=["ever"])

    # Either of two always applies, so that ten are all; what is told apart gives an upper bound.
    assert found.most == 10


def test_of_many_rules_a_good_sum_is_found() -> None:
    levels = [f"l{number}" for number in range(14)]
    rules = "".join(
        budget(f"requests: {n + 1}, per: lifetime, key: global", f"{{x.kind: {level}}}", name=level)
        for n, level in enumerate(levels)
    )
    kinds = f"  x.kind: {{type: enum, values: [{', '.join(levels)}], default: l0}}\n"
    text = SIMPLE.replace("rules:\n", f"{kinds}rules:\n")
    found = []
    for more in ("", budget("requests: 50, per: lifetime, key: global", name="all")):
        (one,) = bounds(load_text(text + rules + more), Fleet(accounts=1), 0, periods=["ever"])
        found.append((one.most, len(one.terms)))

    assert found == [(105, 14), (50, 1)]


@pytest.mark.parametrize(
    "rule",
    [
        "budget: {requests: 4, per: lifetime, key: account.id}",
        "budget: {requests: 4, per: lifetime, key: global}",
        "budget: {requests: 3, per: day, key: account.id}",
        "budget: {requests: 5, per: week, key: actor.id}",
        "budget: {requests: 4, per: 30d, key: account.org}",
        "budget: {requests: 9, per: lifetime, key: account.id}, "
        "steps: [{at: 50%, throttle: {}}, {at: 100%, block: {}}]",
        "budget: {requests: {by: request.model, large: 6, else: 2}, per: day, key: account.id}",
    ],
)
def test_a_farm_that_a_simple_policy_meets_takes_all_of_the_bound(rule: str) -> None:
    text = f"{HEAD.replace('DEFAULT', '')}rules: [{{id: r, when: always, {rule}}}]\n"
    fleet, reached = Fleet(accounts=3), 0
    for bound in worked_out(text, fleet):
        if bound.capability == ANY and bound.unit == "requests" and bound.period != "month":
            taken = attack(text, bound, fleet, 1)
            assert bound.most is None or taken <= bound.most
            reached += taken == bound.most

    assert reached >= 1
