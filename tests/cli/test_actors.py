"""`guardrail actor`: what an operator is shown of an account, and what the commands change."""

from __future__ import annotations

import json

import pytest

from guardrail import Guard
from tests.cells.redis_stores import HASH_KEY, SERVERS

POLICY = """\
guardrail: 1
policy: actors
facts: {account.tier: {type: level, values: [free, verified]}}
links:
  trusted: {account.tier: verified}
  strong: [payment.fingerprint]
  weak: [client.network, device.fingerprint]
  exempt: {account.org: acme}
rules:
  - {id: pool, when: always, budget: {requests: 100, per: 30d, key: actor.id}}
"""
PAIR = {"client.network": "n", "device.fingerprint": "d"}


@pytest.fixture(params=["lmdb", "redis"])
def store(request, folder, monkeypatch):
    """Return the URI of a store in which `a`, `b`, `c` and the trusted `t` are one actor."""
    monkeypatch.setenv("GUARDRAIL_HASH_KEY", HASH_KEY.decode())
    (folder / "actors.yaml").write_text(POLICY)
    (folder / "db").mkdir()
    uri = f"lmdb://{folder}/db"
    if request.param == "redis":
        uri = SERVERS.empty("valkey 9").uri
    with Guard.load("actors.yaml", store=uri) as guard:
        for account, tier, shown in (
            ("a", "free", {"payment.fingerprint": "card"}),
            ("b", "free", {"payment.fingerprint": "card", **PAIR}),
            ("c", "free", PAIR),
            ("t", "verified", {"payment.fingerprint": "card"}),
        ):
            guard.decide({"account.id": account, "account.tier": tier, **shown})
    return uri


def shown(run, store, account, *more):
    outcome = run("actor", "show", account, "actors.yaml", "--store", store, *more)
    assert outcome.code == 0, outcome.err
    return outcome.out


def fields(run, store, account, *more):
    return json.loads(shown(run, store, account, "--format", "json", *more))


def test_a_trusted_account_is_shown_to_act_alone_whoever_it_is_linked_to(run, store):
    told = fields(run, store, "t")
    assert (told["actor"], told["trusted"], len(told["members"])) == ("t", True, 4)
    assert "acts as  t: alone, as it is trusted; linked: 4 accounts, of them 1 trusted" in shown(
        run, store, "t"
    )


def test_an_exempt_account_is_shown_to_act_alone_while_its_links_last(run, store):
    with Guard.load("actors.yaml", store=store) as guard:
        guard.decide({"account.id": "b", "account.tier": "free", "account.org": "acme"})
    told = fields(run, store, "b")
    assert (told["actor"], told["exempt"], told["trusted"]) == ("b", True, False)
    text = shown(run, store, "b")
    assert "acts as  b: alone, as it is exempt; linked: 4 accounts, of them 1 trusted" in text
    assert f"{told['name']} (this one) (exempt: it acts alone)" in text
    assert sum(member["exempt"] for member in fields(run, store, "a")["members"]) == 1


def test_an_account_that_was_taken_out_is_shown_to_act_alone(run, store):
    assert run("actor", "unlink", "a", "actors.yaml", "--store", store).code == 0
    assert fields(run, store, "a")["actor"] == "a"
    assert "acts as  a: 1 account, of them 0 trusted" in shown(run, store, "a")


def test_an_account_is_shown_with_its_members_its_links_and_their_reasons(run, store):
    told = fields(run, store, "b", "--to", "c")
    assert len(told["members"]) == 4
    assert sum(member["trusted"] for member in told["members"]) == 1
    assert [link["facts"] for link in told["links"]] == [
        ["payment.fingerprint"],
        ["client.network", "device.fingerprint"],
    ] or [link["facts"] for link in told["links"]] == [
        ["client.network", "device.fingerprint"],
        ["payment.fingerprint"],
    ]
    assert told["weakest"]["link"]["facts"] == ["client.network", "device.fingerprint"]
    assert fields(run, store, "a", "--to", "t")["weakest"]["link"]["facts"] == [
        "payment.fingerprint"
    ]
    text = shown(run, store, "b")
    assert "acts as  actor-" in text
    assert "4 accounts, of them 1 trusted" in text
    assert text.count(told["name"]) == 2


def test_an_appeal_takes_an_account_out_at_once_and_is_shown(run, store):
    outcome = run("actor", "unlink", "b", "actors.yaml", "--store", store)
    assert (outcome.code, outcome.err) == (0, "")
    told = fields(run, store, "b")
    assert (told["actor"], told["links"], len(told["members"])) == ("b", [], 1)
    assert told["apart_until"]
    assert len(fields(run, store, "a")["members"]) == 2
    with Guard.load("actors.yaml", store=store) as guard:
        decision = guard.decide({"account.id": "b", "account.tier": "free", **PAIR})
    assert decision.limits[0].used == 1  # what it had used by itself was nothing


def test_only_the_link_between_two_accounts_is_cut_if_that_is_asked(run, store):
    asked = ("actor", "unlink", "a", "actors.yaml", "--store", store, "--from", "c")
    assert run(*asked).code == 0
    assert len(fields(run, store, "a")["members"]) == 3
    assert len(fields(run, store, "c")["members"]) == 1
    again = run(*asked)
    assert (again.code, again.out) == (1, "no link ties a to c\n")


def test_what_is_erased_is_shown_no_more(run, store):
    assert run("actor", "erase", "b", "actors.yaml", "--store", store).code == 0
    told = fields(run, store, "b")
    assert (told["actor"], told["links"], told["apart_until"]) == ("b", [], None)
    assert len(fields(run, store, "c")["members"]) == 1


def test_links_in_another_processs_memory_cannot_be_shown(run, store):
    outcome = run("actor", "show", "a", "actors.yaml", "--store", "memory://")
    assert outcome.code == 2
    assert "in the memory of the process that serves" in outcome.err


def test_policies_without_links_have_no_actors(run, store):
    outcome = run("actor", "show", "a", "policies", "--store", store)
    assert outcome.code == 2
    assert "have no `links`" in outcome.err


def test_an_account_that_nobody_knows_acts_alone(run, store):
    told = fields(run, store, "nobody", "--to", "a")
    assert (told["actor"], told["links"], told["weakest"]["link"]) == ("nobody", [], None)
