"""From a refusal to what HTTP clients know it as: a status, a code, a type, a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.engine import FACTS_UNAVAILABLE, INVALID_FACT, NEVER_FITS, REPEATED, Decision
from guardrail.http.answers.standing import Reading
from guardrail.http.answers.waits import NO_WAIT, Wait
from guardrail.model.conditions import facts_of
from guardrail.model.effects import Effect
from guardrail.model.rules import Block, Rule

STORE_UNAVAILABLE = "store-unavailable"
OURS = frozenset({STORE_UNAVAILABLE, FACTS_UNAVAILABLE, INVALID_FACT})
"""Reasons that are our failure, not the caller's."""

ABNORMAL = "abnormal_usage_detected"
PLACES = frozenset({"geo.country", "payment.country"})
STANDINGS = frozenset({"enforcement.status"})

DO_NEXT = {
    "verify": "Verify your identity to go on.",
    "pay": "Add credit to go on.",
    "contact": "Contact us if you think this is wrong.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an answer says, apart from the dialect it says it in.

    `kind` is OpenAI's error type; `violated` names the caller's own limits that refused.
    """

    status: int
    kind: str
    code: str
    message: str
    reason: str | None = None
    param: str | None = None
    wait: Wait = NO_WAIT
    violated: tuple[str, ...] = ()


def refusal_of(
    decision: Decision, reading: Reading, wait: Wait, links: Mapping[str, str]
) -> Refusal:
    """Return what to say of a decision that refuses; `links` maps remedies to addresses."""
    if decision.reason in OURS:
        return _our_failure(decision, wait)
    if reading.shared:
        return _abnormal(decision, wait, links)
    rule = _rule_of(decision, reading)
    status, kind, code = _named(decision, rule, wait)
    if decision.status is not None and decision.reason not in (NEVER_FITS, REPEATED):
        status = decision.status
    return Refusal(
        status=status,
        kind=kind,
        code=code,
        message=_message(decision, wait, links),
        reason=decision.reason,
        wait=wait,
        violated=tuple(s.name for s in reading.standings if rule and _names(s.name, reading)),
    )


def _named(decision: Decision, rule: Rule | None, wait: Wait) -> tuple[int, str, str]:
    """Return status, type and code of a refusal that may show."""
    reason = decision.reason or "refused"
    if reason == NEVER_FITS:
        return 400, "invalid_request_error", "request_exceeds_quota"
    if reason == REPEATED:
        return 429, "requests", ABNORMAL
    if decision.effect is Effect.THROTTLE:
        return 429, *_throttled(rule, wait)
    return 403, *_blocked(decision, rule, reason)


def _throttled(rule: Rule | None, wait: Wait) -> tuple[str, str]:
    if rule is None:
        return "requests", "rate_limit_exceeded"
    if rule.verb.in_flight:
        return "requests", "concurrency_limit_exceeded"
    if rule.verb.covers is not None and not wait.retry:
        return "insufficient_quota", "insufficient_quota"
    counts_tokens = any("tokens" in unit for unit in rule.verb.units)
    return "tokens" if counts_tokens else "requests", "rate_limit_exceeded"


def _blocked(decision: Decision, rule: Rule | None, reason: str) -> tuple[str, str]:
    reads = facts_of(rule.when) if rule and isinstance(rule.verb, Block) else frozenset()
    if decision.status == 401:
        return "invalid_request_error", "invalid_api_key"
    if decision.status == 402:
        return "insufficient_quota", "insufficient_quota"
    if decision.remedy == "verify":
        return "permission_error", "verification_required"
    if reads & STANDINGS:
        return "permission_error", "account_on_hold"
    if reads & PLACES:
        return "request_forbidden", "unsupported_country_region_territory"
    return "permission_error", reason.replace("-", "_")


def _our_failure(decision: Decision, wait: Wait) -> Refusal:
    return Refusal(
        status=503,
        kind="service_unavailable_error",
        code=(decision.reason or "unavailable").replace("-", "_"),
        message="Limits cannot be checked right now; nothing was charged. Try again shortly.",
        reason=decision.reason,
        wait=wait,
    )


def _abnormal(decision: Decision, wait: Wait, links: Mapping[str, str]) -> Refusal:
    remedy = decision.remedy or "contact"
    again = ""
    if wait.seconds is not None:
        hours = wait.seconds // 3600
        again = f" Try again in {hours} hour{'s' if hours > 1 else ''}."
    return Refusal(
        status=429,
        kind="requests",
        code=ABNORMAL,
        message=f"Unusual usage was detected.{again} {_advice(remedy, links)}",
        reason=ABNORMAL,
        wait=wait,
    )


def _message(decision: Decision, wait: Wait, links: Mapping[str, str]) -> str:
    message = decision.message or "refused"
    ruling = decision.ruling
    if decision.reason == NEVER_FITS:
        return f"Refused by rule `{decision.rule}`: {ruling.message}."
    if ruling.message is None:
        by = f" by rule `{decision.rule}`" if decision.rule else ""
        again = "" if wait.seconds is None else f" Retry in {wait.seconds} s."
        reason = "" if decision.reason in (None, decision.rule) else f": {decision.reason}"
        message = f"Refused{by}{reason}.{again}"
    if decision.remedy is None:
        return message
    # The author's own sentence says what to do; only the address is ours.
    if ruling.message is not None:
        link = links.get(decision.remedy)
        return f"{message} {link}" if link else message
    return f"{message} {_advice(decision.remedy, links)}"


def _advice(remedy: str, links: Mapping[str, str]) -> str:
    link = links.get(remedy)
    return f"{DO_NEXT.get(remedy, '')} {link}" if link else DO_NEXT.get(remedy, "")


def _rule_of(decision: Decision, reading: Reading) -> Rule | None:
    for refused in reading.refusals:
        if refused.rule is not None and refused.rule.id == decision.rule:
            return refused.rule
    return None


def _names(name: str, reading: Reading) -> bool:
    own = {r.rule.id for r in reading.refusals if r.own and r.rule}
    return any(name == rule or name.startswith(f"{rule}.") for rule in own)
