"""A signal whose handler raises leaves no lock behind, wherever in a call it comes."""

from __future__ import annotations

from pathlib import Path

from tests.programs import ran

ALARM = """
import random, signal

class Interrupt(BaseException):
    pass

def interrupt(number, frame):
    raise Interrupt

signal.signal(signal.SIGALRM, interrupt)
"""

INTERRUPTED = """
from guardrail.testing import guard_of

guard = guard_of('''
guardrail: 1
policy: p
rules:
  - {id: hour, when: always, budget: {tokens: 1G, per: 1h, key: account.id}}
  - {id: flight, when: always, concurrency: {max: 1000000, key: account.id}}
''')
lock, left, came = guard._store.lock, 0, 0
facts, plain, odd = {"account.id": "a"}, {"input_tokens": 5, "output_tokens": 5}, {"tokens": 5.0}

for _ in range(20_000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 60e-6))
        while True:
            guard.settle(guard.decide(facts, plain), plain)
            guard.settle(guard.decide(facts, plain), odd)
    except Interrupt:
        came += 1
    if lock.locked():
        left += 1
        lock.release()
print(came, left)
"""


def test_an_interrupt_leaves_no_lock_behind() -> None:
    done = ran(ALARM + INTERRUPTED)
    assert done.stdout.split() == ["20000", "0"]


IN_A_FILE = """
import sys
from guardrail import Guard
from guardrail.loading import load_text
from guardrail.stores.lmdb import LmdbStore

policies = load_text('''
guardrail: 1
policy: p
rules:
  - {id: hour, when: always, budget: {tokens: 1G, per: 1h, key: account.id}}
''')
store = LmdbStore(sys.argv[1], deadline=20_000_000)
guard = Guard.from_policies(policies, store=store, environ={})
facts, plain = {"account.id": "a"}, {"input_tokens": 5, "output_tokens": 5}
modes, came = set(), 0

for _ in range(1_000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 200e-6))
        while True:
            guard.settle(guard.decide(facts, plain), plain)
    except Interrupt:
        came += 1
    modes.add(str(guard.decide(facts, plain).mode))
print(came, *modes, guard.health.failures)
"""


def test_an_interrupt_leaves_a_file_that_can_be_counted_in(tmp_path: Path) -> None:
    done = ran(ALARM + IN_A_FILE, str(tmp_path))
    assert done.stdout.split() == ["1000", "normal", "0"]
