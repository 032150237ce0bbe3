"""A process that forks while its threads decide: the child decides too, and waits for nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import ran

FORKING = """
import contextlib, os, signal, sys, threading
from guardrail import Guard
from guardrail.loading import load_text
from guardrail.stores import memory
from guardrail.stores.lmdb import LmdbStore
from guardrail.testing import MovableClock

memory.PATIENCE = 0.01
where, held = sys.argv[1:]
text = '''
guardrail: 1
policy: p
rules:
  - {id: hour, when: always, budget: {tokens: 300, per: 1h, key: account.id}}
  - {id: pace, when: always, rate: {tokens: 1M/minute, key: account.id}, on_store_error: local}
'''
given = {} if where == "memory" else {"store": LmdbStore(where, deadline=20_000_000)}
guard = Guard.from_policies(load_text(text), clock=MovableClock(), environ={}, **given)
assert guard.decide({"account.id": "a"}, {"tokens": 100}).allowed

supervisor = guard._supervisor
locks = {
    "memory": lambda: guard._store.lock,
    "breaker": lambda: supervisor._breaker._lock,
    "backlog": lambda: supervisor._backlog._lock,
    "local": lambda: supervisor._local._store.lock,
}
holding, over = threading.Event(), threading.Event()

def hold():
    with locks[held]():
        holding.set()
        over.wait()

thread = threading.Thread(target=hold)
thread.start()
holding.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    second = guard.decide({"account.id": "a"}, {"tokens": 100})
    guard.settle(second, {"tokens": 200.0})
    third = guard.decide({"account.id": "a"}, {"tokens": 100})
    for _ in range(20):
        guard.settle(guard.decide({"account.id": "b"}, {"tokens": 1}), {"tokens": 1.0})
    guard.health
    guard.close()
    os._exit(0 if (second.allowed, third.allowed) == (True, False) else 3)
over.set()
thread.join()
_, status = os.waitpid(child, 0)
print(status, guard.decide({"account.id": "c"}, {"tokens": 100}).allowed)
guard.close()
"""


@pytest.mark.parametrize("held", ["memory", "breaker", "backlog", "local"])
def test_a_child_waits_for_no_thread_of_its_parent(held: str, tmp_path: Path) -> None:
    where = "memory" if held == "memory" else str(tmp_path)
    done = ran(FORKING, where, held)
    assert done.stdout.split() == ["0", "True"]


WAITING = """
import os, threading
from guardrail.stores.memory import MemoryStore

store, forked = MemoryStore(), threading.Event()
holding, order = threading.Event(), []

def hold():
    with store.lock:
        holding.set()
        forked.wait(0.2)
        order.append("counted")

thread = threading.Thread(target=hold)
thread.start()
holding.wait()
child = os.fork()
if child == 0:
    os._exit(0 if order == ["counted"] else 3)
forked.set()
thread.join()
print(os.waitpid(child, 0)[1], store.lock.locked())
"""


def test_a_fork_waits_for_who_counts() -> None:
    done = ran(WAITING)
    assert done.stdout.split() == ["0", "False"]
