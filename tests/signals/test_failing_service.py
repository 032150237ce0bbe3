"""A directory's service that is dead, slow, talking garbage, redirecting or endless."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from guardrail.signals.directory import Freshness
from guardrail.signals.directory.sources import MOST_BYTES, ServiceDirectory
from tests.signals import servers
from tests.signals.servers import Server, always, answer, raw
from tests.signals.services import (
    BAD,
    BANNED,
    GOOD,
    NEWCOMER,
    NOW,
    STRANGER,
    TIMES,
    VERIFIED,
    credential,
    directory,
    honest,
)


def hurry(who: ServiceDirectory) -> None:
    """From now on wait for no answer: those that do answer have been asked."""
    who._fetcher._timeout = 0.1
    who._cache.freshness = replace(who._cache.freshness, timeout=0.1)


@pytest.fixture
def service() -> Iterator[Server]:
    with Server(honest) as server:
        yield server


GARBAGE = {
    "not json": raw(b"<html>welcome</html>"),
    "cut off": raw(b'{"facts": {"account.id": "a1"'),
    "shorter than told": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "empty body": raw(b""),
    "a list": answer([VERIFIED]),
    "no facts": answer({"account.id": "a1", "account.tier": "verified"}),
    "facts are text": answer({"facts": "verified"}),
    "facts are false": answer({"facts": False}),
    "facts are empty": answer({"facts": {}}),
    "no account": answer({"facts": {"account.tier": "verified"}}),
    "an empty account": answer({"facts": {**VERIFIED, "account.id": ""}}),
    "an account that is a number": answer({"facts": {**VERIFIED, "account.id": 1}}),
    "a huge account": answer({"facts": {**VERIFIED, "account.id": "a" * 2000}}),
    "a tier that is a list": answer({"facts": {**VERIFIED, "account.tier": ["verified"]}}),
    "a time that is none": answer({"facts": {**VERIFIED, "account.created": "yesterday"}}),
    "a country that is none": answer({"facts": {**VERIFIED, "payment.country": "XX"}}),
    "seats that are a bool": answer({"facts": {**VERIFIED, "account.seats": True}}),
    "NaN": raw(b'{"facts": {"account.id": "a1", "account.seats": NaN}}'),
    "a name twice": raw(b'{"facts": null, "facts": {"account.id": "a1"}}'),
    "deep": raw(b'{"facts": ' + b"[" * 30_000),
    "not utf-8": raw(b'{"facts": {"account.id": "\xff"}}'),
    "compressed": raw(gzip.compress(b'{"facts": null}'), "200 OK", "content-encoding: gzip"),
    "too large": answer({"facts": {**VERIFIED, "more": "a" * MOST_BYTES}}),
    "our fault": answer({"facts": None}, "500 Internal Server Error"),
    "their fault": answer({"facts": None}, "401 Unauthorized"),
    "created": answer({"facts": VERIFIED}, "201 Created"),
    "a page for a wrong path": raw(b"<html>no such page</html>", "404 Not Found"),
    "a redirect": raw(b"", "302 Found", "location: http://127.0.0.1:1/"),
    "a great head": raw(b"{}", "200 OK", "x: " + "a" * 300_000),
}
SLOW = (servers.silent, servers.dripping, servers.endless)
FAULTS = {name: always(data) for name, data in GARBAGE.items()} | {
    "silent": servers.silent,
    "dripping": servers.dripping,
    "endless": servers.endless,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failing_service_turns_no_customer_away_and_promotes_nobody(service, fault, ask):
    who = directory(service, TIMES)
    for each in (GOOD, BAD, STRANGER):
        ask(who, each, NOW)
    service.respond = fault
    if fault in SLOW:
        hurry(who)

    for later in (31, 1000, 3600):
        assert ask(who, GOOD, NOW + later).facts == VERIFIED
        assert ask(who, BAD, NOW + later).facts == BANNED
        assert not ask(who, GOOD, NOW + later).unavailable
    for each in (STRANGER, NEWCOMER):
        nobody = ask(who, each, NOW + 1000)
        assert not nobody.facts
        assert nobody.unavailable == who.provides
    gone = ask(who, GOOD, NOW + 3601)
    assert not gone.facts
    assert gone.unavailable == who.provides >= VERIFIED.keys()
    banned = ask(who, BAD, NOW + 400 * 86_400)
    assert banned.facts == {"account.id": "a2", "enforcement.status": "banned"}
    assert "account.tier" in banned.unavailable
    (warning,) = who.warnings(NOW)
    assert f"http://127.0.0.1:{service.port}`" in warning
    assert "CANARY" not in warning
    who.close()


def test_a_dead_service_is_as_any_that_fails(service, ask):
    who = directory(service)
    for each in (GOOD, BAD):
        ask(who, each, NOW)
    service.close()

    assert ask(who, GOOD, NOW + 3600).facts == VERIFIED
    assert ask(who, BAD, NOW + 10**6).facts["enforcement.status"] == "banned"
    assert ask(who, NEWCOMER, NOW).unavailable == who.provides
    who.close()


@pytest.mark.parametrize("behaviour", SLOW)
def test_a_slow_service_holds_requests_for_the_time_out_and_then_no_more(service, behaviour):
    service.respond = behaviour
    who = directory(service, Freshness(timeout=0.3))
    begun = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda n: who.look_up(credential(f"k{n}"), NOW), range(50)))
    first = time.monotonic() - begun
    for number in range(400):
        who.look_up(credential(f"later {number}"), NOW)

    assert first < 5
    assert time.monotonic() - begun - first < 5
    # Had each waited, it would have been two minutes.
    assert len(service.bodies) <= 50
    who.close()


def test_a_service_that_recovers_is_found_again(service):
    service.respond = always(raw(b"", "503 Service Unavailable"))
    who = directory(service)
    for number in range(20):
        who.look_up(credential(f"k{number}"), NOW)
    asked = len(service.bodies)
    service.respond = honest

    assert who.look_up(GOOD, NOW).unavailable
    assert asked == 5
    assert who.look_up(GOOD, NOW + 2).facts == VERIFIED
    assert who.look_up(BAD, NOW + 2).facts == BANNED
    assert who.warnings(NOW) == ()
    who.close()
