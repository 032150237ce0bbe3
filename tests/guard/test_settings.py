"""What a guard takes from its arguments and the environment, and what it warns of."""

from __future__ import annotations

import logging
import multiprocessing
import os
from fractions import Fraction

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.errors import SettingError
from guardrail.loading import load_text
from guardrail.stores.memory import AsyncMemoryStore, MemoryStore
from guardrail.testing import MovableClock
from tests.guard.failing import DOWN, HEAD, KNOWN, Driver, ScriptedStore

DAILY = "  - {id: daily, when: always, budget: {requests: 100, per: day, key: account.id}}\n"
HOURLY = DAILY.replace("day", "hour")
LONG = {
    "calendar": DAILY,
    "rolling": DAILY.replace("day", "61m"),
    "lifetime": DAILY.replace("day", "lifetime"),
    "rate": "  - {id: daily, when: always, rate: {requests: 9/day, key: account.id}}\n",
    "distinct": "  - {id: daily, when: always, "
    "distinct: {count: client.ip, max: 9, per: 2h, key: account.id}}\n",
    "ban": "  - {id: daily, when: always, rate: {requests: 9/minute, key: account.id}, "
    "escalate: {after: 5, within: 1m, block_for: 2h}}\n",
}
SHORT = {
    "calendar": HOURLY,
    "rolling": DAILY.replace("day", "1h"),
    "off": DAILY.replace("when", "mode: off, when"),
    "lease": "  - {id: r, when: always, concurrency: {max: 9, lease: 2h, key: account.id}}\n",
}


@pytest.fixture
def folder(tmp_path):
    def written(rules):
        (tmp_path / "p.yaml").write_text(HEAD + rules)
        return tmp_path

    return written


@pytest.mark.parametrize(
    ("environ", "share"),
    [
        ({}, 25),
        ({"WEB_CONCURRENCY": "5"}, 20),
        ({"WEB_CONCURRENCY": "1"}, 100),
        ({"WEB_CONCURRENCY": "many"}, 25),
        ({"WEB_CONCURRENCY": "0"}, 25),
        ({"WEB_CONCURRENCY": "5", "GUARDRAIL_LOCAL_SHARE": "1/10"}, 10),
        ({"GUARDRAIL_LOCAL_SHARE": "0.5"}, 50),
    ],
)
def test_the_share_comes_from_the_environment(environ, share):
    with Driver("sync", DAILY, environ=environ) as driver:
        driver.store.fault = DOWN
        assert driver.decide(KNOWN).limits[0].limit == share
    with Driver("sync", DAILY, environ=environ, local_share=Fraction(1, 50)) as driver:
        driver.store.fault = DOWN
        assert driver.decide(KNOWN).limits[0].limit == 2


@pytest.mark.parametrize("written", ["2/3", "0", "-1/4", "1/0", "a quarter", "2", "nan"])
def test_a_share_that_is_no_part_is_an_error(written):
    with pytest.raises(SettingError, match="GUARDRAIL_LOCAL_SHARE"):
        Guard.from_policies(load_text(HEAD + DAILY), environ={"GUARDRAIL_LOCAL_SHARE": written})
    with pytest.raises(SettingError, match="local_share"):
        Guard.from_policies(load_text(HEAD + DAILY), environ={}, local_share=Fraction(2, 3))


@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
@pytest.mark.parametrize("rules", LONG.values(), ids=LONG.keys())
def test_memory_by_default_warns_once_of_what_a_restart_forgets(folder, caplog, kind, rules):
    guard = kind.load(folder(rules), environ={})

    assert [record.name for record in caplog.records] == ["guardrail"]
    assert caplog.records[0].levelno == logging.WARNING
    assert "`daily` counts for longer than an hour" in caplog.text
    assert guard.warnings() == (caplog.messages[0],)


@pytest.mark.parametrize("rules", SHORT.values(), ids=SHORT.keys())
def test_what_a_restart_may_forget_warns_of_nothing(folder, caplog, rules):
    assert (Guard.load(folder(rules), environ={}).warnings(), caplog.records) == ((), [])


@pytest.mark.parametrize("store", ["memory://", MemoryStore(), ScriptedStore()])
def test_a_store_that_was_named_does_not_warn_of_windows(folder, caplog, store):
    guard = Guard.load(folder(DAILY), store=store, environ={})

    assert (guard.warnings(), caplog.records) == ((), [])


