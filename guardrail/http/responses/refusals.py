"""What a refusal is to HTTP clients: a status, a code, a type, and a body in each dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from guardrail.engine import FACTS_UNAVAILABLE, INVALID_FACT, NEVER_FITS, REPEATED, Decision
from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import NO_WAIT, ClientView, Wait
from guardrail.model.conditions import facts_of
from guardrail.model.effects import Effect
from guardrail.model.rules import Block, Rule

STORE_UNAVAILABLE = "store-unavailable"
OURS = frozenset({STORE_UNAVAILABLE, FACTS_UNAVAILABLE, INVALID_FACT})
"""Reasons that are our failure, not the caller's."""

UNCHECKED = "Limits cannot be checked right now; nothing was charged. Try again shortly."
"""What a client is told where we fail."""

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
    decision: Decision, reading: ClientView, wait: Wait, links: Mapping[str, str]
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
        message=UNCHECKED,
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


def _rule_of(decision: Decision, reading: ClientView) -> Rule | None:
    for refused in reading.refusals:
        if refused.rule is not None and refused.rule.id == decision.rule:
            return refused.rule
    return None


def _names(name: str, reading: ClientView) -> bool:
    own = {r.rule.id for r in reading.refusals if r.own and r.rule}
    return any(name == rule or name.startswith(f"{rule}.") for rule in own)


JSON = b"application/json"
PROBLEM = b"application/problem+json"

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
"""Where draft-ietf-httpapi-ratelimit-headers-11 registers its problem types."""

ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    401: ("authentication_error", "UNAUTHENTICATED"),
    402: ("billing_error", "FAILED_PRECONDITION"),
    403: ("permission_error", "PERMISSION_DENIED"),
    404: ("not_found_error", "NOT_FOUND"),
    408: ("timeout_error", "DEADLINE_EXCEEDED"),
    413: ("request_too_large", "INVALID_ARGUMENT"),
    415: ("invalid_request_error", "INVALID_ARGUMENT"),
    429: ("rate_limit_error", "RESOURCE_EXHAUSTED"),
    451: ("permission_error", "PERMISSION_DENIED"),
    503: ("api_error", "UNAVAILABLE"),
    504: ("timeout_error", "DEADLINE_EXCEEDED"),
    529: ("overloaded_error", "UNKNOWN"),
}
"""Anthropic's types of errors, and gRPC codes, by statuses; source: google/rpc/code.proto."""


def _errors(status: int) -> tuple[str, str]:
    ours = "api_error" if status >= 500 else "invalid_request_error"
    return ERRORS.get(status, (ours, "UNKNOWN"))


def error_body(refusal: Refusal, dialect: Dialect, request_id: str) -> dict[str, Any]:
    """Return the error in a dialect's own shape; RFC 9457 where none is known."""
    if dialect is Dialect.OPENAI:
        return _openai(refusal)
    if dialect is Dialect.ANTHROPIC:
        return _anthropic(refusal, request_id)
    if dialect is Dialect.GEMINI:
        return _gemini(refusal)
    return problem(refusal, request_id)


def error_frame(refusal: Refusal, dialect: Dialect, request_id: str) -> bytes:
    """Return the event that ends a stream early, such that a dialect's clients raise."""
    data = encoded(error_body(refusal, dialect, request_id))
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


class TurnCaller(NamedTuple):
    """Whom the refusal of a turn is told: `event_id` is the client's own for what asked for it.

    `lanes` tells that the connection speaks the Responses API, and `lane` which of its lanes.
    """

    event_id: str | None = None
    lanes: bool = False
    lane: str | None = None


def turn_error(refusal: Refusal, request_id: str, caller: TurnCaller) -> str:
    """Return the event that refuses one turn of a session, which goes on."""
    error = {**_openai(refusal)["error"], "event_id": caller.event_id}
    if not caller.lanes:
        return json.dumps({"type": "error", "event_id": request_id, "error": error})
    event = {
        "type": "error",
        "status": refusal.status,
        "code": refusal.code,
        "message": refusal.message,
        "param": refusal.param,
        "sequence_number": 0,
        "event_id": request_id,
        "error": error,
    }
    return json.dumps(event if caller.lane is None else {**event, "stream_id": caller.lane})


def problem(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Return a problem document (RFC 9457), with the draft's types where they fit."""
    kind = "about:blank"
    if refusal.code == ABNORMAL:
        kind = PROBLEMS + "abnormal-usage-detected"
    elif refusal.status == 429:
        kind = PROBLEMS + "quota-exceeded"
    elif refusal.status == 503:
        kind = PROBLEMS + "temporary-reduced-capacity"
    document: dict[str, Any] = {
        "type": kind,
        "title": _title(refusal.status),
        "status": refusal.status,
        "detail": refusal.message,
        "instance": f"urn:guardrail:{request_id}",
        "code": refusal.code,
    }
    if refusal.reason:
        document["reason"] = refusal.reason
    if refusal.violated:
        document["violated-policies"] = list(refusal.violated)
    if refusal.wait.seconds is not None:
        document["retry_after"] = refusal.wait.seconds
    return document


def encoded(document: dict[str, Any]) -> bytes:
    """Return a document as compact JSON in UTF-8; what is no character is escaped."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _openai(refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {
        "message": refusal.message,
        "type": refusal.kind,
        "param": refusal.param,
        "code": refusal.code,
    }
    if refusal.reason:
        error["reason"] = refusal.reason
    return {"error": error}


def _anthropic(refusal: Refusal, request_id: str) -> dict[str, Any]:
    error = {
        "type": _errors(refusal.status)[0],
        "message": refusal.message,
        "details": {"error_code": _error_code(refusal)},
    }
    return {"type": "error", "error": error, "request_id": request_id}


def _error_code(refusal: Refusal) -> str:
    generic = refusal.code in ("rate_limit_exceeded", "insufficient_quota")
    return refusal.reason if generic and refusal.reason else refusal.code


def _gemini(refusal: Refusal) -> dict[str, Any]:
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": refusal.code.upper(),
            "domain": "guardrail",
            "metadata": {"reason": refusal.reason or refusal.code},
        }
    ]
    if refusal.wait.seconds is not None:
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo"}
        details.append({**retry, "retryDelay": f"{refusal.wait.seconds}s"})
    status = _errors(refusal.status)[1]
    error = {"code": refusal.status, "message": refusal.message, "status": status}
    return {"error": {**error, "details": details}}


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"
