"""What holds of links in memory holds where processes share them, for both guards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.engine import Decision
from guardrail.model.policy import PolicySet
from tests.cells.redis_stores import SERVERS, redis_store
from tests.cells.stores import Housed
from tests.links import test_actors
from tests.stores.clusters import CLUSTERS

TESTS = [
    each
    for name, each in vars(test_actors).items()
    if name.startswith("test_") and "ten_thousand" not in name
]


class Awaiting:
    """An awaiting guard behind the methods of one that blocks."""

    def __init__(self, guard: AsyncGuard, runner: asyncio.Runner) -> None:
        self.guard, self.runner = guard, runner

    def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
    ) -> Decision:
        """Decide, awaited."""
        deciding = self.guard.decide(facts, estimate, unavailable=unavailable, now=now)
        return self.runner.get_loop().run_until_complete(deciding)

    def settle(self, decision: Decision, usage: Mapping[str, object], *, now: float) -> None:
        """Settle, awaited."""
        self.runner.get_loop().run_until_complete(self.guard.settle(decision, usage, now=now))

    def with_policies(self, policies: PolicySet) -> Awaiting:
        """Return a guard of other policies."""
        return Awaiting(self.guard.with_policies(policies), self.runner)

    def close(self) -> None:
        """Close the guard."""
        self.runner.get_loop().run_until_complete(self.guard.close())
        self.runner.close()


def on_server(uri: str) -> Any:
    """Return a store on a server, at whatever time tests say it is."""
    store = redis_store(uri, host_clock=True)
    store.open()
    return store


STORES: dict[str, Callable[[], Any]] = {
    "lmdb": Housed,
    "redis": lambda: on_server(SERVERS.empty("valkey 9").uri),
    "cluster": lambda: on_server(CLUSTERS.empty("valkey 9").uri),
}


@pytest.fixture(params=[f"{store}, {how}" for store in STORES for how in ("sync", "async")])
def guard_over(request):
    """Return what makes a guard over an empty store; it is closed at the end."""
    opened: list[Any] = []
    name, how = request.param.split(", ")

    def over(policies: PolicySet) -> Any:
        store = STORES[name]()
        if how == "sync":
            guard: Any = Guard.from_policies(policies, store=store)
        else:
            guard = Awaiting(AsyncGuard.from_policies(policies, store=store), asyncio.Runner())
        opened.append(guard)
        return guard

    yield over
    for guard in opened:
        guard.close()


def first_arguments(test: Callable[..., None]) -> dict[str, Any]:
    """Return what a test is run with first where it is run several times."""
    marks = (mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize")
    return {mark.args[0]: next(iter(mark.args[1])) for mark in marks}


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_in_a_store(test, guard_over, monkeypatch):
    class Made:
        from_policies = staticmethod(guard_over)

    monkeypatch.setattr(test_actors, "Guard", Made)
    test(**first_arguments(test))
