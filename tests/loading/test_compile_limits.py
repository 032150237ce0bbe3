"""Limits compile to whole amounts, periods and windows, and to what happens when they refuse."""

from __future__ import annotations

import pytest

from guardrail.loading import load_text
from guardrail.model.amounts import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Amount,
    Band,
    Banded,
    Fixed,
    FromFact,
    Lookup,
)
from guardrail.model.cells import TOP
from guardrail.model.effects import Effect
from guardrail.model.rules import (
    Block,
    Budget,
    Concurrency,
    Degrade,
    Distinct,
    Escalate,
    Key,
    Obligations,
    Rate,
    Rule,
    Verdict,
    Window,
)

START = """\
guardrail: 1
policy: demo
facts:
  account.tier: {type: level, values: [free, email, paid]}
  account.score: {type: number, source: server}
  account.word: {type: string, source: server}
units: [images]
models:
  large: {price: {input: 15, output: 75}, weaker: small, aliases: [best]}
  small: {price: {input: 1, output: 2}, aliases: [tiny]}
"""


def compiled(verb: str, **more: str) -> Rule:
    """Return the rule of one verb, with more keys beside it."""
    keys = "".join(f"    {name}: {part}\n" for name, part in more.items())
    return load_text(f"{START}rules:\n  - id: r\n    when: always\n    {verb}\n{keys}").rules[0]


def budget(amounts: str, **more: str) -> Budget:
    """Return the budget of some amounts a day and account."""
    verb = compiled(f"budget: {{{amounts}, per: day, key: account.id}}", **more).verb
    assert isinstance(verb, Budget)
    return verb


def rate(amount: str) -> Rate:
    """Return the rate of an amount of requests per account."""
    verb = compiled(f"rate: {{requests: {amount}, key: account.id}}").verb
    assert isinstance(verb, Rate)
    return verb


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0", 0),
        ("50000", 50_000),
        ('"50000"', 50_000),
        ("50k", 50_000),
        ("1.5M", 1_500_000),
        ("0.001k", 1),
        ("2G", 2_000_000_000),
        ("1e3", 1000),
        ("2.0", 2),
        ("9007199254740991", TOP),
        ("unlimited", None),
    ],
)
def test_amounts_are_whole_units(written, expected):
    assert budget(f"tokens: {written}").amounts == (("tokens", Fixed(expected)),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10", 10_000_000),
        ("0.1", 100_000),
        ("0.000001", 1),
        ("1.5k", 1_500_000_000),
        ("9007199254.740991", TOP),
        ("unlimited", None),
    ],
)
def test_money_is_whole_micro_usd(written, expected):
    assert budget(f"cost_usd: {written}").amounts == (("cost_usd", Fixed(expected)),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{by: account.tier, free: 1k, email: 2k, paid: unlimited}",
            Lookup("account.tier", {"free": 1000, "email": 2000, "paid": None}, 1000, 1000),
        ),
        (
            "{by: account.tier, paid: 5M, else: unlimited}",
            Lookup("account.tier", {"paid": 5_000_000}, None, None),
        ),
        (
            "{by: account.tier, free: unlimited, email: unlimited, paid: unlimited}",
            Lookup("account.tier", {"free": None, "email": None, "paid": None}, None, None),
        ),
        (
            "{by: request.stream, true: 5, false: 3}",
            Lookup("request.stream", {True: 5, False: 3}, 3, 3),
        ),
        ("{by: time.hour, 3: 5, else: 2}", Lookup("time.hour", {3: 5}, 2, 2)),
        ("{by: geo.country, NO: 5, else: 2}", Lookup("geo.country", {"NO": 5}, 2, 2)),
        ('{by: account.org, "42": 5, else: 2}', Lookup("account.org", {"42": 5}, 2, 2)),
        (
            "{by: account.paid_usd, bands: {0: 50, 20: 0.5k, 500.5: unlimited}}",
            Banded(
                "account.paid_usd",
                (Band(0, "0", 50), Band(20, "20", 500), Band(500.5, "500.5", None)),
                50,
                50,
            ),
        ),
        (
            "{by: account.paid_age, bands: {0d: 5, 30d: 2}}",
            Banded("account.paid_age", (Band(0, "0d", 5), Band(2_592_000, "30d", 2)), 2, 2),
        ),
        (
            "{else: 0, bands: {-1: 5}, by: actor.accounts}",
            Banded("actor.accounts", (Band(-1, "-1", 5),), 0, 0),
        ),
        (
            "{by: account.score, bands: {0: unlimited}, else: unlimited}",
            Banded("account.score", (Band(0, "0", None),), None, None),
        ),
        (
            "{by: account.word, bands: 5, else: 2}",
            Lookup("account.word", {"bands": 5}, 2, 2),
        ),
        ("{fact: account.score}", FromFact("account.score", 1, 0)),
        ("{fact: geo.asn, else: 1k}", FromFact("geo.asn", 1, 1000)),
        ("{fact: geo.asn, else: unlimited}", FromFact("geo.asn", 1, None)),
    ],
)
def test_amounts_depend_on_facts(written, expected):
    assert budget(f"tokens: {written}").amounts == (("tokens", expected),)


def test_money_from_a_fact_is_in_dollars():
    amounts = budget("cost_usd: {fact: account.score, else: 0.5}").amounts

    assert amounts == (("cost_usd", FromFact("account.score", 1_000_000, 500_000)),)


def test_several_units_are_charged_together():
    amounts = budget("tokens: 1k, images: 5, requests: unlimited").amounts

    assert amounts == (("tokens", Fixed(1000)), ("images", Fixed(5)), ("requests", Fixed(None)))