@pytest.mark.parametrize(
    ("environ", "sign"),
    [
        ({"WEB_CONCURRENCY": "4"}, "`WEB_CONCURRENCY` is `4`"),
        ({"SERVER_SOFTWARE": "gunicorn/23.0.0"}, "gunicorn started it"),
    ],
)
@pytest.mark.parametrize("store", [None, "memory://", AsyncMemoryStore()])
def test_memory_in_one_of_several_processes_warns(folder, caplog, environ, sign, store):
    guard = AsyncGuard.load(folder(HOURLY), store=store, environ=environ)

    assert f"one of several processes ({sign})" in caplog.text
    assert guard.warnings() == tuple(caplog.messages)


def test_a_single_worker_may_say_so(folder, caplog):
    environ = {"SERVER_SOFTWARE": "gunicorn/23.0.0", "WEB_CONCURRENCY": "1"}
    Guard.load(folder(HOURLY), environ=environ)

    assert caplog.records == []


def test_a_shared_store_needs_no_such_warning(folder, caplog):
    Guard.load(folder(DAILY), store=ScriptedStore(), environ={"WEB_CONCURRENCY": "4"})

    assert caplog.records == []


def test_a_fork_after_loading_is_noticed(folder, monkeypatch):
    guard = Guard.load(folder(HOURLY), environ={})
    assert guard.warnings() == ()
    process = os.getpid()
    monkeypatch.setattr("os.getpid", lambda: process + 1)

    assert "forked after" in guard.warnings()[0]


def _child(folder, answers):
    answers.put(Guard.load(folder, environ={}).warnings())


def test_a_child_of_multiprocessing_is_noticed(folder):
    spawning = multiprocessing.get_context("spawn")
    answers = spawning.Queue()
    child = spawning.Process(target=_child, args=(folder(HOURLY), answers))
    child.start()
    warnings = answers.get(timeout=60)
    child.join()

    assert "`uvicorn --workers`" in warnings[0]


class Skewed(ScriptedStore):
    off = 0.0

    def skewed(self, clock):
        return lambda: clock() + self.off

    def warnings(self, now):
        return (f"its clock is {self.off:g} s off at {now:.0f}",)


def test_a_store_sets_the_hosts_clock_right_unless_a_time_is_given():
    store, clock = Skewed(), MovableClock(1_000_000.0)
    guard = Guard.from_policies(load_text(HEAD + DAILY), store=store, clock=clock, environ={})
    store.off = 90.0

    assert guard.decide(KNOWN).time == 1_000_090.0
    assert guard.decide(KNOWN, now=5.0).time == 5.0


def test_a_stores_warnings_join_the_guards_and_its_health():
    store, clock = Skewed(), MovableClock(1_000_000.0)
    guard = Guard.from_policies(load_text(HEAD + DAILY), store=store, clock=clock, environ={})

    assert guard.warnings(now=7.0) == ("its clock is 0 s off at 7",)
    assert guard.health.warnings == ("its clock is 0 s off at 1000000",)


KEYS = (b"k" * 32, b"o" * 32)


@pytest.mark.parametrize(
    ("given", "environ", "passed"),
    [
        (None, {}, ()),
        (KEYS[0], {}, KEYS[:1]),
        (KEYS, {}, KEYS),
        (None, {"GUARDRAIL_HASH_KEY": "k" * 32}, KEYS[:1]),
        (
            None,
            {"GUARDRAIL_HASH_KEY": "k" * 32, "GUARDRAIL_HASH_KEY_PREVIOUS": "o" * 32},
            KEYS,
        ),
        (KEYS[1], {"GUARDRAIL_HASH_KEY": "k" * 32}, KEYS[1:]),
    ],
)
def test_hash_keys_are_handed_to_the_store_the_current_one_first(
    monkeypatch, given, environ, passed
):
    opened = []

    def opening(uri, keys=()):
        opened.append((uri, keys))
        return MemoryStore()

    monkeypatch.setattr("guardrail.stores.opening.open_store", opening)
    policies = load_text(HEAD + DAILY)
    Guard.from_policies(policies, store="some://where", hash_key=given, environ=environ)

    assert opened == [("some://where", passed)]


def test_a_hash_key_that_is_too_short_is_an_error():
    with pytest.raises(SettingError, match="16 to 64"):
        Guard.from_policies(load_text(HEAD + DAILY), hash_key=b"short", environ={})


def test_an_async_guard_over_a_store_that_is_not_awaited_watches_it_as_well():
    with Driver("sync", DAILY) as driver:
        guard = AsyncGuard.from_policies(
            load_text(HEAD + DAILY), store=driver.store, clock=driver.clock, environ={}
        )
        with Driver("async", DAILY) as asynchronous:
            asynchronous.guard = guard
            driver.store.fault = DOWN

            assert str(asynchronous.decide(KNOWN).mode) == "local"
            assert guard.health.failures == 1
