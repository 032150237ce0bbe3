"""Runs one random trace through two guards, and tells what each came to."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from guardrail.engine import Decision
from guardrail.guard import Guard, guard
from guardrail.guard.context import Context
from guardrail.guard.supervisor import Supervisor
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND
from guardrail.model.cells import Form
from guardrail.model.policy import PolicySet
from guardrail.stores.cells import reply_of
from guardrail.stores.memory import MemoryStore
from tests.engine.policies import START, Request, request

MOVES = (0, 0, 0, 0, 1, SECOND, SECOND, 7 * SECOND, MINUTE, 20 * MINUTE, HOUR, DAY, -SECOND, -HOUR)
"""How the clock may move between two requests, back included."""


class Numbered:
    """Decision ids that the trace chooses, so that both guards use the same."""

    mark = "d"

    def __init__(self) -> None:
        self.number = 0

    def next(self) -> int:
        return self.number

    def name(self, serial: int) -> str:
        return f"d{serial}"


class AskedMemory:
    """Memory that answers in numbers, as a store elsewhere does."""

    def __init__(self, store: MemoryStore) -> None:
        self.acquire = store.acquire
        self.settle = store.settle
        self.close = store.close

    def ask(self, form: Form, now: int) -> list[int]:
        return reply_of(self.acquire(form.as_charges, form.as_cells, now))


class Subject:
    """One guard of a comparison, with its store and all its decisions.

    One that decides in three steps beside another needs nothing generated but the same tables.
    """

    def __init__(
        self,
        policies: PolicySet,
        beside: Subject | None = None,
        /,
        *,
        fused: bool = False,
        asking: bool = False,
        follows: bool = False,
        max_keys: int = 1000,
    ) -> None:
        frame = Context(policies, signals=(), namespace=None, clock=lambda: 0.0, environ={})
        self.ids = Numbered()
        frame.engine.ids = self.ids
        self.store = MemoryStore(max_keys=max_keys)
        with pytest.MonkeyPatch.context() as patched:
            if beside is not None:
                patched.setattr(guard, "decide_inline", lambda engine, store, steps, _: steps)
                for ident, table in beside.store.homes.items():
                    self.store.home(ident, table.lifetime)
            self.guard = Guard(frame, AskedMemory(self.store) if asking else self.store)
        if follows:
            self.guard._supervisor = Supervisor(frame, in_process=False)
        self.local = self.guard._supervisor._local.store
        if not (fused or asking):
            self.guard._decide = self.guard._planned
            self.guard._settle = None
        self.decisions: list[Decision] = []

    def decide(self, asked: Request, now: int) -> Decision:
        self.ids.number += 1
        decision = self.guard.decide(asked.facts, asked.estimate, now=now / SECOND)
        self.decisions.append(decision)
        return decision

    @property
    def fused_share(self) -> float:
        """How many of the decisions were made without the three steps."""
        return sum(d.case.reading is None for d in self.decisions) / len(self.decisions)

    def contents(self) -> Mapping[str, object]:
        """Return every record, as the store would read it."""
        return {"shared": records(self.store), "own": records(self.local)}


def records(store: MemoryStore) -> Mapping[str, object]:
    """Return every record of a store; a set without members is none."""
    tables = store._tables.values()
    found = {key: store._known(key) for table in tables for key in table.records()}
    return {key: record for key, record in found.items() if record != {}}


def told(decision: Decision) -> dict[str, Any]:
    """Return everything that a decision tells, its explanation included."""
    return {**told_shortly(decision), "explained": decision.explain()}


def told_shortly(decision: Decision) -> dict[str, Any]:
    """Return what a decision tells without being asked to explain itself."""
    return {
        "effect": decision.effect,
        "rule": decision.rule,
        "reason": decision.reason,
        "message": decision.message,
        "status": decision.status,
        "retry_after": decision.retry_after,
        "obligations": dict(decision.obligations),
        "shadow": decision.shadow,
        "mode": decision.mode,
        "limits": decision.limits,
        "errors": decision.errors,
        "hinges": decision.hinges,
    }


def run(seed: int, length: int, left: Subject, right: Subject) -> None:
    """Run a random trace through both, asserting that they tell the same at every step."""
    rng = Random(seed)
    now = START
    for _ in range(length):
        now += rng.choice(MOVES)
        asked = request(rng)
        assert told(left.decide(asked, now)) == told(right.decide(asked, now))
        after(rng, now, left, right)
        assert left.contents() == right.contents()


PACES = """
guardrail: 1
policy: paces
rules:
  - {id: pace, when: always, rate: {tokens: %d/minute, burst: %d, key: account.id}}
  - {id: slow, when: always, rate: {output_tokens: %d/hour, key: account.id}}
"""


def run_refunds(seed: int, left: Subject, right: Subject) -> int:
    """Run requests on one account's rates through both, each settled soon after, with less or more.

    Returns how many refunds a rate cut: they were bound by what had drained, or been refunded.
    """
    rng = Random(seed)
    now, cut = START, 0
    for number in range(30):
        now += rng.choice((0, 0, 1, SECOND // 50, SECOND, 9 * SECOND))
        tokens = {"input_tokens": rng.randrange(60), "output_tokens": rng.randrange(60)}
        asked = Request({"account.id": "a"}, tokens)
        assert told(left.decide(asked, now)) == told(right.decide(asked, now))
        used = {unit: rng.choice((0, 0, amount // 2, 80)) for unit, amount in tokens.items()}
        settled = rng.randrange(max(0, number - 3), number + 1)
        later = now + rng.choice((0, 0, 1, SECOND // 50, 3 * SECOND))
        for subject in (left, right):
            subject.guard.settle(subject.decisions[settled], used, now=later / SECOND)
        assert left.contents() == right.contents()
        cut += sum(
            debit.used + debit.increment - later < debit.increment
            for debit in right.decisions[settled].case.charged
        )
    return cut


def after(rng: Random, now: int, left: Subject, right: Subject) -> None:
    """Settle, release or renew some decision in both, or leave them alone."""
    kind = rng.randrange(6)
    number = rng.randrange(max(0, len(left.decisions) - 4), len(left.decisions))
    later = (now + rng.choice((0, SECOND, 6 * SECOND))) / SECOND
    whole = {"input_tokens": rng.randrange(80), "output_tokens": rng.randrange(80)}
    odd: tuple[Mapping[str, object] | None, ...] = (
        None,
        {},
        {"input_tokens": 5},
        {"tokens": 90, "output_tokens": -1},
        {**whole, "cached_input_tokens": rng.choice((7, 70, -1, False))},
        {**whole, "cost_usd": rng.choice((0.002, -1, None))},
    )
    usage = rng.choice((whole, whole, whole, *odd))
    model = rng.choice((None, "small"))
    for subject in (left, right):
        decision = subject.decisions[number]
        if kind == 0:
            subject.guard.release(decision, now=later)
        elif kind == 1:
            subject.guard.renew(decision, now=later)
        elif kind < 4:
            subject.guard.settle(decision, usage, model=model, now=later)
