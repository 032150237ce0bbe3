"""`guardrail explain`: what it tells where a counter cannot be filled first."""

from __future__ import annotations

import json

import pytest

POLICY = """\
guardrail: 1
policy: p
facts: {account.tier: {type: level, values: [free, paid]}}
models: {small: {price: {input: 1, output: 1}, max_output: 100}}
rules:
  - {id: pace, when: always, rollout: 5%, rate: {requests: 60/minute, key: account.id}}
  - id: money
    when: {account.tier: free}
    unknown: skip
    budget: {cost_usd: 5, requests: 9, per: day, key: account.id}
  - id: month
    when: always
    budget: {requests: {by: account.tier, free: 5, paid: unlimited}, per: month, key: account.id}
  - {id: stop, when: {account.id: x}, unknown: skip, block: {}}
  - {id: old, when: always, until: 2020-01-01, budget: {requests: 5, per: day, key: account.id}}
  - id: by-card
    when: always
    unknown: skip
    budget: {requests: 5, per: day, key: payment.fingerprint}
  - id: either
    when: {any: [{account.tier: paid}, {not: {account.id: a1}}]}
    unknown: skip
    rate: {requests: 1/hour, key: account.id}
  - {id: pilot, when: always, budget: {requests: 1, per: day, key: account.id}}
exemptions:
  - {id: agreed, rules: [pilot], when: {account.id: a1}, reason: agreed, expires: 2198-12-31}
"""
APART = "does not apply to this request"


@pytest.mark.parametrize(
    ("used", "tier", "why"),
    [
        (
            "pace=5",
            "free",
            f"rule `pace` {APART}: its account is not in the rollout (5% of accounts)",
        ),
        ("pce=5", "free", "there is no rule `pce`, did you mean `pace`?"),
        ("stop=1", "free", "rule `stop` counts nothing: it is a `block`"),
        ("month:tokens=1", "free", "rule `month` counts `requests`, not `tokens`"),
        ("money:requests=1", "paid", f"rule `money` {APART}: `account.tier = free` is false"),
        ("money:requests=1", None, f"rule `money` {APART}: `account.tier = free` is unknown"),
        ("month=1", "paid", "its amount here is 0 or unlimited"),
        ("old=1", "free", "rule `old` is not in force"),
        ("by-card=1", "free", "rule `by-card` counts by `payment.fingerprint`, which this request"),
        ("either=1", "free", f"{APART}: `account.tier = paid or account.id = a1` is false"),
        ("pilot=1", "free", "exemption `agreed` lifts rule `pilot` for this request"),
    ],
)
def test_a_counter_that_cannot_be_filled_is_told_with_the_reason(run, folder, used, tier, why):
    (folder / "p.yaml").write_text(POLICY, "utf-8")
    facts = {"account.id": "a1"} | ({} if tier is None else {"account.tier": tier})
    outcome = run("explain", "p.yaml", "--request", json.dumps(facts), "--used", used)

    assert outcome.code == 2
    assert why in outcome.err.replace("\n", " ")


def test_a_counter_that_stands_to_the_request_is_filled(run, folder):
    (folder / "p.yaml").write_text(POLICY, "utf-8")
    facts = json.dumps({"account.id": "a1", "account.tier": "free"})
    outcome = run("explain", "p.yaml", "--request", facts, "--used", "month=5")

    assert outcome.code == 0
    assert "by month" in outcome.out.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--request", "{account.id: a1}"), 'write `--request \'{"account.id": "a1"'),
        (("--request", "{}", "--tokens", "ten"), "`--tokens ten` is not an amount: write `50k`"),
        (
            ("--request", "{}", "--tokens", "unlimited"),
            "`--tokens unlimited` is not an amount: write `50k`, `1.5M`, `2G` or a whole number",
        ),
        (
            ("--request", '{"account.id": "a1", "account.tier": "free"}', "--used", "month=-1"),
            "`month=-1` is not an amount: write `50k`, `1.5M`, `2G` or a whole number",
        ),
        (
            ("--request", "{}", "--used", "month=5", "--used", "month=6"),
            "`--used month` is there twice: give one amount",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_write(run, folder, options, told):
    (folder / "p.yaml").write_text(POLICY, "utf-8")
    outcome = run("explain", "p.yaml", *options)

    assert outcome.code == 2
    assert told in outcome.err.replace("\n", " ")


def test_tokens_are_written_as_in_policies(run, folder):
    (folder / "p.yaml").write_text(POLICY, "utf-8")
    facts = '{"account.id": "a1", "account.tier": "free", "request.model": "small"}'
    asked = ("explain", "p.yaml", "--request", facts, "--format", "json")
    amounts = json.loads(run(*asked, "--tokens", "1.5k").out)["amounts"]

    assert amounts["cost_usd"] == 1500 + 100


def test_a_request_that_can_never_fit_is_told_by_how_much(run, folder):
    (folder / "p.yaml").write_text(
        "guardrail: 1\npolicy: p\nrules:\n"
        "  - {id: r, when: always, rate: {input_tokens: 2M/hour, burst: 500k, key: account.id}}\n"
        "  - {id: day, when: always, budget: {tokens: 5M, per: day, key: account.id}}\n"
        "tests:\n"
        "  - {name: large, facts: {account.id: a1}, steps: [{tokens: 9.9M, expect: allow}]}\n",
        "utf-8",
    )
    told = "it asks for 9,900,000 input_tokens at once and at most 500,000 fit; ask for less"
    explained = run(
        "explain", "p.yaml", "--request", '{"account.id": "a1"}', "--tokens", "9.9M"
    ).out

    assert " ".join(explained.split()).count(told) == 1
    assert told in " ".join(run("test", "p.yaml").out.split())
