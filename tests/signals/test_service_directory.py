"""A directory behind HTTP that is well, dead, slow, talking garbage, redirecting or endless."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from guardrail.errors import SettingError
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.signals.directory import Credential, Identity, Secret, credential_id
from guardrail.signals.directory.identity import CredentialKind
from guardrail.signals.directory.kept import Freshness
from guardrail.signals.directory.service import MOST_BYTES, ServiceDirectory
from tests.signals import servers
from tests.signals.servers import Server, always, answer, eventually, raw

NOW = 1_780_000_000.0
FACTS = {
    **STANDARD_FACTS,
    "account.tier": replace(STANDARD_FACTS["account.tier"], values=("email", "verified")),
    "account.seats": Fact(name="account.seats", type=FactType.INTEGER, source=Source.SERVER),
    "app.name": Fact(name="app.name", type=FactType.STRING, source=Source.CLIENT),
}
TIMES = Freshness(timeout=0.3)
HASH_KEY = b"k" * 32
VERIFIED = {"account.id": "a1", "account.tier": "verified", "account.org": "o1"}
BANNED = {"account.id": "a2", "account.tier": "email", "enforcement.status": "banned"}


def credential(key: str) -> Credential:
    return Credential(credential_id(key, HASH_KEY), CredentialKind.BEARER, Secret(key.encode()))


GOOD, BAD, STRANGER, NEWCOMER = map(credential, ("sk-CANARY", "sk-bad", "sk-no", "sk-new"))
KNOWN = {GOOD.id: VERIFIED, BAD.id: BANNED}


def honest(server: Server, body: bytes) -> Iterable[bytes]:
    asked = json.loads(body)
    assert asked.keys() == {"credential"}
    yield answer({"facts": KNOWN.get(asked["credential"])})


@pytest.fixture
def service() -> Iterator[Server]:
    with Server(honest) as server:
        yield server


def directory(server: Server | str, times: Freshness = TIMES, **given: object) -> ServiceDirectory:
    url = server if isinstance(server, str) else server.url
    return ServiceDirectory(url, FACTS, freshness=times, **given)  # type: ignore[arg-type]


@pytest.fixture(params=["threads", "tasks"])
def ask(request):
    """Return a way to ask a directory, from a thread or from a task."""
    if request.param == "threads":
        return lambda found, who, now: found.look_up(who, now)
    return lambda found, who, now: asyncio.run(found.find(who, now))


def test_a_service_tells_whose_a_credential_is(service, ask):
    who = directory(service, authorization="Bearer letmein")

    assert ask(who, GOOD, NOW) == Identity(VERIFIED, expires=NOW + 30)
    assert ask(who, STRANGER, NOW) == Identity(expires=NOW + 10)
    assert ask(who, BAD, NOW).facts == BANNED
    assert [ask(who, each, NOW + 9).known for each in (GOOD, BAD, STRANGER)] == [True, True, False]
    assert len(service.bodies) == 3
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
FAULTS = {name: always(data) for name, data in GARBAGE.items()} | {
    "silent": servers.silent,
    "dripping": servers.dripping,
    "endless": servers.endless,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failing_service_turns_no_customer_away_and_promotes_nobody(service, fault, ask):
    who = directory(service)
    for each in (GOOD, BAD, STRANGER):
        ask(who, each, NOW)
    service.respond = fault

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


@pytest.mark.parametrize("behaviour", [servers.silent, servers.dripping, servers.endless])
def test_a_slow_service_holds_requests_for_the_time_out_and_then_no_more(service, behaviour):
    service.respond = behaviour
    who = directory(service)
    begun = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda n: who.look_up(credential(f"k{n}"), NOW), range(50)))
    first = time.monotonic() - begun
    for number in range(200):
        who.look_up(credential(f"later {number}"), NOW)

    assert first < 3
    assert time.monotonic() - begun - first < 1
    assert eventually(lambda: len(service.bodies) >= 5)
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