@pytest.mark.parametrize(
    ("written", "amount", "period"),
    [
        ("60/minute", Fixed(60), MINUTE),
        ("1k / hour", Fixed(1000), HOUR),
        ("1.5k/second", Fixed(1500), SECOND),
        ("100 per 15 minutes", Fixed(100), 15 * MINUTE),
        ("100/15 minutes", Fixed(100), 15 * MINUTE),
        ("2 per day", Fixed(2), DAY),
        ("0/day", Fixed(0), DAY),
        ("unlimited", Fixed(None), MINUTE),
        (
            "{by: account.tier, free: 1/hour, email: 60 per 60 minutes, paid: unlimited}",
            Lookup("account.tier", {"free": 1, "email": 60, "paid": None}, 1, 1),
            HOUR,
        ),
        (
            "{by: account.age, bands: {1d: 1/hour, 30d: 5/hour}, else: 0/hour}",
            Banded("account.age", (Band(86_400, "1d", 1), Band(2_592_000, "30d", 5)), 0, 0),
            HOUR,
        ),
    ],
)
def test_rates_have_an_amount_and_a_period(written, amount, period):
    compiled_rate = rate(written)

    assert (compiled_rate.amount, compiled_rate.period) == (amount, period)
    assert compiled_rate.burst is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [("20", Fixed(20)), ("1k", Fixed(1000)), ("{by: request.model, else: 5}", None)],
)
def test_a_burst_is_an_amount(written, expected: Amount | None):
    verb = compiled(f"rate: {{requests: 60/minute, burst: {written}, key: global}}").verb

    assert isinstance(verb, Rate)
    assert verb.burst == expected or verb.burst == Lookup("request.model", {}, 5, 5)
    assert verb.key == Key(())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("hour", Window("hour", "hour")),
        ("week", Window("week", "week")),
        ("month", Window("month", "month")),
        ("lifetime", Window("lifetime", "lifetime")),
        ("1m", Window("rolling", "1m", MINUTE)),
        ("90s", Window("rolling", "90s", 90 * SECOND)),
        ("366d", Window("rolling", "366d", 366 * DAY)),
    ],
)
def test_windows(written, expected):
    verb = compiled(f"budget: {{tokens: 1, per: {written}, key: [account.org, geo.country]}}").verb

    assert isinstance(verb, Budget)
    assert verb.window == expected
    assert verb.key == Key(("account.org", "geo.country"))


def test_what_a_limit_does_when_it_refuses_by_default():
    lifetime = compiled("budget: {tokens: 1, per: lifetime, key: account.id}").verb
    distinct = compiled("distinct: {count: account.id, max: 3, per: 90d, key: kyc.subject}").verb
    flight = compiled("concurrency: {max: 8, lease: 90s, key: account.id}").verb

    assert isinstance(lifetime, Budget)
    assert isinstance(distinct, Distinct)
    assert isinstance(flight, Concurrency)
    assert budget("tokens: 1").over == rate("1/day").over == flight.over
    assert flight.over == Verdict(effect=Effect.THROTTLE, reason="r")
    assert lifetime.over == distinct.over == Verdict(effect=Effect.BLOCK, reason="r")
    assert flight.lease == 90 * SECOND


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("throttle", Verdict(effect=Effect.THROTTLE, reason="r")),
        ("block", Verdict(effect=Effect.BLOCK, reason="r")),
        ("{block: {}}", Verdict(effect=Effect.BLOCK, reason="r")),
        (
            "{throttle: {reason: full, message: Later., status: 503, remedy: pay}}",
            Verdict(
                effect=Effect.THROTTLE, reason="full", message="Later.", status=503, remedy="pay"
            ),
        ),
        (
            "{degrade: {model: tiny, disable: [tools, stream, tools], x-note: slow}}",
            Verdict(
                effect=Effect.DEGRADE,
                reason="r",
                obligations=Obligations(
                    model="small", disable=("tools", "stream"), extra={"x-note": "slow"}
                ),
            ),
        ),
    ],
)
def test_what_a_limit_does_when_it_refuses_can_be_said(written, expected):
    assert budget("tokens: 1", over=written).over == expected


def test_the_last_step_is_the_limit():
    steps = "[{at: 50%, notify: {x-half: used}}, {at: 100%, degrade: {max_output_tokens: 9}}]"

    written = budget("tokens: 1", steps=steps)
    added = budget("tokens: 1", steps="[{at: 1%, throttle: {}}]", over="block")

    assert [step.percent for step in written.steps] == [50, 100]
    assert written.over.effect is Effect.DEGRADE
    assert [(step.percent, step.verdict.effect) for step in added.steps] == [
        (1, Effect.THROTTLE),
        (100, Effect.BLOCK),
    ]


def test_static_rules():
    degrade = compiled("degrade: {max_output_tokens: 100}").verb

    assert compiled("block: {}").verb == Block(Verdict(effect=Effect.BLOCK, reason="r"))
    assert degrade == Degrade(
        Verdict(effect=Effect.DEGRADE, reason="r", obligations=Obligations(max_output_tokens=100))
    )


@pytest.mark.parametrize("key", ["account.id", "credential.id", "[actor.id]"])
def test_escalation_is_for_one_accounts_key(key):
    rule = compiled(
        f"rate: {{requests: 1/second, key: {key}}}",
        escalate="{after: 200, within: 10m, block_for: 1h}",
    )

    assert rule.escalate == Escalate(after=200, within=10 * MINUTE, block_for=HOUR)
