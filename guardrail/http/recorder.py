"""What became of decisions: a record for the log, and counts whose labels are few."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from guardrail.decisionlog import LONGEST_TEXT, DecisionSink, LoggedNames
from guardrail.engine import INVALID_FACT, Decision
from guardrail.guard.supervisor import Health
from guardrail.http.counts import MOST_SERIES, Counts
from guardrail.http.dialects import Dialect
from guardrail.http.recording import (
    TrafficRecorder,
    known_amounts,
    known_endpoint,
    told_facts,
)
from guardrail.http.request import REQUEST_ID, TRACE_ID
from guardrail.http.response import Settlement
from guardrail.http.settings.reload import Reloads
from guardrail.http.settings.values import OwnRefusal
from guardrail.model.effects import Effect
from guardrail.signals.directory import SourceHealth

LOG = logging.getLogger("guardrail")

_THROTTLE = Effect.THROTTLE
WHO = {
    "account": "account.id",
    "org": "account.org",
    "credential": "credential.id",
    "network": "client.network",
}
INCOMING = {"request_id": REQUEST_ID, "trace_id": TRACE_ID}
ENDINGS = {
    ending: f'guardrail_endings_total{{ending="{ending}"}}'
    for ending in ("settled", "released", "refused")
}
"""The series that count how requests ended."""
MOST_LINES = 100
FAILURES = "guardrail_failures_total"
_BESIDE = ("decision", "rule", "reason", "mode", "dialect")


class DecisionRecorder:
    """Counts decisions, and hands a record of each to a sink, if there is one.

    Refusals are recorded when they are made, others when they are settled.
    """

    def __init__(
        self,
        sink: DecisionSink | None,
        key: bytes,
        *,
        made_here: bool = False,
        counts: Counts | None = None,
        traffic: TrafficRecorder | None = None,
    ) -> None:
        """Take the sink, and whether it is to be closed here: the host's own is the host's.

        `counts` are this process's own if none are given. `traffic` writes down requests to be
        replayed, and is closed here.
        """
        self._sink = sink
        self._made_here = made_here
        self._names = LoggedNames(key)
        self._traffic = traffic
        self._counts = Counts() if counts is None else counts
        self._said: set[str] = set()
        self._counters: dict[tuple[object, ...], Callable[[], object]] = {}
        self._endings = {
            ending: self._counts.counter(series, series) for ending, series in ENDINGS.items()
        }
        self._unlogged = 0

    def decided(self, decision: Decision, dialect: Dialect, *, owes: bool = False) -> None:
        """Take a decision, and whose words its client reads.

        `owes` tells of a refusal whose work runs all the same: it is recorded when it is settled.
        """
        ruling = decision.ruling
        known = ruling.effect, ruling.rule, ruling.reason, ruling.mode, dialect
        count = self._counters.get(known)
        if count is None:
            effect, mode = str(ruling.effect), str(ruling.mode)
            count = self._counts.counter(
                _decisions(effect, ruling.rule or "", ruling.reason or "", mode, dialect.value),
                _decisions(effect, "", "", mode, dialect.value),
            )
            if len(self._counters) < MOST_SERIES:
                self._counters[known] = count
        count()
        if ruling.reason == INVALID_FACT and self._is_news(str(decision.message)):
            LOG.error("requests are refused, as the host states no identity: %s", decision.message)
        if ruling.effect >= _THROTTLE and not owes:
            self._end(decision, "refused", Settlement(None))

    def settled(self, decision: Decision, settlement: Settlement) -> None:
        """Take how a request ended that was admitted, or that ran although it was refused."""
        ending = "released" if settlement.usage is None else "settled"
        if decision.ruling.effect >= _THROTTLE:
            ending = "refused"
        self._end(decision, ending, settlement)

    def turned_away(self, refusal: OwnRefusal, now: float) -> None:
        """Take a refusal of the door's own at `now`: by an unreadable body, say."""
        series = f'guardrail_door_refusals_total{{reason="{refusal.code}"}}'
        self._counts.counter(series, series)()
        self._endings["refused"]()
        ours = refusal.status >= 500
        self._write(
            lambda: {
                "v": 1,
                "ts": now,
                "id": refusal.id,
                "revision": "",
                "effect": "throttle" if ours else "block",
                "rule": None,
                "reason": refusal.code,
                "retry_after": None,
                "mode": "normal",
                "ending": "refused",
                "status": refusal.status,
                # Nothing was asked for that could be counted: replayed, it costs nothing.
                "estimate": {"requests": 0, "input_tokens": 0, "output_tokens": 0},
                "endpoint": _endpoint(refusal.facts.get("request.endpoint")),
                **self._who(refusal.facts),
            }
        )

    def failed(self) -> None:
        """Take that the guard itself failed over a request."""
        self._counts.counter(FAILURES, FAILURES)()

    def close(self) -> None:
        """Let go of a sink that was made here, and of what is counted into."""
        self._counts.close()
        if self._sink is not None and self._made_here:
            self._sink.close()
        if self._traffic is not None:
            self._traffic.close()

    def take_figures(
        self, health: Health, reloads: Reloads | None, identities: SourceHealth | None = None
    ) -> None:
        """Take how what is asked stands now: other processes tell it as it was taken last."""
        lost = self._unlogged + getattr(self._sink, "lost", 0)
        self._counts.put(dict(_figures(health, reloads, identities or SourceHealth(), lost)))

    def metrics(
        self, health: Health, reloads: Reloads | None, identities: SourceHealth | None = None
    ) -> str:
        """Return the counts in the text format of Prometheus, with the health of what is asked."""
        self.take_figures(health, reloads, identities)
        return "".join(f"{line}\n" for line in self._lines())

    def _is_news(self, line: str) -> bool:
        if line in self._said or len(self._said) >= MOST_LINES:
            return False
        self._said.add(line)
        return True

    def _end(self, decision: Decision, ending: str, settlement: Settlement) -> None:
        self._endings[ending]()
        if self._sink is not None:
            self._write(lambda: self._record(decision, ending, settlement))
        if self._traffic is not None:
            self._traffic.ended(decision, ending, settlement.usage)

    def _write(self, record: Callable[[], dict[str, object]]) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(record())
        except Exception:
            # A log that fails is no reason to refuse, or to leave a request unsettled.
            self._unlogged += 1
            if self._unlogged == 1:
                LOG.exception("a decision was not logged")

    def _record(self, decision: Decision, ending: str, settlement: Settlement) -> dict[str, object]:
        facts, usage = decision.facts, settlement.usage
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
            "served": settlement.model,
            "country": _text(facts.get("geo.country")),
            "facts": self._facts(decision),
            "obligations": {k: _plain(v) for k, v in decision.obligations.items()},
            "shadow": [
                {"rule": found.rule, "effect": str(found.effect), "reason": found.reason}
                for found in decision.shadow
            ],
            "estimate": known_amounts(decision.case.estimate or {}, decision),
            "usage": None if usage is None else known_amounts(usage, decision),
            "errors": len(decision.errors),
        }
        return record | _contact(decision) | self._who(facts)

    def _who(self, facts: Mapping[str, object]) -> dict[str, object]:
        """Return who asked, by keyed hashes, and the ids that the request came with."""
        told: dict[str, object] = {}
        for name, fact in WHO.items():
            if facts.get(fact) is not None:
                told[name] = self._names.of(str(facts[fact]))
        for name, key in INCOMING.items():
            if key in facts:
                told[name] = facts[key]
        return told

    def _facts(self, decision: Decision) -> dict[str, object]:
        """Return the facts that the policies use, so that a replay decides on the same ones."""
        engine = decision.case.engine
        facts = engine.policies.facts
        return told_facts(engine.used_facts, decision.facts, facts, self._names)

    def _lines(self) -> Iterator[str]:
        kind = ""
        for series, count in sorted({FAILURES: 0, **self._counts.totals()}.items()):
            name = series.partition("{")[0]
            if name != kind:
                kind = name
                yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
            yield f"{series} {count}"


