"""Answers: a decision as the status, the fields and the body that clients understand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.http.dialects import Dialect
from guardrail.http.responses.client_view import (
    ClientView,
    Jitter,
    Receipts,
    ShownLimit,
    view_of,
    wait_of,
)
from guardrail.http.responses.fields import (
    VERSION,
    CrossOrigin,
    Wording,
    ratelimit_fields,
    value_of,
    vendor_fields,
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
from guardrail.model.amounts import SECOND

Field = tuple[bytes, bytes]

DEGRADED_BY = "x-guardrail-decision"


class Answer(NamedTuple):
    """A whole response of ours; field names are in lower case."""

    status: int
    headers: list[Field]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How answers are written.

    `fields` is the version of the RateLimit fields, None for none; `vendor` whether a dialect's
    own quota headers are sent. `partition` is the key of `pk`, None to leave it out. `links` maps
    remedies to addresses, `blocked_by` is who implements legal blocks (RFC 7725): this server.
    Waits that end at a calendar reset are spread over `spread` seconds by `jitter`. `receipts`
    and `wording` remember what does not change from one answer to the next. `units` are those
    whose limits are enforced here, and so may show, None for all.
    """

    fields: str | None = VERSION
    vendor: bool = True
    partition: bytes | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    blocked_by: str = "/"
    cross_origin: CrossOrigin | None = None
    spread: float = 30.0
    units: frozenset[str] | None = None
    jitter: Jitter = random.random
    receipts: Receipts = field(default_factory=Receipts, compare=False, repr=False)
    wording: Wording = field(default_factory=Wording, compare=False, repr=False)


class Addressee(NamedTuple):
    """What of a request decides how it is answered."""

    dialect: Dialect
    headers: Sequence[Field]


def refuse(decision: Decision, addressee: Addressee, style: Style) -> Answer:
    """Return the answer to a request that a decision refuses."""
    reading = view_of(decision)
    wait = wait_of(reading, decision.retry_after, style.jitter, style.spread)
    refusal = refusal_of(decision, reading, wait, style.links)
    standings = () if reading.shared else reading.standings
    quota = quota_fields(standings, addressee.dialect, style, decision.time)
    return answer(refusal, addressee, style, decision.id, quota)


def answer(
    refusal: Refusal,
    addressee: Addressee,
    style: Style,
    request_id: str,
    more: Iterable[Field] = (),
) -> Answer:
    """Return a refusal as a response in the client's dialect, or as RFC 9457 if it asks so."""
    if _wants_problem(addressee.headers) or addressee.dialect is Dialect.OTHER:
        kind, document = PROBLEM, problem(refusal, request_id)
    else:
        kind, document = JSON, error_body(refusal, addressee.dialect, request_id)
    body = encoded(document)
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
        *_waiting(refusal),
        *more,
        (id_field(addressee.dialect), request_id.encode("ascii")),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 451:
        headers.append((b"link", f'<{_address(style.blocked_by)}>; rel="blocked-by"'.encode()))
    if style.cross_origin is not None:
        headers += style.cross_origin.fields(addressee.headers)
    return Answer(refusal.status, headers, body)


def refused_turn(decision: Decision, style: Style, caller: TurnCaller) -> str:
    """Return the event that refuses one turn of a session."""
    reading = view_of(decision)
    wait = wait_of(reading, decision.retry_after, style.jitter, style.spread)
    return turn_error(refusal_of(decision, reading, wait, style.links), decision.id, caller)


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
) -> str:
    """Return the event that refuses a turn that no decision stands behind."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    refusal = Refusal(status=status, kind=kind, code=code, message=message)
    return turn_error(refusal, request_id, caller)


def admitted_fields(decision: Decision, addressee: Addressee, style: Style) -> list[Field]:
    """Return the fields that go with the host's response to a request that was admitted.

    Only what the caller's own limits say shows; that less is served than was asked always does.
    """
    case = decision.case
    fields: list[Field] = []
    standings: Sequence[ShownLimit] | None = None
    if case.simple:
        # Nothing was found: its receipts tell all that may show.
        shows = style.vendor or style.fields is not None
        standings = style.receipts.standings(case) if shows else ()
    if standings is not None:
        fields = quota_fields(standings, addressee.dialect, style, case.now / SECOND)
    else:
        reading = view_of(decision)
        fields = quota_fields(reading.standings, addressee.dialect, style, decision.time)
        fields += _declared(decision, reading)
    name = case.engine.ids.name(case.serial)
    fields.append((id_field(addressee.dialect), name.encode("ascii")))
    if style.cross_origin is not None:
        fields += style.cross_origin.fields(addressee.headers)
    return fields


def quota_fields(
    standings: Sequence[ShownLimit], dialect: Dialect, style: Style, now: float
) -> list[Field]:
    """Return the RateLimit fields and the dialect's own, for limits that may show."""
    fields: list[Field] = []
    if style.units is not None:
        standings = [standing for standing in standings if standing.unit in style.units]
    if style.fields is not None:
        fields += ratelimit_fields(standings, style.partition, style.wording)
    if style.vendor:
        fields += vendor_fields(dialect, standings, now)
    return fields


def id_field(dialect: Dialect) -> bytes:
    """Return the header that a dialect's clients read a request's id from."""
    return b"request-id" if dialect is Dialect.ANTHROPIC else b"x-request-id"


def _declared(decision: Decision, reading: ClientView) -> list[Field]:
    """Return what declares obligations: a degrade, and the `x-…` entries that may show."""
    obligations = decision.obligations
    if not obligations:
        return []
    fields: list[Field] = []
    served = [f";{name}={obligations[name]}" for name in SERVED if name in obligations]
    if decision.reason is not None or served:
        reason = "abnormal_usage_detected" if reading.shared else decision.reason
        disabled = obligations.get("disable")
        if isinstance(disabled, (list, tuple)):
            served.append(f";disable={'+'.join(map(str, disabled))}")
        fields.append((DEGRADED_BY.encode(), _visible(f"degrade; reason={reason}", *served)))
    shown: set[str] = set()
    for finding in reading.obliged:
        extra = finding.verdict.obligations.extra if finding.verdict.obligations else {}
        for name in extra:
            if name in obligations and name not in shown and name.lower() != DEGRADED_BY:
                shown.add(name)
                fields.append((name.lower().encode("ascii"), _visible(str(obligations[name]))))
    return fields


SERVED = ("model", "max_output_tokens")


def _visible(*parts: str) -> bytes:
    """Return text that can stand in a field: printable ASCII, the rest as `?` (RFC 9110 §5.5)."""
    return "".join(c if " " <= c <= "~" else "?" for c in "".join(parts)).encode("ascii")


def _address(text: str) -> str:
    return "".join(c for c in text if "!" <= c <= "~" and c not in '<>"')


def _waiting(refusal: Refusal) -> list[Field]:
    wait = refusal.wait
    fields: list[Field] = []
    if wait.seconds is not None:
        fields.append((b"retry-after", str(wait.seconds).encode("ascii")))
    if wait.millis is not None:
        fields.append((b"retry-after-ms", str(wait.millis).encode("ascii")))
    if not wait.retry:
        fields.append((b"x-should-retry", b"false"))
    return fields


def _wants_problem(headers: Iterable[Field]) -> bool:
    accept = value_of(headers, b"accept")
    return accept is not None and PROBLEM in accept.lower()
