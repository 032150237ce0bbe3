"""Refusals that no body could change, found before the body is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from guardrail.engine import (
    HEAD_FACTS,
    Decide,
    Decision,
    Engine,
    Interpreter,
    decide_inline,
    head_rules,
)
from guardrail.guard.context import Context, microseconds
from guardrail.model.effects import Effect
from guardrail.signals import Lookup, Signal, in_order
from guardrail.stores.memory import MemoryStore

_THROTTLE = Effect.THROTTLE


class Prechecked(NamedTuple):
    """What the head of a request settled: its facts, and a refusal or None.

    `facts` are with those of the signals that were `asked`; `unavailable` names the facts whose
    source failed. All but the refusal is to be handed to `decide`.
    """

    facts: Mapping[str, object]
    unavailable: frozenset[str]
    asked: tuple[Signal, ...]
    refusal: Decision | None


class Precheck:
    """Evaluates, for one context, the static rules that the head of a request decides alone.

    `decide` evaluates these rules once more among all others: this only spares reading a body
    that cannot be served. Nothing is charged, and no store is asked.
    """

    def __init__(self, context: Context) -> None:
        """Take a context; compiles its rules."""
        known = HEAD_FACTS - _late(context.signals)
        self._context = context
        self._rules = {id(engine): _HeadRules.of(engine, known) for engine in context.engines}
        self.is_needed = any(self._rules.values())
        """Whether there are such rules at all."""
        used = frozenset().union(*(r.engine.used_facts for r in self._rules.values() if r))
        asked = tuple(s for s in in_order(context.signals, used) if not isinstance(s, Lookup))
        self._asked = asked
        self._left = tuple(signal for signal in context.signals if signal not in asked)
        self._establish = context.establish_but(self._left)
        own = [*self._rules.values()]
        self._always = own[0] if len(own) == 1 else None

    def __call__(
        self,
        facts: Mapping[str, object],
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
    ) -> Prechecked | None:
        """Return what the head settles, None where no static rule can be decided by a head.

        Nothing is charged. `facts` are those of the head and of its caller; the arguments are
        those of `decide`.

        Raises:
            SettingError: `now` is not a time.
        """
        if not self.is_needed:
            return None
        context, rules = self._context, self._always
        moment = context.moment(now)
        known = None if unavailable else self._establish(facts, moment)
        if known is None:
            known, unavailable = context.known(facts, moment, self._left, unavailable)
        if rules is None:
            rules = self._rules[id(context.engine_at(moment))]
        refusal = None
        if rules is not None:
            decision = (
                rules.steps(known, None, moment, unavailable)
                if unavailable
                else rules.decide(known, None, moment)
            )
            refusal = None if decision.ruling.effect < _THROTTLE else decision
        return tuple.__new__(Prechecked, (known, unavailable, self._asked, refusal))


class _HeadRules:
    """The rules of one engine that the head decides, as an engine of their own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._interpreter = Interpreter(engine)
        # A block has no counters: the store is only what the quick function is written over.
        self.decide: Decide = decide_inline(engine, MemoryStore(), self.steps)

    @classmethod
    def of(cls, engine: Engine, known: frozenset[str]) -> _HeadRules | None:
        """Return the head's rules of an engine, None if it has none."""
        policies = head_rules(engine.policies, known)
        if policies is None:
            return None
        own = Engine(policies, engine.ids, namespace=engine.namespace, notice=engine.notice)
        own.sources = engine.sources
        return cls(own)

    def steps(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> Decision:
        now, serial = microseconds(moment), self.engine.ids.next()
        return self._interpreter.plan(facts, estimate, now, serial, unavailable).unasked()


def _late(signals: Sequence[Signal]) -> frozenset[str]:
    """Return the facts that signals establish from a body or have to be waited for."""
    late: set[str] = set()
    for _ in signals:
        for signal in signals:
            if isinstance(signal, Lookup) or not signal.needs <= HEAD_FACTS - late:
                late |= signal.provides
    return frozenset(late)
