"""A service of identities that is dead, slow or talking garbage, seen through the whole door."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from guardrail.guard import Guard
from guardrail.signals.directory import Freshness, credential_id
from guardrail.signals.directory.sources import ServiceDirectory
from guardrail.testing import MovableClock
from guardrail.wsgi import GuardrailMiddleware
from tests.http.accounts import HASH_KEY
from tests.http.driving import ASK, Guarded, completion
from tests.http.servers import until
from tests.http.wsgi_driving import Hosted, answering
from tests.loaded import loaded
from tests.signals.servers import Server, always, answer, raw, silent

POLICY = """
guardrail: 1
policy: identity
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
models: {small: {max_output: 200}, large: {max_output: 200}}
rules:
  - {id: banned, when: {enforcement.status: banned}, unknown: skip, block: {reason: banned}}
  - id: large
    when: {request.model: large, account.tier: {below: verified}}
    block: {reason: verification_required, remedy: verify}
  - {id: calls, when: always, budget: {requests: 1000, per: day, key: account.id}}
"""
PEOPLE = {
    "key-good": {"account.id": "good", "account.tier": "verified"},
    "key-bad": {"account.id": "bad", "account.tier": "verified", "enforcement.status": "banned"},
    "key-mail": {"account.id": "mail", "account.tier": "email"},
}
KNOWN = {credential_id(key, HASH_KEY): facts for key, facts in PEOPLE.items()}
PROMOTING = {"account.tier": "verified", "enforcement.status": "unrestricted"}
STALE = 600.0


def honest(server, body):
    yield answer({"facts": KNOWN.get(json.loads(body)["credential"])})


FAULTS = {
    "dead": None,
    "slow": silent,
    "a page": always(raw(b"<html>all are welcome</html>")),
    "no account": always(answer({"facts": PROMOTING})),
    "a list": always(answer([PROMOTING])),
    "a tier that is none": always(answer({"facts": {"account.id": "x", "account.tier": 9}})),
    "its fault": always(answer({"facts": None}, "500 Internal Server Error")),
    "a redirect": always(raw(b"", "302 Found", "location: http://127.0.0.1:1/")),
}


class Door:
    """The whole door, over ASGI or WSGI, in front of a directory that can be broken."""

    def __init__(self, way, service, timeout):
        freshness = Freshness(timeout=timeout, stale=STALE)
        facts = loaded(POLICY).facts
        self.directory = ServiceDirectory(service.url, facts, freshness=freshness)
        if way == "asgi":
            guarded = Guarded(POLICY, directory=self.directory)
            self.clock, self.used = guarded.clock, guarded.used
            self.ask = lambda key, body: self._told(guarded.ask(body, key=key))
            return
        hosted = Hosted(answering([completion()]), POLICY)
        self.clock = MovableClock()
        guard = Guard.from_policies(loaded(POLICY), clock=self.clock, environ={})
        hosted.app = GuardrailMiddleware(
            answering([completion()]),
            guard=guard,
            clock=self.clock,
            environ={},
            hash_key=HASH_KEY,
            directory=self.directory,
        )
        self.ask = lambda key, body: hosted.ask(body=body, HTTP_AUTHORIZATION=f"Bearer {key}")[:2]

    def _told(self, call):
        return call.status, call.headers

    def status(self, key, model):
        return self.ask(key, ASK.replace(b'"small"', f'"{model}"'.encode()))[0]

    def statuses(self, *keys):
        return {key: (self.status(key, "small"), self.status(key, "large")) for key in keys}


def recovered(door, stranger):
    """Tell whether the service is heard; on a busy machine a call may end too late, once."""
    door.clock.advance(3600)
    return door.statuses(*PEOPLE, stranger) == {**BEFORE, stranger: (200, 403)}


@pytest.fixture
def service():
    with Server(honest) as server:
        yield server


@pytest.fixture(params=["asgi", "wsgi"])
def opened(request, service):
    """Return a function that opens the door, with how long it waits for the service."""
    with ExitStack() as stack:

        def get(timeout=10.0):
            found = Door(request.param, service, timeout)
            stack.callback(found.directory.close)
            return found

        yield get


BEFORE = {"key-good": (200, 200), "key-bad": (403, 403), "key-mail": (200, 403)}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_customer_is_turned_away_no_ban_ends_and_nobody_is_promoted(opened, service, fault):
    respond = FAULTS[fault]
    door = opened(0.5) if respond is silent else opened()
    assert until(lambda: recovered(door, "key-none"))
    if respond is None:
        service.close()
    else:
        service.respond = respond

    # What was known serves for as long as it may, whatever the service says meanwhile.
    for seconds in (31, STALE - 40):
        door.clock.advance(seconds)
        assert door.statuses(*PEOPLE) == BEFORE
    # Nobody knows who these are: that is our failure, and never theirs.
    assert door.statuses("key-none", "key-new") == {"key-none": (503, 503), "key-new": (503, 503)}
    door.clock.advance(60)
    assert door.statuses(*PEOPLE) == {
        "key-good": (503, 503),
        "key-bad": (403, 403),
        "key-mail": (503, 503),
    }
    _, headers = door.ask("key-good", ASK)
    assert int(headers["retry-after"]) >= 1
    assert "x-should-retry" not in headers
    if respond is not None:
        service.respond = honest
        assert until(lambda: recovered(door, "key-new"))


def test_a_ban_that_is_told_late_applies_at_once(opened, service):
    door = opened()
    assert door.status("key-good", "small") == 200
    KNOWN_NOW = {**KNOWN, credential_id("key-good", HASH_KEY): PEOPLE["key-bad"]}  # noqa: N806
    service.respond = lambda server, body: [
        answer({"facts": KNOWN_NOW[json.loads(body)["credential"]]})
    ]
    door.clock.advance(31)

    assert door.status("key-good", "small") == 403
