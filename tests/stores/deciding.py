"""Decisions on one counter, pace or set of a store, and what is said of a failure."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager

import pytest

from guardrail.errors import StoreError
from guardrail.model.cells import Charge, Counter, Member
from tests.cells.awaited import Awaited

S = 1_000_000
NOW = 1_700_000_000 * S
TTL = 10**12
BINDING = [Charge(True, None)]
DEADLINE = 0.25
"""In seconds, where a test is about it."""
HANG = 60.0
"""Seconds after which a test calls a call a hang; deadlines are held by a time moved by hand."""


def budget(amount=1, ceiling=100, *, key="budget__=a"):
    return Counter(0, key, 0, 1, 0, amount, ceiling, TTL)


def pace(amount=1, *, key="pace____=a"):
    return Counter(0, key, 0, 1, NOW, amount * S, NOW + 100 * S, TTL)


def lease(name, *, key="flight__=a"):
    return Member(0, key, name, NOW + 60 * S, 100, TTL)


def decide(store, *cells):
    return store.acquire(BINDING, list(cells) or [budget()], NOW)


def used(store, cell=None):
    """Look without charging."""
    cell = cell or budget()
    looked = cell._replace(ceiling=None) if isinstance(cell, Member) else cell._replace(amount=0)
    reply = store.acquire([Charge(False, None)], [looked._replace(ceiling=0)], NOW).replies[0]
    return reply.live if isinstance(cell, Member) else reply.used


def warm(store):
    """Tell whether the connection stands: it may take longer than one deadline."""
    try:
        used(store)
    except StoreError:
        return False
    return True


def inner(store):
    return store.store if isinstance(store, Awaited) else store


@contextmanager
def failing(fragment=None, *, unsure=None):
    """Expect a StoreError, some day."""
    began = time.monotonic()
    with pytest.raises(StoreError, match=fragment) as caught:
        yield
    assert time.monotonic() - began < HANG
    if unsure is not None:
        assert caught.value.unsure is unsure


def fails(store):
    try:
        decide(store)
    except StoreError:
        return True
    return False


def said(store, fragment):
    try:
        decide(store)
    except StoreError as problem:
        return re.search(fragment, str(problem))
    return False
