"""A directory behind HTTP: what is asked, kept and taken for an answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from guardrail.errors import SettingError
from guardrail.signals.directory import Freshness, Identity
from tests.signals.servers import Server, always, answer, raw
from tests.signals.services import (
    BAD,
    BANNED,
    GOOD,
    NOW,
    STRANGER,
    VERIFIED,
    directory,
    honest,
)


@pytest.fixture
def service() -> Iterator[Server]:
    with Server(honest) as server:
        yield server


def test_a_service_tells_whose_a_credential_is(service, ask):
    who = directory(service, authorization="Bearer letmein")

    assert ask(who, GOOD, NOW) == Identity(VERIFIED, expires=NOW + 30)
    assert ask(who, STRANGER, NOW) == Identity(expires=NOW + 10)
    assert ask(who, BAD, NOW).facts == BANNED
    assert [ask(who, each, NOW + 9).known for each in (GOOD, BAD, STRANGER)] == [True, True, False]
    assert len(service.bodies) == 3
    assert all(head.startswith(b"POST /who HTTP/1.1\r\n") for head in service.heads)
    assert b"authorization: Bearer letmein" in service.heads[0]
    assert who.warnings(NOW) == ()
    assert b"CANARY" not in b"".join([*service.heads, *service.bodies])
    who.close()


def test_a_hundred_threads_and_tasks_make_one_call(service):
    def slow(server: Server, body: bytes) -> Iterator[bytes]:
        time.sleep(0.1)
        yield from honest(server, body)

    service.respond = slow
    who = directory(service, Freshness(timeout=5.0))

    async def tasks() -> list[Identity]:
        return await asyncio.gather(*(who.find(GOOD, NOW) for _ in range(100)))

    with ThreadPoolExecutor(101) as pool:
        loop = pool.submit(asyncio.run, tasks())
        found = list(pool.map(lambda _: who.look_up(GOOD, NOW), range(100))) + loop.result()

    assert len(service.bodies) == 1
    assert {identity.known for identity in found} == {True}
    who.close()


def test_a_redirect_is_not_followed(service):
    with Server(honest) as other:
        service.respond = always(raw(b"", "307 Temporary Redirect", f"location: {other.url}"))
        who = directory(service)

        assert who.look_up(GOOD, NOW).unavailable == who.provides
        assert not other.bodies
        assert "status 307" in who.warnings(NOW)[0]
        who.close()


def test_a_ban_applies_with_the_first_answer_that_tells_it_and_at_once_when_pushed(service, ask):
    told = dict(VERIFIED)
    service.respond = lambda server, body: [answer({"facts": told})]
    who = directory(service)
    ask(who, GOOD, NOW)
    told["enforcement.status"] = "banned"

    assert "enforcement.status" not in ask(who, GOOD, NOW + 30).facts
    assert ask(who, GOOD, NOW + 31).facts["enforcement.status"] == "banned"
    told["enforcement.status"] = "unrestricted"
    who.forget(GOOD.id)
    assert ask(who, GOOD, NOW + 31).facts["enforcement.status"] == "unrestricted"
    who.forget(GOOD.id)
    service.close()
    assert ask(who, GOOD, NOW + 32).unavailable == who.provides
    who.close()


def test_a_revoked_credential_is_unknown_although_it_was_known(service, ask):
    who = directory(service)
    ask(who, GOOD, NOW)
    service.respond = always(answer({"facts": None}, "404 Not Found"))

    assert ask(who, GOOD, NOW + 31) == Identity(expires=NOW + 41)
    who.close()


def test_a_value_unknown_to_the_policies_grants_nothing_and_is_not_left_out(service):
    told = {"account.id": "a1", "account.tier": "platinum", "enforcement.status": "frozen"}
    service.respond = always(answer({"facts": told}))
    who = directory(service)

    # Left out, a default could stand in its place; as it is, the decision takes it as missing.
    assert who.look_up(GOOD, NOW).facts == told
    who.close()


def test_what_is_not_a_directorys_to_say_is_not_taken(service):
    more = {
        "client.ip": "8.8.8.8",
        "geo.country": "DE",
        "credential.id": "x",
        "actor.trusted_accounts": 9,
        "request.capability": "chat",
        "app.name": "x",
        "time.hour": 3,
        "never.declared": "x",
        "account.org": None,
    }
    service.respond = always(answer({"facts": {**VERIFIED, **more, "account.seats": 3}}))
    narrow = directory(service, provides=["account.tier"])
    wide = directory(service)

    assert narrow.look_up(GOOD, NOW).facts == {"account.id": "a1", "account.tier": "verified"}
    assert wide.look_up(GOOD, NOW).facts == {
        "account.id": "a1",
        "account.tier": "verified",
        "account.seats": 3,
    }
    assert narrow.provides == {"account.id", "account.tier"}
    assert not any(name in wide.provides for name in more if name != "account.org")
    narrow.close()
    wide.close()


@pytest.mark.parametrize(
    ("url", "given", "message"),
    [
        ("http://directory.internal/who", {}, "`http://directory.internal` is not encrypted"),
        ("https://u:CANARY@host/", {}, "holds a password"),
        ("ftp://host/", {}, "starts with `https://`"),
        ("https:///who", {}, "names a host"),
        ("", {}, "starts with `https://`"),
        ("https://host/", {"provides": ["geo.country"]}, "not a directory's to say"),
        ("https://host/", {"provides": ["account.teir"]}, "no policy declares it"),
        ("https://host/", {"provides": ["app.name"]}, "cannot establish `app.name`"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(url, given, message):
    with pytest.raises(SettingError) as caught:
        directory(url, **given)

    assert message in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_a_child_process_asks_on_its_own(service):
    who = directory(service, Freshness(ttl=1, timeout=5.0))
    who.look_up(GOOD, NOW)
    child = os.fork()
    if child == 0:
        known = who.look_up(GOOD, NOW + 2).known and who.look_up(BAD, NOW).known
        os._exit(0 if known else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert who.look_up(GOOD, NOW + 5).known
    who.close()
    assert who.look_up(GOOD, NOW + 10).known
    who.close()
