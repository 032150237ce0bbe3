"""What became of decisions: a record for the log, and counts whose labels are few."""

from __future__ import annotations

import logging
import threading
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from guardrail.decisionlog import LONGEST_TEXT, DecisionSink
from guardrail.engine import Decision
from guardrail.guard.health import Health
from guardrail.http.asked.endpoints import Kind, endpoint_of
from guardrail.http.dialects import Dialect
from guardrail.http.exchange.serving import Settlement
from guardrail.http.settings.reloading import Reloads
from guardrail.model.amounts import UNITS
from guardrail.model.cells import TOP

LOG = logging.getLogger("guardrail")

MOST_SERIES = 10_000
"""How many combinations of labels are counted by themselves: rules come and go with reloads."""

WHO = {
    "account": "account.id",
    "org": "account.org",
    "credential": "credential.id",
    "network": "client.network",
}
OTHER_ENDPOINT = "other"
_HASH_BYTES = 12
_BESIDE = ("decision", "rule", "reason", "mode", "dialect")


class Journal:
    """Counts decisions, and hands a record of each to a sink, if there is one.

    Refusals are recorded when they are made, others when they are settled.
    """

    def __init__(self, sink: DecisionSink | None, key: bytes, *, made_here: bool = False) -> None:
        """Take the sink, and whether it is to be closed here: the host's own is the host's."""
        self._sink = sink
        self._made_here = made_here
        self._key = blake2b(key, person=b"decision log").digest()[:32]
        self._lock = threading.Lock()
        self._decisions: Counter[tuple[str, ...]] = Counter()
        self._endings: Counter[str] = Counter()
        self._failures = self._unlogged = 0

    def decided(self, decision: Decision, dialect: Dialect, *, owes: bool = False) -> None:
        """Take a decision, and whose words its client reads.

        `owes` tells of a refusal whose work runs all the same: it is recorded when it is settled.
        """
        labels = (
            str(decision.effect),
            decision.rule or "",
            decision.reason or "",
            str(decision.mode),
            dialect.value,
        )
        with self._lock:
            if labels not in self._decisions and len(self._decisions) >= MOST_SERIES:
                labels = (labels[0], "", "", labels[3], labels[4])
            self._decisions[labels] += 1
        if not decision.allowed and not owes:
            self._end(decision, "refused", None, None)

    def settled(self, decision: Decision, settlement: Settlement) -> None:
        """Take how a request ended that was admitted, or that ran although it was refused."""
        ending = "released" if settlement.usage is None else "settled"
        if not decision.allowed:
            ending = "refused"
        self._end(decision, ending, settlement.usage, settlement.model)

    def failed(self) -> None:
        """Take that the guard itself failed over a request."""
        with self._lock:
            self._failures += 1

    def close(self) -> None:
        """Let go of a sink that was made here."""
        if self._sink is not None and self._made_here:
            self._sink.close()

    def metrics(self, health: Health, reloads: Reloads | None) -> str:
        """Return the counts in the text format of Prometheus, with the store's health."""
        return "".join(f"{line}\n" for line in self._lines(health, reloads))

    def _end(
        self,
        decision: Decision,
        ending: str,
        usage: Mapping[str, int] | None,
        model: str | None,
    ) -> None:
        with self._lock:
            self._endings[ending] += 1
        if self._sink is None:
            return
        try:
            self._sink.write(self._record(decision, ending, usage, model))
        except Exception:
            # A log that fails is no reason to refuse, or to leave a request unsettled.
            with self._lock:
                self._unlogged += 1
            if self._unlogged == 1:
                LOG.exception("a decision was not logged")

    def _record(
        self,
        decision: Decision,
        ending: str,
        usage: Mapping[str, int] | None,
        model: str | None,
    ) -> dict[str, object]:
        facts = decision.facts
        record: dict[str, object] = {
            "v": 1,
            "ts": decision.time,
            "id": decision.id,
            "revision": decision.revision,
            "effect": str(decision.effect),
            "rule": decision.rule,
            "reason": decision.reason,
            "retry_after": decision.retry_after,
            "mode": str(decision.mode),
            "ending": ending,
            "endpoint": _endpoint(facts.get("request.endpoint")),
            "capability": _text(facts.get("request.capability")),
            "model": _text(facts.get("request.model")),
            "served": model,
            "country": _text(facts.get("geo.country")),
            "obligations": {k: _plain(v) for k, v in decision.obligations.items()},
            "shadow": [
                {"rule": found.rule, "effect": str(found.effect), "reason": found.reason}
                for found in decision.shadow
            ],
            "estimate": _amounts(decision.case.estimate or {}, decision),
            "usage": None if usage is None else _amounts(usage, decision),
            "errors": len(decision.errors),
        }
        for name, fact in WHO.items():
            if facts.get(fact) is not None:
                record[name] = self._hashed(str(facts[fact]))
        return record

    def _hashed(self, text: str) -> str:
        digest = blake2b(text.encode("utf-8", "replace"), key=self._key, digest_size=_HASH_BYTES)
        return urlsafe_b64encode(digest.digest()).decode("ascii")

    def _lines(self, health: Health, reloads: Reloads | None) -> Iterator[str]:
        with self._lock:
            decisions, endings = dict(self._decisions), dict(self._endings)
        yield "# TYPE guardrail_decisions_total counter"
        for labels, count in decisions.items():
            told = ",".join(f'{k}="{_label(v)}"' for k, v in zip(_BESIDE, labels, strict=True))
            yield f"guardrail_decisions_total{{{told}}} {count}"
        yield "# TYPE guardrail_endings_total counter"
        for ending, count in endings.items():
            yield f'guardrail_endings_total{{ending="{ending}"}} {count}'
        numbers = {
            "guardrail_failures_total": self._failures,
            "guardrail_store_failures_total": health.failures,
            "guardrail_store_unasked_total": health.unasked,
            "guardrail_corrections_lost_total": health.lost,
            "guardrail_records_lost_total": self._unlogged + getattr(self._sink, "lost", 0),
        }
        for name, count in numbers.items():
            yield f"# TYPE {name} counter"
            yield f"{name} {count}"
        if reloads is not None:
            yield "# TYPE guardrail_policy_reloads_total counter"
            yield f'guardrail_policy_reloads_total{{result="loaded"}} {reloads.loaded}'
            yield f'guardrail_policy_reloads_total{{result="failed"}} {reloads.failed}'
            yield "# TYPE guardrail_policy_stale gauge"
            yield f"guardrail_policy_stale {int(reloads.problem is not None)}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _text(value: object) -> str | None:
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def _endpoint(name: object) -> str | None:
    """Return the name of an endpoint that is known: another path may hold anything."""
    if not isinstance(name, str):
        return None
    return OTHER_ENDPOINT if endpoint_of(name).kind is Kind.UNKNOWN else name


def _amounts(stated: Mapping[str, object], decision: Decision) -> dict[str, int | float]:
    """Return the amounts of known units: a caller may have stated others, or no amounts."""
    told: dict[str, int | float] = {}
    for unit in (*UNITS, *decision.case.engine.policies.units):
        amount = stated.get(unit)
        if isinstance(amount, int | float) and not isinstance(amount, bool) and 0 <= amount <= TOP:
            told[unit] = amount
    return told


def _plain(value: object) -> object:
    if isinstance(value, (tuple, list, set, frozenset)):
        return sorted(map(str, value))
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
