"""Requests written down to be replayed: what they showed and used, without names or texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

from guardrail.decisionlog import LONGEST_TEXT, DecisionSink, LoggedNames
from guardrail.engine import Decision
from guardrail.errors import DataError
from guardrail.http.parsing.endpoints import Kind, endpoint_of
from guardrail.links import ACTOR_FACTS, SCORE_FACTS
from guardrail.model.amounts import UNITS
from guardrail.model.cells import TOP
from guardrail.model.facts import Fact, FactType, typed_value
from guardrail.signals import Signal

LOG = logging.getLogger("guardrail")

OTHER_ENDPOINT = "other"
_OPAQUE = frozenset((FactType.STRING, FactType.IP))
_LEFT_OUT = frozenset((*ACTOR_FACTS, *SCORE_FACTS, "client.ip"))
"""What a replay finds out by itself, and an address, of which country and network are kept."""


class TrafficRecorder:
    """Writes a line for each request, which `guardrail check --traffic` reads without a map.

    Written are all facts that the vocabulary and the policies know, not only those that the
    policies use, so that other policies can be tried on them. `share` is the part of accounts whose
    requests are written. Facts that no rule needed are asked of the `signals` for the record.
    """

    def __init__(
        self,
        sink: DecisionSink,
        key: bytes,
        clock: Callable[[], float],
        *,
        share: Fraction | None = None,
        signals: Sequence[Signal] = (),
    ) -> None:
        self._sink = sink
        self._names = LoggedNames(key)
        self._clock = clock
        self._share = share
        self._signals = signals
        self._failed = False

    def ended(self, decision: Decision, ending: str, usage: Mapping[str, int] | None) -> None:
        """Take a request that ended; what goes wrong stops no request, and is logged once."""
        try:
            if self._is_drawn(decision.facts):
                self._sink.write(self._line(decision, ending, usage))
        except Exception:
            if not self._failed:
                self._failed = True
                LOG.exception("a request was not recorded")

    def close(self) -> None:
        """Let go of the file."""
        self._sink.close()

    def _is_drawn(self, facts: Mapping[str, object]) -> bool:
        if self._share is None:
            return True
        who = facts.get("account.id") or facts.get("client.network") or facts.get("client.ip")
        return self._names.part(str(who)) < self._share

    def _line(
        self, decision: Decision, ending: str, usage: Mapping[str, int] | None
    ) -> dict[str, object]:
        lasted = 0.0 if ending == "refused" else max(0.0, self._clock() - decision.time)
        line: dict[str, object] = {
            "v": 1,
            "ts": decision.time,
            "facts": self._facts(decision),
            "estimate": known_amounts(decision.case.estimate or {}, decision),
            "duration": round(lasted, 6),
            "ending": ending,
            "effect": str(decision.effect),
            "rule": decision.rule,
            "revision": decision.revision,
        }
        if usage is not None:
            line["usage"] = known_amounts(usage, decision)
        return line

    def _facts(self, decision: Decision) -> dict[str, object]:
        stated = self._completed(decision.facts, decision.time)
        known = decision.case.engine.policies.facts
        return told_facts(stated.keys() - _LEFT_OUT, stated, known, self._names)

    def _completed(self, facts: Mapping[str, object], now: float) -> Mapping[str, object]:
        for signal in self._signals:
            if signal.provides <= facts.keys() or signal.needs.isdisjoint(facts):
                continue
            try:
                facts = {**signal.facts(facts, now), **facts}
            except DataError:
                continue
        return facts


def told_facts(
    names: Iterable[str],
    stated: Mapping[str, object],
    known: Mapping[str, Fact],
    hashed: LoggedNames,
) -> dict[str, object]:
    """Return some known facts as a log has them: typed, and texts as keyed hashes.

    Lists are left out. Models and known endpoints have their names.
    """
    told: dict[str, object] = {}
    for name in sorted(known.keys() & names):
        value = None if stated.get(name) is None else typed_value(known[name], stated[name])
        if value is None or isinstance(value, tuple):
            continue
        if name == "request.endpoint":
            told[name] = known_endpoint(str(value))
        elif name == "request.model":
            told[name] = str(value)[:LONGEST_TEXT]
        else:
            told[name] = hashed.of(str(value)) if known[name].type in _OPAQUE else value
    return told


def known_endpoint(name: str) -> str:
    """Return the name of an endpoint that is known: another path may hold anything."""
    return OTHER_ENDPOINT if endpoint_of(name).kind is Kind.UNKNOWN else name


def known_amounts(stated: Mapping[str, object], decision: Decision) -> dict[str, int | float]:
    """Return the amounts of known units: a caller may have stated others, or no amounts."""
    told: dict[str, int | float] = {}
    for unit in (*UNITS, *decision.case.engine.policies.units):
        amount = stated.get(unit)
        if isinstance(amount, int | float) and not isinstance(amount, bool) and 0 <= amount <= TOP:
            told[unit] = amount
    return told
