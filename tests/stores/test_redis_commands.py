"""What a server hears: exactly one command a decision and one a settlement, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from contextlib import contextmanager
from typing import Any

import pytest
from hiredis import pack_command

from guardrail import AsyncGuard, Guard
from guardrail.loading import load_text
from guardrail.stores.redis import protocol, servers
from guardrail.stores.redis.store import RedisStore
from tests.cells.redis_stores import HASH_KEY, SERVERS
from tests.stores.servers import binaries, eventually

POLICY = """
guardrail: 1
policy: counted
rules:
  - {id: minute, when: always, rate: {requests: 600/minute, key: account.id}}
  - {id: day, when: always, budget: {tokens: 10M, per: day, key: account.id}}
  - {id: org, when: always, budget: {tokens: 10M, per: 24h, key: account.org}}
  - {id: flight, when: always, concurrency: {max: 50, key: account.id}}
"""
SETTINGS: dict[str, Any] = {"hash_key": HASH_KEY, "environ": {}}
ESTIMATE, USAGE = {"input_tokens": 40, "output_tokens": 30}, {"output_tokens": 5}
kinds = pytest.mark.parametrize("kind", binaries())


def facts(number):
    return {"account.id": f"a{number % 50}", "account.org": f"o{number % 7}"}


@contextmanager
def heard(server):
    """Give a tally of the commands that the server hears from clients, complete at the end."""
    tally: Tally[str] = Tally()
    with server.client as monitoring, monitoring.monitor() as monitor:
        yield tally
        server.client.echo("the end")
        for command in monitor.listen():
            name, _, rest = command["command"].partition(" ")
            if rest == "the end":
                break
            if command["client_type"] != "lua":
                tally[name.upper()] += 1
    # Our own client says hello before it says the end.
    for own in ("CLIENT", "HELLO", "SELECT"):
        tally.pop(own, None)


@kinds
def test_a_thousand_decisions_and_settlements_are_one_command_each(kind):
    server = SERVERS.empty(kind)
    guard = Guard.from_policies(load_text(POLICY), store=f"{server.uri}?deadline=5s", **SETTINGS)
    guard.settle(guard.decide(facts(0), ESTIMATE), USAGE)
    with heard(server) as tally:
        decisions = [guard.decide(facts(number), ESTIMATE) for number in range(500)]
        for decision in decisions:
            guard.settle(decision, USAGE)
    guard.close()

    assert all(decision.allowed and not decision.errors for decision in decisions)
    # A machine so slow that this takes ten seconds asks for the server's time once more.
    for command in ("TIME", "GET"):
        assert tally.pop(command, 0) <= 3
    assert tally == {"EVALSHA": 1000}


@kinds
def test_a_thousand_awaited_decisions_are_one_command_each(kind):
    server = SERVERS.empty(kind)

    async def crowd():
        store = f"{server.uri}?deadline=5s"
        guard = AsyncGuard.from_policies(load_text(POLICY), store=store, **SETTINGS)
        await guard.decide(facts(0), ESTIMATE)
        with heard(server) as tally:
            for _ in range(20):
                turn = [guard.decide(facts(number), ESTIMATE) for number in range(50)]
                decisions = await asyncio.gather(*turn)
                assert all(decision.mode.value == "normal" for decision in decisions)
        await guard.close()
        return tally

    assert asyncio.run(crowd()) == {"EVALSHA": 1000}


@kinds
def test_a_connection_opened_anew_does_not_ask_for_the_table_of_names_again(kind):
    server = SERVERS.empty(kind)
    with Guard.from_policies(
        load_text(POLICY), store=f"{server.uri}?deadline=5s", **SETTINGS
    ) as guard:
        assert not guard.decide(facts(0), ESTIMATE).errors
        server.client.client_kill_filter(_type="normal", skipme=True)
        with heard(server) as tally:

            def decided() -> bool:
                return guard.decide(facts(0), ESTIMATE).mode.value == "normal"

            eventually(decided)

    # It was opened anew, and asked whether it is still fit.
    assert tally["INFO"] >= 1
    assert tally["GET"] == 0


LINKED = """
guardrail: 1
policy: linked
facts:
  account.tier: {type: level, values: [email, verified], default: email}
links:
  trusted: {account.tier: {at_least: verified}}
  strong: [payment.fingerprint]
rules:
  - {id: actors, when: always, budget: {tokens: 10M, per: 30d, key: actor.id}}
  - {id: flight, when: always, concurrency: {max: 50, key: account.id}}
"""


def test_no_command_holds_a_number_that_an_interrupt_could_end_the_process_on(monkeypatch):
    server, sent = SERVERS.empty(next(iter(binaries()))), []

    def watched(command):
        sent.append(command)
        return pack_command(command)

    for module in (protocol, servers):
        monkeypatch.setattr(module, "packed", watched)
    store = f"{server.uri}?deadline=5s"
    guard = Guard.from_policies(load_text(LINKED), store=store, **SETTINGS)
    for account in "abc":
        known = {"account.id": account, "payment.fingerprint": "card"}
        guard.settle(guard.decide(known, ESTIMATE), USAGE)
        guard.renew(guard.decide(known, ESTIMATE))
    assert isinstance(guard._store, RedisStore)
    assert guard._store.every()
    guard.close()
    assert {"EVAL", "EVALSHA", "GET", "SCAN"} <= {_name(command) for command in sent}
    assert {type(part) for command in sent for part in command} <= {bytes, str}


def _name(command):
    return command[0].decode() if isinstance(command[0], bytes) else command[0]
