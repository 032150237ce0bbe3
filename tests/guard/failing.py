"""Stores that fail when told to, and one way to drive both guards over them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from guardrail import AsyncGuard, Guard
from guardrail.errors import StoreError
from guardrail.model.cells import Cell, Charge, Correction, Form, Outcome
from guardrail.stores.cells import reply_of
from guardrail.stores.memory import MemoryStore
from guardrail.testing import MovableClock
from tests.loaded import loaded

HEAD = """
guardrail: 1
policy: p
facts:
  account.tier: {type: level, values: [anonymous, email, verified], default: anonymous}
  account.size: {type: integer, source: server}
models:
  large: {max_output: 100, weaker: small}
  small: {max_output: 100}
rules:
"""
KNOWN = {"account.id": "a", "account.tier": "email", "request.model": "large"}

KINDS = ["sync", "async", "sync, in numbers", "async, in numbers"]

DOWN = StoreError("connection refused")
LOST = StoreError("no reply", unsure=True)


class ScriptedStore:
    """Counts in memory, but fails while `fault` is set.

    With `applied` a failing call is applied before it fails, as when its reply is lost. While it
    `settles` not, corrections fail alone.
    `asked` and `sent` record what every call carried, failed ones included.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.fault: BaseException | None = None
        self.applied = False
        self.settles = True
        self.asked: list[Sequence[Cell]] = []
        self.sent: list[list[Correction]] = []
        self.closed = 0

    def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        self.asked.append(list(cells))
        if self.fault is None or self.applied:
            outcome = self.inner.acquire(charges, cells, now)
        if self.fault is not None:
            raise self.fault
        return outcome

    def settle(self, corrections: Sequence[Correction], now: int) -> None:
        self.sent.append(list(corrections))
        if not self.settles:
            raise DOWN
        if self.fault is None or self.applied:
            self.inner.settle(corrections, now)
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        self.closed += 1


class NumberedStore(ScriptedStore):
    """The same, which can also be asked in numbers."""

    def ask(self, form: Form, now: int) -> Any:
        return numbers(self.acquire(form.as_charges, form.as_cells, now))


class AwaitedStore:
    """The same, awaited; where `gate` is set, a call waits for it, applied or not yet."""

    def __init__(self) -> None:
        self.script = ScriptedStore()
        self.gate: asyncio.Event | None = None
        self.undone = 0

    async def acquire(self, charges: Sequence[Charge], cells: Sequence[Cell], now: int) -> Outcome:
        try:
            await self._pass()
        except asyncio.CancelledError:
            self.undone += 1
            raise
        return self.script.acquire(charges, cells, now)

    async def settle(self, corrections: Sequence[Correction], now: int) -> None:
        await self._pass()
        self.script.settle(corrections, now)

    async def close(self) -> None:
        self.script.close()

    async def _pass(self) -> None:
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()


class AwaitedNumberedStore(AwaitedStore):
    """The same, awaited and asked in numbers."""

    async def ask(self, form: Form, now: int) -> Any:
        return numbers(await self.acquire(form.as_charges, form.as_cells, now))


def numbers(outcome: Outcome | None) -> list[int] | None:
    return None if outcome is None else reply_of(outcome)


class Driver:
    """A guard of either kind over a scripted store, called the same way."""

    def __init__(self, kind: str, rules: str, **settings: Any) -> None:
        self.clock = MovableClock()
        is_async, in_numbers = kind.startswith("async"), kind.endswith("in numbers")
        self.runner = asyncio.Runner() if is_async else None
        self.awaited = AwaitedNumberedStore() if in_numbers else AwaitedStore()
        if in_numbers and not is_async:
            self.awaited.script = NumberedStore()
        self.store = self.awaited.script
        guard: Any = AsyncGuard if is_async else Guard
        self.guard = guard.from_policies(
            loaded(HEAD + rules),
            store=self.awaited if is_async else self.store,
            clock=self.clock,
            **{"environ": {}, **settings},
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.fault = None
        self.close()
        if self.runner is not None:
            self.runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.guard, name)

        def call(*args: Any, **named: Any) -> Any:
            found = method(*args, **named)
            if inspect.iscoroutine(found):
                assert self.runner is not None
                return self.runner.run(found)
            return found

        return call

    @property
    def health(self) -> Any:
        return self.guard.health
