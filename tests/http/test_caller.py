"""Who asks, from a whole request: what counts, what a client says of itself, what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from guardrail import Guard
from guardrail.http.identity import CallerResolver, CredentialSource
from guardrail.loading import load_text
from guardrail.signals import Proxies
from guardrail.signals.directory import Credential, Freshness, Identity, credential_id
from guardrail.signals.directory.sources import CallableDirectory

NOW = 1_780_000_000.0
HASH_KEY = b"k" * 32
POLICY = """
guardrail: 1
policy: door
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
  enforcement.status:
    {type: enum, values: [unrestricted, pending, restricted, banned], default: unrestricted}
rules:
  - id: banned
    when: {enforcement.status: banned}
    block: {reason: account_banned}
  - id: verified-only
    when: {account.tier: {below: verified}}
    unknown: match
    block: {reason: verification_required}
"""
PEOPLE: Mapping[str, Mapping[str, object]] = {
    "sk-good": {"account.id": "a1", "account.tier": "verified"},
    "sk-bad": {"account.id": "a2", "account.tier": "verified", "enforcement.status": "banned"},
    "sk-mail": {"account.id": "a3", "account.tier": "email"},
    "sk-odd": {"account.id": "a4", "account.tier": "VERIFIED", "enforcement.status": "frozen"},
}


class People:
    """A source that a test can break."""

    def __init__(self) -> None:
        self.told: object = None
        self.broken = False

    def __call__(self, credential: Credential) -> object:
        if self.broken:
            if isinstance(self.told, Exception):
                raise self.told
            return self.told
        return PEOPLE.get(credential.secret.reveal().decode())


@pytest.fixture(scope="module")
def guard():
    with Guard.from_policies(load_text(POLICY)) as found:
        yield found


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def callers(guard, people) -> CallerResolver:
    directory = CallableDirectory(
        people, guard.policies.facts, freshness=Freshness(timeout=10.0, stale=600)
    )
    return CallerResolver(
        hash_key=HASH_KEY,
        proxies=Proxies.declare(["10.0.0.0/8"]),
        reads=CredentialSource.of("bearer"),
        directory=directory,
    )


def request(key: str | None, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    carried = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    return [*carried, (b"x-forwarded-for", b"6.6.6.6, 8.8.8.8"), *more]


def status(guard: Guard, found: Identity) -> int:
    """Return the status that a decision on these facts has at the door, 200 if admitted."""
    frame = guard._context
    decision = frame.plan(found.facts, None, NOW, found.unavailable).unasked()
    return 200 if decision.allowed else decision.status or 403


def test_a_request_is_known_by_its_connection_and_its_credential(callers):
    caller = callers.read("10.0.0.2", request("sk-good"))
    expected = {
        "client.ip": "8.8.8.8",
        "credential.id": credential_id("sk-good", HASH_KEY),
        **PEOPLE["sk-good"],
    }

    assert callers.look_up(caller, NOW).facts == expected
    assert asyncio.run(callers.find(caller, NOW)).facts == expected


def test_an_unknown_credential_has_an_id_and_no_account(callers):
    found = callers.look_up(callers.read("10.0.0.2", request("sk-none")), NOW)

    assert found.facts.keys() == {"client.ip", "credential.id"}
    assert not found.known
    assert not found.unavailable


def test_without_a_credential_or_a_directory_the_connection_is_all_there_is(callers):
    for key in (None, "", "  "):
        caller = callers.read("10.0.0.2", request(key))
        assert callers.look_up(caller, NOW) == Identity({"client.ip": "8.8.8.8"})
        assert asyncio.run(callers.find(caller, NOW)) == Identity({"client.ip": "8.8.8.8"})
    alone = CallerResolver(hash_key=HASH_KEY)
    found = alone.look_up(alone.read("8.8.8.8", request("sk-good")), NOW)
    assert found.facts.keys() == {"client.ip", "credential.id"}
    assert alone.warnings(NOW) == ()


def test_what_a_client_says_of_itself_raises_nothing(callers):
    claims = [
        (b"x-user-id", b"a1"),
        (b"x-api-key", b"sk-good"),
        (b"anthropic-user-profile-id", b"a1"),
        (b"openai-organization", b"o1"),
        (b"x-account-tier", b"verified"),
        (b"safety-identifier", b"a1"),
        (b"x-forwarded-client-cert", b"Subject=a1"),
        (b"cookie", b"key=sk-good"),
    ]
    plain = callers.look_up(callers.read("10.0.0.2", request("sk-mail")), NOW)
    claimed = callers.look_up(
        callers.read("10.0.0.2", request("sk-mail", *claims), b"key=sk-good&user=a1"), NOW
    )

    assert claimed == plain


def test_warnings_are_said_once_and_are_bounded(callers):
    private = CallerResolver(hash_key=HASH_KEY)
    for number in range(1000):
        private.read(f"10.0.{number // 250}.{number % 250}", request("sk-good"))
        callers.read("10.0.0.2", [(b"x-forwarded-for", f"garbage{number}".encode())])

    assert len(private.warnings(NOW)) == 1
    assert "no proxy is declared" in private.warnings(NOW)[0]
    assert len(callers.warnings(NOW)) == 1
    assert "garbage" not in callers.warnings(NOW)[0]


BREAKS = {
    "raises": RuntimeError("down"),
    "a list": [],
    "text": "verified",
    "no account": {"account.tier": "verified"},
    "ill-typed": {"account.id": "a1", "account.tier": 3},
}


@pytest.mark.parametrize("told", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("way", ["threads", "tasks"])
def test_a_failing_source_refuses_no_customer_frees_no_one_and_promotes_nobody(
    guard, callers, people, told, way
):
    def at(key: str, now: float) -> int:
        caller = callers.read("10.0.0.2", request(key))
        found = (
            callers.look_up(caller, now)
            if way == "threads"
            else asyncio.run(callers.find(caller, now))
        )
        return status(guard, found)

    before = {key: at(key, NOW) for key in (*PEOPLE, "sk-none")}
    assert before == {"sk-good": 200, "sk-bad": 403, "sk-mail": 403, "sk-odd": 403, "sk-none": 403}
    people.broken, people.told = True, told

    for later in (31, 600):
        assert {key: at(key, NOW + later) for key in PEOPLE} == {key: before[key] for key in PEOPLE}
    for later in (601, 10**6):
        assert at("sk-good", NOW + later) == 503
        assert at("sk-mail", NOW + later) == 503
        assert at("sk-bad", NOW + later) == 403
    assert at("sk-none", NOW + 11) == 503
    assert at("sk-new", NOW + 11) == 503
    people.broken = False
    assert {key: at(key, NOW + 2 * 10**6) for key in before} == before
