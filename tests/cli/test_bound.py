"""What `guardrail bound` refuses, and how its parts agree with each other."""

from __future__ import annotations

import json

import pytest

TIERED = """\
guardrail: 1
policy: tiered
facts:
  account.tier: {type: level, values: [email, verified], default: email}
  x.room: {type: number, source: server}
  x.vip: {type: bool, source: server}
  x.groups: {type: list, source: server}
rules:
  - id: ever
    when: {account.tier: email}
    budget: {requests: 5, per: lifetime, key: account.id}
  - id: one-identity
    when: {account.tier: verified}
    budget: {requests: {fact: x.room, else: 7}, per: lifetime, key: kyc.subject}
exemptions:
  - {id: vip, rules: [ever], when: {x.vip: true}, reason: agreed, expires: 2198-12-31}
"""


@pytest.fixture(autouse=True)
def tiered(folder):
    """A second policy, with tiers and an exemption."""
    (folder / "tiered.yaml").write_text(TIERED)


def told(run, *options: str) -> dict[tuple[str, bool | None], float | None]:
    """Return the bounds of requests for ever, by tier and identity."""
    outcome = run("bound", "tiered.yaml", "--window", "ever", "--format", "json", *options)
    assert outcome.code == 0, outcome.err
    return {
        (bound["profile"]["tier"], bound["profile"]["identity"]): bound["most"]
        for bound in json.loads(outcome.out)["bounds"]
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "year"], "`--window year` is not known: write day, month, ever"),
        (["--tier", "gold"], "no level `gold`: its levels are email, verified"),
        (["--identity-from", "gold"], "no level `gold`: its levels are email, verified"),
        (["--accounts", "5", "--trusted", "6"], "`--trusted 6` are more than the accounts"),
        (["--assume", "x.vip"], "`--assume x.vip` is not `FACT=VALUE`"),
        (["--assume", "x.vap=true"], "names no fact of the policies: `x.vap`"),
        (["--assume", "x.vip=yes"], "`yes` is no value of `x.vip`"),
        (["--assume", "x.room=much"], "`much` is no value of `x.room`"),
        (["--assume", "request.model=large"], "`request.model` is what the caller says it is"),
        (["--assume", "account.tier=email"], "say that with `--tier`"),
        (["--assume", "kyc.subject="], "say that with `--identities`"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, options, said):
    outcome = run("bound", "tiered.yaml", *options)

    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""


def test_a_policy_that_does_not_load_has_no_bound(run):
    outcome = run("bound", "broken")

    assert outcome.code == 3
    assert "GR105" in outcome.out + outcome.err


def test_what_is_not_known_is_at_its_worst_until_it_is_assumed(run):
    assert told(run, "--tier", "email", "--identity-from", "verified") == {("email", False): None}
    for value in ("false", ""):
        found = told(run, "--identity-from", "verified", "--assume", f"x.vip={value}")
        assert found == {("email", False): 5000, ("verified", True): None}
    found = told(run, "--tier", "verified", "--identities", "3", "--assume", "x.room=2.9")
    assert found == {("verified", False): 2000, ("verified", True): 6}
    found = told(run, "--tier", "verified", "--assume", "x.room=", "--accounts", "10")
    assert found == {("verified", False): 70, ("verified", True): 70}


def test_accounts_that_cannot_be_take_nothing(run):
    found = told(run, "--tier", "verified", "--identities", "0", "--assume", "x.room=2")

    assert found == {("verified", False): 2000, ("verified", True): 0}


def test_a_list_can_be_assumed(run):
    assert run("bound", "tiered.yaml", "--assume", "x.groups=a,b").code == 0


def test_the_trusted_are_added_to_the_others(run):
    options = ["--identity-from", "verified", "--trusted", "4", "--accounts", "10"]
    options += ["--assume", "x.vip=", "--assume", "x.room=7"]
    outcome = run("bound", "tiered.yaml", *options)

    assert "10 accounts, 4 of them with a verified identity, x.vip = None" in outcome.out
    together = outcome.out.partition("all together")[2].split()
    assert together == "any requests a day, 30 days, ever 78".split()


def test_policies_that_refuse_nothing_bound_nothing(run, folder):
    (folder / "open.yaml").write_text(
        "guardrail: 1\npolicy: open\nrules:\n"
        "  - {id: less, when: always, degrade: {max_output_tokens: 9}}\n"
    )
    outcome = run("bound", "open.yaml", "--accounts", "1", "--cards", "1", "--identities", "1")

    assert outcome.code == 0
    assert "1 account, 1 identity, 1 card" in outcome.out
    assert "unbounded  no rule limits requests of all of them" in outcome.out


def test_check_tells_the_worst_of_each_tier(run):
    full = run("check", "tiered.yaml", "--allow-empty").out
    fields = json.loads(run("check", "tiered.yaml", "--allow-empty", "--format", "json").out)
    found = {(b["tier"], b["period"]): b["most"] for b in fields["bounds"]}

    assert "the most that 1,000 accounts can take" in full
    assert "email     any: unbounded" in full
    assert found == {
        (tier, period): None
        for tier in ("email", "verified")
        for period in ("day", "month", "ever")
    }


@pytest.mark.parametrize(
    ("trusted", "options", "tiers"),
    [
        ("{account.tier: verified, account.verified_age: {gte: 60d}}", [], ["verified"]),
        ("{account.verified_age: {gte: 60d}}", [], None),
        ("{not: {account.tier: verified}}", [], ["email"]),
        ("{any: [{account.tier: email}, {x.vip: true}]}", [], None),
        ("{any: [{account.tier: email}, {x.vip: true}]}", ["--assume", "x.vip=false"], ["email"]),
        ("{account.tier: email, x.vip: true}", ["--assume", "x.vip="], []),
    ],
)
def test_who_is_trusted_is_read_from_the_links(run, folder, trusted, options, tiers):
    links = f"links: {{trusted: {trusted}, strong: [payment.fingerprint]}}\n"
    by_actor = "  - {id: pool, when: always, budget: {requests: 9, per: 30d, key: actor.id}}\n"
    text = TIERED.replace("exemptions:", by_actor + "exemptions:") + links
    (folder / "tiered.yaml").write_text(text)
    outcome = run("bound", "tiered.yaml", "--format", "json", *options)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["trusted"]["tiers"] == tiers
    shown = run("bound", "tiered.yaml", *options).out
    (line,) = (line for line in shown.splitlines() if line.startswith("trusted"))
    said = {"None": "accounts of any tier", "[]": "no account of these"}.get(str(tiers))
    assert line.startswith(f"trusted  {said or 'accounts of ' + tiers[0]}, by `links`: ")


def test_policies_without_links_say_nothing_of_trust(run):
    assert json.loads(run("bound", "tiered.yaml", "--format", "json").out)["trusted"] is None
    assert "trusted" not in run("bound", "tiered.yaml").out
