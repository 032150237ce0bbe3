"""The body of a refusal in the words of each dialect."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, NamedTuple

from guardrail.http.answers.refusing import ABNORMAL, Refusal
from guardrail.http.dialects import Dialect

JSON = b"application/json"
PROBLEM = b"application/problem+json"

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
"""Where draft-ietf-httpapi-ratelimit-headers-11 registers its problem types."""

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    451: "permission_error",
    504: "timeout_error",
    529: "overloaded_error",
}

GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    451: "PERMISSION_DENIED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP to gRPC codes; source: google/rpc/code.proto."""


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


class Caller(NamedTuple):
    """Whom the refusal of a turn is told: `event_id` is the client's own for what asked for it.

    `lanes` tells that the connection speaks the Responses API, and `lane` which of its lanes.
    """

    event_id: str | None = None
    lanes: bool = False
    lane: str | None = None


def turn_error(refusal: Refusal, request_id: str, caller: Caller) -> str:
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
        "type": ANTHROPIC_TYPES.get(refusal.status, _anthropic_class(refusal.status)),
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
    status = GOOGLE_STATUSES.get(refusal.status, "UNKNOWN")
    error = {"code": refusal.status, "message": refusal.message, "status": status}
    return {"error": {**error, "details": details}}


def _anthropic_class(status: int) -> str:
    return "api_error" if status >= 500 else "invalid_request_error"


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"
