"""The figures of a report: added up request by request, merged, and told as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from guardrail.engine import Decision
from guardrail.model.amounts import SECOND, amount_facts, possible_amounts
from guardrail.model.effects import Effect, Mode
from guardrail.model.policy import PolicySet
from guardrail.model.rules import Budget, Distinct, Rate, Rule
from guardrail.replay.harm import MISSING, Harm, by_impact
from guardrail.replay.report.fills import BANDS, Fills, Row
from guardrail.replay.report.series import Series
from guardrail.replay.tally import Tally
from guardrail.traffic.requests import Request

Fields = dict[str, Any]
Namer = Callable[[str], str]
"""Returns how an account is named to a reader, given its id."""

TOLD_BY = ("account.tier", "request.capability", "request.model", "geo.country")
"""The facts, one by one, that a report tells segments by, besides those that are asked for."""
WORST = 15
"""How many of the accounts that are hurt most are told."""


def report_divisions(
    asked: Sequence[tuple[str, ...]], policies: PolicySet
) -> tuple[tuple[str, ...], ...]:
    """Return the facts that the tally of a report has to tell segments by."""
    usual = ((name,) for name in TOLD_BY if name in policies.facts)
    return tuple(dict.fromkeys((*asked, *usual)))


class ReportFigures:
    """Adds up what a report tells beyond the tally of a replay."""

    def __init__(self) -> None:
        self.series = Series()
        self.fills = Fills()

    def add(self, ts: float, request: Request, decision: Decision) -> None:
        """Count one decided request at `ts` (seconds)."""
        self.series.add(ts, decision.effect)
        self.fills.add(ts, request, decision)

    def merge(self, other: ReportFigures) -> None:
        """Add what was counted elsewhere, for the same policy set."""
        self.series.merge(other.series)
        self.fills.merge(other.fills)

    def fields(self, tally: Tally, policies: PolicySet, named: Namer) -> Fields:
        """Return the figures as plain values, fit for JSON; times are in seconds since the epoch.

        `named` says how an account is named to the reader.
        """
        rules = {rule.id: rule for rule in policies.rules}
        harm = tally.harm
        return {
            "policy": policies.name,
            "revision": policies.revision,
            "requests": tally.requests,
            "accounts": len(tally.accounts),
            "effects": {
                str(effect): {
                    "requests": tally.effect_requests(effect),
                    "accounts": tally.effect_accounts(effect),
                }
                for effect in Effect
            },
            "accounts_refused": len(harm.hits),
            "bin": self.series.width,
            "series": [[start, *counts] for start, counts in self.series.rows()],
            "rules": [_rule_fields(tally, rule) for rule in policies.rules],
            "by_no_rule": sum(
                count
                for (rule, met), count in tally.decided.items()
                if rule is None and met.refuses
            ),
            "segments": list(_segments(harm)),
            "bands": list(BANDS),
            "limits": [_limit_fields(rules[row.rule], row) for row in self._ordered(rules)],
            "worst": [
                {
                    "account": named(account),
                    "requests": hit.requests,
                    "refused": hit.refused,
                    "first": hit.place.ts,
                    "rules": harm.rules_of(account) or ["(no rule)"],
                }
                for account, hit in harm.worst(WORST)
            ],
            "shadow": {
                "requests": {str(met): n for met, n in sorted(tally.shadow.stricter.items())},
                "accounts": len(tally.shadow.accounts),
            },
            "unknown": [
                {"rule": rule, "missing": list(missing), "requests": count}
                for (rule, missing), count in _first(tally.matching.hinged.items())
            ],
            "idle": dict(sorted(tally.idle.items())),
        }

    def _ordered(self, rules: dict[str, Rule]) -> Iterator[Row]:
        yield from sorted(self.fills.rows(), key=lambda row: (rules[row.rule].index, row.unit))


def _segments(harm: Harm) -> Iterator[Fields]:
    """Yield the segments of each division; one whose facts no request states is left out."""
    for division, segments in zip(harm.divisions, harm.segments, strict=True):
        if segments.keys() <= {(MISSING,) * len(division)}:
            continue
        yield {
            "fact": ", ".join(division),
            "rows": [
                [" · ".join(values), *segment.decided] for values, segment in by_impact(segments)
            ],
        }


def _first(pairs: Any) -> list[Any]:
    return sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))


def _rule_fields(tally: Tally, rule: Rule) -> Fields:
    shadow = rule.mode is Mode.SHADOW
    counts = tally.shadow.by_rule if shadow else tally.decided
    return {
        "rule": rule.id,
        "verb": rule.verb.name,
        "mode": rule.mode.value,
        "matched": tally.matching.matched.get(rule.id, 0),
        "owner": rule.about.contact,
        "description": rule.about.description or "",
        **{str(effect): counts.get((rule.id, effect), 0) for effect in Effect if effect},
    }


def _limit_fields(rule: Rule, row: Row) -> Fields:
    verb = rule.verb
    key = getattr(verb, "key", None)
    return {
        **row._asdict(),
        "mode": rule.mode.value,
        "verb": verb.name,
        "key": list(key.facts) if key is not None else [],
        "limit": limit_text(rule, row.unit),
        "amount": only_amount(rule, row.unit),
        "per": period_text(rule),
    }


def only_amount(rule: Rule, unit: str) -> float | None:
    """Return a rule's amount of a unit, money in USD; None where it depends on a request."""
    verb = rule.verb
    at = verb.units.index(unit) if unit in verb.units else 0
    known = possible_amounts(verb.allowances[at])
    if known is None or len(set(known)) != 1 or known[0] is None:
        return None
    number = known[0]
    return number / 1e6 if unit == "cost_usd" else float(number)


def limit_text(rule: Rule, unit: str) -> str:
    """Return a rule's amount of a unit as a person reads it: `5,000`, or `200 to 5,000 by …`."""
    verb = rule.verb
    at = verb.units.index(unit) if unit in verb.units else 0
    amount = verb.allowances[at]
    money = unit == "cost_usd"
    known = possible_amounts(amount)
    by = " and ".join(sorted(amount_facts(amount)))
    if known is None:
        return f"by {by}"
    numbers = sorted({value for value in known if value is not None})
    texts = [f"{value / 1e6:,.2f}" if money else f"{value:,}" for value in numbers]
    if None in known:
        texts.append("unlimited")
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} by {by}"


def period_text(rule: Rule) -> str:
    """Return the time that a limit is for, as a person reads it; empty where there is none."""
    verb = rule.verb
    if isinstance(verb, Budget):
        return {"lifetime": "for ever"}.get(verb.window.kind, f"per {verb.window.text}")
    if isinstance(verb, Rate | Distinct):
        seconds = verb.lasts // SECOND
        sizes = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
        size, name = next(pair for pair in sizes if seconds % pair[0] == 0)
        many = seconds // size
        return f"per {name}" if many == 1 else f"per {many:,} {name}s"
    return ""
