"""The fused decision: plan, store and conclusion as one generated function, for the clean case.

It decides alone where a request is simply allowed. Everything else (a refusal, a degrade, a
notice, an ill-typed fact, an estimate that lacks a unit) it hands, untouched, to the three steps,
which decide the same request anew; nothing has been written by then. What it allows, the three
steps would have allowed with the same charges: a property test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guardrail.engine.conclude import ALLOWED
from guardrail.engine.core import Engine
from guardrail.engine.decision import Decision
from guardrail.engine.fused.body import Body
from guardrail.engine.fused.inline import InlineWriter
from guardrail.engine.fused.parts import FusableStore, indented
from guardrail.engine.limits.sets import ConcurrencyLimit
from guardrail.engine.source import Source, define

Decide = Callable[[Mapping[str, object], Mapping[str, object] | None, float], Decision]


def fuse(engine: Engine, store: FusableStore, steps: Decide, latest: float) -> Decide:
    """Return a function that decides like `steps`, quicker where the request is simply allowed.

    Times from `latest` (seconds since the epoch) on are left to `steps`.
    """
    return _Fusion(engine, store, steps, latest).decide()


class _Fusion:
    def __init__(self, engine: Engine, store: FusableStore, steps: Decide, latest: float) -> None:
        self.engine = engine
        self.store = store
        self.steps = steps
        self.latest = latest
        self.buckets = {name: dict(b) for name, b in engine.index.buckets.items()}

    def decide(self) -> Decide:
        """Return the function for the rules that always apply; it calls those of the buckets."""
        body = Body(self.engine, self._writer(), "return steps(facts, estimate, moment)")
        body.add(self.engine.index.always, "break")
        for name in self.buckets:
            body.source.variable(name)
        source = body.source
        named = any(isinstance(limit, ConcurrencyLimit) for limit in self.engine.limits)
        if self.buckets and not named:
            source.constants["name"] = ""
        lines = ["def decide(facts, estimate, moment):"]
        lines += indented([f"if not 0 <= moment < {self.latest!r}: {body.bail}"], 1)
        lines += indented(["t = int(moment * 1000000 + 0.5)"], 1)
        lines += indented(body.prelude(), 1)
        if named:
            lines += indented(["serial = next_serial()", "name = name_of(serial)"], 1)
        # Bound methods in a try statement cost a quarter of a with statement.
        lines += indented(["acquire()", "try:", "    while True:"], 1)
        lines += indented([*body.writer.opening, *body.checks], 3)
        lines += indented(self._bucket_calls(source), 3)
        lines += indented(body.writes, 3)
        debits = "".join(f"{debit}, " for debit in body.debits)
        more = "*more, " if self.buckets else ""
        serial = "serial" if named else "next_serial()"
        lines += indented(
            [
                "decision = new(Decision)",
                "decision._ruling = ALLOWED",
                f"case = (engine, facts, estimate, t, ({debits}{more}), {serial}, None, None)",
                "decision._case = case",
                "return decision",
            ],
            3,
        )
        lines += indented(["finally:", "    release()", body.bail], 1)
        return define(lines, self._constants(source), "decide", "fused")  # type: ignore[no-any-return]

    def _writer(self) -> InlineWriter:
        return InlineWriter(Source(self.engine.policies.facts), self.store, self.engine.numbers)

    def _constants(self, source: Source) -> dict[str, Any]:
        return {
            **source.constants,
            "steps": self.steps,
            "acquire": self.store.lock.acquire,
            "release": self.store.lock.release,
            "engine": self.engine,
            "next_serial": self.engine.ids.next,
            "name_of": self.engine.ids.name,
            "new": object.__new__,
            "Decision": Decision,
            "ALLOWED": ALLOWED,
        }

    def _bucket_calls(self, source: Source) -> list[str]:
        if not self.buckets:
            return []
        lines = ["pending = []; more = []"]
        source.constants["bucket_of"] = self._bucket
        for number, (name, bucket) in enumerate(self.buckets.items()):
            held = source.constant("I", bucket)
            value = source.variable(name)
            lines += [
                f"b{number} = {held}.get({value})",
                f"if b{number} is not None:",
                f"    if b{number}.__class__ is tuple: b{number} = bucket_of({name!r}, {value})",
                f"    if not b{number}(facts, estimate, t, name, pending, more): break",
            ]
        return [*lines, "for put, key, record in pending: put(key, record, t)"]

    def _bucket(self, name: str, value: object) -> Any:
        bucket: dict[object, Any] = self.buckets[name]
        body = Body(self.engine, self._writer(), "return False", pending=True, checked=True)
        body.add(bucket[value], "return False")
        lines = ["def decide(facts, estimate, t, name, pending, more):"]
        lines += indented([*body.prelude(), *body.writer.opening, *body.checks, *body.writes], 1)
        debits = "".join(f"{debit}, " for debit in body.debits)
        lines += indented([f"more += ({debits})", "return True"], 1)
        bucket[value] = define(lines, body.source.constants, "decide", f"fused {name}")
        return bucket[value]
