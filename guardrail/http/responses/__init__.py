"""Answers: a decision as the status, the fields and the body that clients understand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import view_of, wait_of
from guardrail.http.responses.fields import (
    Addressee,
    Field,
    Style,
    admitted_fields,
    id_field,
    quota_fields,
    value_of,
)
from guardrail.http.responses.refusals import (
    JSON,
    PROBLEM,
    Refusal,
    TurnCaller,
    encoded,
    error_body,
    problem,
    refusal_of,
    turn_error,
)

__all__ = [
    "Addressee",
    "Answer",
    "Style",
    "TurnRefusal",
    "admitted_fields",
    "answer",
    "answer_of",
    "degraded_turn",
    "own_refused_turn",
    "refuse",
    "refused_turn",
]

LONGEST_REASON = 123
"""How many bytes may say why a WebSocket is closed (RFC 6455 §5.5)."""

_OTHER = Dialect.OTHER


class Answer(NamedTuple):
    """A whole response of ours; field names are in lower case."""

    status: int
    headers: list[Field]
    body: bytes


class TurnRefusal(NamedTuple):
    """How one turn of a session is refused: the event, and what to say if that closes it."""

    event: str
    reason: str


def answer_of(status: int, kind: bytes, body: bytes, *fields: Field) -> Answer:
    """Return an answer with a body of some media type, and further fields."""
    framed = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    return Answer(status, [*framed, *fields], body)


def refuse(decision: Decision, addressee: Addressee, style: Style) -> Answer:
    """Return the answer to a request that a decision refuses."""
    reading = view_of(decision)
    wait = wait_of(reading, decision.retry_after, style.jitter, style.spread)
    refusal = refusal_of(decision, reading, wait, style.links)
    standings = () if reading.shared else reading.standings
    quota = quota_fields(standings, addressee.dialect, style, decision.case.now)
    return answer(refusal, addressee, style, decision.id, quota)


def answer(
    refusal: Refusal,
    addressee: Addressee,
    style: Style,
    request_id: str,
    more: Iterable[Field] = (),
) -> Answer:
    """Return a refusal as a response in the client's dialect, or as RFC 9457 if it asks so."""
    if _wants_problem(addressee.headers) or addressee.dialect is _OTHER:
        kind, document = PROBLEM, problem(refusal, request_id)
    else:
        kind, document = JSON, error_body(refusal, addressee.dialect, request_id)
    body = encoded(document)
    named = id_field(addressee.dialect), request_id.encode("ascii")
    headers = [(b"cache-control", b"no-store"), *_waiting(refusal), *more, named]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 451:
        headers.append((b"link", f'<{_address(style.blocked_by)}>; rel="blocked-by"'.encode()))
    if style.cross_origin is not None:
        headers += style.cross_origin.fields(addressee.headers)
    return answer_of(refusal.status, kind, body, *headers)


def refused_turn(decision: Decision, style: Style, caller: TurnCaller) -> TurnRefusal:
    """Return how one turn of a session is refused."""
    reading = view_of(decision)
    wait = wait_of(reading, decision.retry_after, style.jitter, style.spread)
    return _of_turn(refusal_of(decision, reading, wait, style.links), decision.id, caller)


def degraded_turn(decision: Decision, caller: TurnCaller) -> str:
    """Return the event that tells that a turn is served with less than it asks for."""
    event = {
        "type": "guardrail.degraded",
        "event_id": decision.id,
        "rule": decision.rule,
        "reason": decision.reason,
        "client_event_id": caller.event_id,
    }
    return json.dumps(event if caller.lane is None else {**event, "stream_id": caller.lane})


def own_refused_turn(
    request_id: str, status: int, code: str, message: str, caller: TurnCaller
) -> TurnRefusal:
    """Return how a turn is refused by what no decision stands behind."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    refusal = Refusal(status=status, kind=kind, code=code, message=message)
    return _of_turn(refusal, request_id, caller)


def _of_turn(refusal: Refusal, request_id: str, caller: TurnCaller) -> TurnRefusal:
    said = refusal.message.encode("utf-8", "backslashreplace")
    reason = said.decode("utf-8")
    if len(said) > LONGEST_REASON:
        reason = said[: LONGEST_REASON - 3].decode("utf-8", "ignore") + "..."
    return TurnRefusal(turn_error(refusal, request_id, caller), reason)


def _address(text: str) -> str:
    return "".join(c for c in text if "!" <= c <= "~" and c not in '<>"')


def _waiting(refusal: Refusal) -> list[Field]:
    wait = refusal.wait
    told = ((b"retry-after", wait.seconds), (b"retry-after-ms", wait.millis))
    fields = [(name, b"%d" % amount) for name, amount in told if amount is not None]
    return fields if wait.retry else [*fields, (b"x-should-retry", b"false")]


def _wants_problem(headers: Iterable[Field]) -> bool:
    accept = value_of(headers, b"accept")
    return accept is not None and PROBLEM in accept.lower()
