"""A directory that is a function of the host's: plain or async, asked from threads or tasks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from guardrail.model.facts import STANDARD_FACTS
from guardrail.signals.directory import Credential, CredentialKind, Freshness, Identity, Secret
from guardrail.signals.directory.sources import CallableDirectory
from tests.signals.servers import eventually

NOW = 1_780_000_000.0
GOOD = Credential("good", CredentialKind.BEARER, Secret(b"sk-CANARY"))
NOBODY = Credential("nobody", CredentialKind.BEARER, Secret(b"sk-no"))
FACTS = {"account.id": "a1"}
PATIENT = Freshness(timeout=10)


def plain(credential):
    return FACTS if credential.secret.reveal() == b"sk-CANARY" else None


async def later(credential):
    await asyncio.sleep(0)
    return plain(credential)


class Callable:
    async def __call__(self, credential):
        return plain(credential)


@pytest.mark.parametrize("function", [plain, later, Callable()], ids=["plain", "async", "object"])
def test_a_function_is_asked_from_threads_and_from_tasks(function):
    who = CallableDirectory(function, STANDARD_FACTS, freshness=PATIENT)

    assert who.look_up(GOOD, NOW) == Identity(FACTS, expires=NOW + 30)
    assert asyncio.run(who.find(NOBODY, NOW)) == Identity(expires=NOW + 10)
    assert who.look_up(NOBODY, NOW).known is False
    assert asyncio.run(who.find(GOOD, NOW + 31)).facts == FACTS
    who.close()


@pytest.mark.parametrize(
    ("told", "name", "level"),
    [
        ({"enforcement.status": "BANNED"}, "enforcement.status", "CRITICAL"),
        ({"account.tier": "platinum"}, "account.tier", "ERROR"),
        ({"enforcement.status": "banned", "account.tier": "paid"}, None, None),
        ({"enforcement.status": None}, None, None),
    ],
)
def test_a_value_that_is_none_of_those_listed_is_said_at_once(told, name, level, caplog):
    tier = replace(STANDARD_FACTS["account.tier"], values=("free", "paid"))
    facts = {**STANDARD_FACTS, "account.tier": tier}
    who = CallableDirectory(lambda credential: {**FACTS, **told}, facts, freshness=PATIENT)
    lines = []
    for moment in (0, 1, 31, 62):
        caplog.clear()
        who.look_up(GOOD, NOW + moment)
        lines.append([(line.levelname, line.getMessage()) for line in caplog.records])
    who.close()

    if name is None:
        assert lines == [[], [], [], []]
        return
    ((said, text),) = lines[0]
    assert (said, f"tells a value of `{name}` that is none of its values" in text) == (level, True)
    assert ("a ban is perhaps not in force" in text) is (level == "CRITICAL")
    assert told[name] not in text
    # The answer is asked for anew after half a minute, and said again after a whole one.
    assert lines[1:] == [[], [], lines[0]]


def test_an_async_function_runs_on_the_loop_of_who_asks():
    loops = []

    async def seen(credential):
        loops.append(asyncio.get_running_loop())
        return FACTS

    who = CallableDirectory(seen, STANDARD_FACTS, freshness=PATIENT)

    async def scene():
        await who.find(GOOD, NOW)
        return asyncio.get_running_loop()

    assert asyncio.run(scene()) is loops[0]
    who.look_up(NOBODY, NOW)
    assert loops[1] is not loops[0]
    who.close()


def waiting(kind, calls, go):
    """Return a function that notes its calls and answers once it is told to."""

    def slow(credential):
        calls.append(credential)
        go.wait(10)
        return FACTS

    async def slowly(credential):
        calls.append(credential)
        while not go.is_set():
            await asyncio.sleep(0.001)
        return FACTS

    return slow if kind == "plain" else slowly


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_hundred_threads_and_a_hundred_tasks_call_once(kind):
    calls: list[object] = []
    go = threading.Event()
    who = CallableDirectory(waiting(kind, calls, go), STANDARD_FACTS, freshness=PATIENT)
    asking: list[None] = []

    def look_up(_):
        asking.append(None)
        return who.look_up(GOOD, NOW)

    async def find():
        asking.append(None)
        return await who.find(GOOD, NOW)

    async def tasks():
        return await asyncio.gather(*(find() for _ in range(100)))

    with ThreadPoolExecutor(102) as pool:
        loop = pool.submit(asyncio.run, tasks())
        threads = pool.map(look_up, range(100))
        assert eventually(lambda: len(asking) == 200)
        go.set()
        found = [*threads, *loop.result()]

    assert len(calls) == 1
    assert found == [Identity(FACTS, expires=NOW + 30)] * 200
    who.close()


def test_to_raise_is_to_fail_and_shows_nothing_of_it():
    def broken(credential):
        raise RuntimeError(f"no row for {credential.secret.reveal()!r}")

    who = CallableDirectory(broken, STANDARD_FACTS, freshness=PATIENT)

    for identity in (who.look_up(GOOD, NOW), asyncio.run(who.find(GOOD, NOW + 5))):
        assert identity.unavailable == who.provides
        assert "CANARY" not in repr(identity)
    assert "RuntimeError" in who.warnings(NOW)[0]
    assert "CANARY" not in who.warnings(NOW)[0]


@pytest.mark.parametrize("told", [[], "a1", 3, {"account.id": 3}, {}, {1: 2}, True])
def test_garbage_is_a_failure(told):
    who = CallableDirectory(lambda credential: told, STANDARD_FACTS)

    assert who.look_up(GOOD, NOW).unavailable == who.provides


def test_a_function_that_never_returns_holds_a_request_for_the_time_out():
    forever = threading.Event()

    def hang(credential):
        forever.wait(60)

    who = CallableDirectory(hang, STANDARD_FACTS, freshness=Freshness(timeout=0.05))

    async def scene():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        found = await who.find(GOOD, NOW)
        ticking.cancel()
        return found, ticks

    found, ticks = asyncio.run(scene())
    assert found.unavailable == who.provides
    assert ticks > 2
    assert "no answer within 0.05 s" in who.warnings(NOW)[0]
    forever.set()


def test_the_end_of_a_loop_ends_its_call_as_a_failure():
    async def forever(credential):
        await asyncio.sleep(60)

    who = CallableDirectory(forever, STANDARD_FACTS, freshness=Freshness(timeout=0.05))

    assert asyncio.run(who.find(GOOD, NOW)).unavailable == who.provides
    assert not who._cache._calls
    assert who.look_up(GOOD, NOW + 5).unavailable == who.provides
    who.close()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"account.id": 42}, "`account.id` is `int`, not of type string"),
        ({"account.id": ""}, "`account.id` is empty"),
        ({"account.tier": "verified"}, "it names no `account.id`"),
        (["a1"], "an answer that is no mapping of facts"),
        (RuntimeError("password=SECRET"), "RuntimeError in test_callable_directory.py, line"),
    ],
)
def test_a_function_that_tells_no_identity_or_raises_is_logged_at_once(ask, caplog, told, said):
    def broken(credential):
        if isinstance(told, Exception):
            raise told
        return told

    who = CallableDirectory(broken, STANDARD_FACTS)
    found = ask(who, GOOD, NOW)

    assert (found.facts, found.unavailable) == ({}, who.provides)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert said in caplog.text
    assert "broken` failed" in caplog.text
    assert "SECRET" not in caplog.text
    assert who.health == (1, True, 0)
    for second in range(2, 50, 2):
        ask(who, GOOD, NOW + second)
    assert len(caplog.records) == 1

    who._function = lambda credential: {"account.id": "a1"}
    assert ask(who, GOOD, NOW + 600).known
    assert caplog.records[-1].getMessage().endswith("answers again")
    assert not who.health.failing
    who.close()