def _figures(
    health: Health, reloads: Reloads | None, identities: SourceHealth, unlogged: int
) -> Iterator[tuple[str, int]]:
    """Yield what this process counts elsewhere, by series."""
    yield "guardrail_store_failures_total", health.failures
    yield "guardrail_store_unasked_total", health.unasked
    yield "guardrail_store_away", int(health.breaker != "closed")
    yield "guardrail_corrections_waiting", health.queued
    yield "guardrail_corrections_lost_total", health.lost
    yield "guardrail_corrections_repeated_total", health.repeated
    yield "guardrail_records_lost_total", unlogged
    yield "guardrail_directory_failures_total", identities.failures
    yield "guardrail_directory_failing", int(identities.failing)
    yield "guardrail_directory_bans_waiting", identities.bans_waiting
    if reloads is not None:
        yield 'guardrail_policy_reloads_total{result="loaded"}', reloads.loaded
        yield 'guardrail_policy_reloads_total{result="failed"}', reloads.failed
        yield "guardrail_policy_stale", int(reloads.problem is not None)


def _decisions(*labels: str) -> str:
    told = ",".join(f'{k}="{_label(v)}"' for k, v in zip(_BESIDE, labels, strict=True))
    return f"guardrail_decisions_total{{{told}}}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _text(value: object) -> str | None:
    return value[:LONGEST_TEXT] if isinstance(value, str) else None


def _contact(decision: Decision) -> dict[str, object]:
    """Return whom the policies name for the rule that decided: what is not said is left out."""
    rules = decision.case.engine.policies.rules if decision.rule is not None else ()
    for rule in rules:
        if rule.id == decision.rule:
            about = rule.about.as_dict()
            return {name: about[name] for name in ("owner", "ticket", "labels") if name in about}
    return {}


def _endpoint(name: object) -> str | None:
    return known_endpoint(name) if isinstance(name, str) else None


def _plain(value: object) -> object:
    if isinstance(value, (tuple, list, set, frozenset)):
        return sorted(map(str, value))
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
