"""What each provider's webhook says, in one vocabulary, and how it signs what it says.

The words of a provider are not taken at their face: what Persona calls completed was not decided
yet, and what Stripe calls requires_input may have failed or never begun. A status that is not
known here is `unknown`, which grants nothing. That a person's data was deleted (`redacted`) says
nothing of who that person is.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

STATUSES = ("verified", "pending", "action_required", "rejected", "expired", "unknown")
"""The values of `kyc.status`."""

FINAL = frozenset({"verified", "rejected", "expired"})
"""Statuses that end a verification; others never go over them."""

TOLERANCE = 300.0
"""How many seconds a signed time may differ from now."""


class Provider(Enum):
    """Who verifies identities."""

    STRIPE = "stripe"
    PERSONA = "persona"
    VERIFF = "veriff"
    ONFIDO = "onfido"


class Event(NamedTuple):
    """What became of one account's verification, at a time in seconds since the epoch.

    `session` names the attempt; events without one are all of one attempt.
    """

    id: str
    account: str
    status: str
    at: float
    session: str = ""


STRIPE = {
    "verified": "verified",
    "processing": "pending",
    "requires_input": "action_required",
    "canceled": "expired",
}
PERSONA = {
    "approved": "verified",
    "created": "pending",
    "pending": "pending",
    "completed": "pending",
    "needs_review": "pending",
    "failed": "action_required",
    "declined": "rejected",
    "expired": "expired",
}
VERIFF = {
    7001: "pending",
    7002: "pending",
    9001: "verified",
    9102: "rejected",
    9103: "action_required",
    9104: "expired",
    9121: "pending",
}
ONFIDO = {
    "approved": "verified",
    "processing": "pending",
    "review": "pending",
    "awaiting_input": "action_required",
    "declined": "rejected",
    "abandoned": "expired",
}


def is_signed(
    provider: Provider, headers: Mapping[str, str], body: bytes, secret: bytes, now: float
) -> bool:
    """Tell whether a provider signed these bytes, and not long ago where it says when.

    `headers` have names in lower case; the body is as it was sent.
    """
    if provider in (Provider.STRIPE, Provider.PERSONA):
        name = "stripe-signature" if provider is Provider.STRIPE else "persona-signature"
        return _is_signed_then(headers.get(name, ""), body, secret, now)
    name = "x-hmac-signature" if provider is Provider.VERIFF else "x-sha2-signature"
    return _matches(headers.get(name, ""), body, secret)


def event_of(provider: Provider, document: Mapping[str, Any]) -> Event | None:
    """Return what a webhook says of an account, None if it says nothing of one.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError: it is not of the
            provider's shape.
    """
    return _READERS[provider](document)


def _is_signed_then(header: str, body: bytes, secret: bytes, now: float) -> bool:
    """Verify `t=…,v1=…`; while a secret is changed, there are several, parted by blanks."""
    for signed in header.split():
        parts = [part.partition("=") for part in signed.split(",")]
        times = [value for name, _, value in parts if name == "t"]
        if len(times) != 1 or not times[0].isascii() or not times[0].isdigit():
            continue
        fresh = abs(now - int(times[0][:15])) <= TOLERANCE
        text = times[0].encode() + b"." + body
        for name, _, value in parts:
            if name == "v1" and _matches(value, text, secret) and fresh:
                return True
    return False


def _matches(given: str, text: bytes, secret: bytes) -> bool:
    made = hmac.new(secret, text, hashlib.sha256).hexdigest()
    return hmac.compare_digest(given.strip().lower().encode("utf-8", "replace"), made.encode())


def _stripe(document: Mapping[str, Any]) -> Event | None:
    found = document["data"]["object"]
    kind = str(document["type"])
    if not kind.startswith("identity.verification_session.") or kind.endswith(".redacted"):
        return None
    account = found.get("client_reference_id") or (found.get("metadata") or {}).get("account_id")
    status = STRIPE.get(found["status"], "unknown")
    session = found.get("id")
    return _event(document["id"], account, status, float(document["created"]), session)


def _persona(document: Mapping[str, Any]) -> Event | None:
    data = document["data"]
    told = data["attributes"]
    inner = told["payload"]["data"]["attributes"]
    kind = str(told["name"])
    if not kind.startswith("inquiry.") or kind == "inquiry.redacted":
        return None
    account = inner.get("reference-id") or inner.get("referenceId")
    at = told.get("created-at") or told.get("createdAt")
    status = PERSONA.get(inner["status"], "unknown")
    return _event(data["id"], account, status, _time(at), told["payload"]["data"].get("id"))


def _veriff(document: Mapping[str, Any]) -> Event | None:
    found = document.get("verification") or document
    code = int(found["code"])
    at = next((found[name] for name in _VERIFF_TIMES if found.get(name)), None)
    name = f"{found.get('attemptId') or found['id']}/{code}"
    status = VERIFF.get(code, "unknown")
    if at is None and status in FINAL:
        raise ValueError("the decision has no time")
    # Events of a session before its decision carry no time: they never go over a decision.
    moment = 0.0 if at is None else _time(at)
    return _event(name, found.get("vendorData"), status, moment, found["id"])


_VERIFF_TIMES = ("decisionTime", "submissionTime", "acceptanceTime")


def _onfido(document: Mapping[str, Any]) -> Event | None:
    told = document["payload"]
    if told["resource_type"] != "workflow_run":
        return None
    found = told["object"]
    run = told.get("resource") or {}
    at = found.get("completed_at_iso8601") or run.get("updated_at") or run.get("created_at")
    account = run.get("customer_user_id") or found.get("customer_user_id")
    name = f"{found['id']}/{told['action']}/{found['status']}"
    status = ONFIDO.get(found["status"], "unknown")
    return _event(name, account, status, _time(at), found["id"])


def _event(name: object, account: object, status: str, at: float, session: object) -> Event | None:
    if not isinstance(name, str) or not name:
        raise ValueError("the event has no id")
    if not math.isfinite(at):
        raise ValueError("the event has no time")
    if not isinstance(account, str) or not account:
        return None
    attempt = session if isinstance(session, str) else ""
    # Half a character is no text, and neither kept nor logged.
    (name + account + attempt).encode()
    return Event(name[:256], account, status, at, attempt)


def _time(text: object) -> float:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError("the time has no zone")
    return moment.timestamp()


def _readers() -> Iterator[tuple[Provider, Callable[[Mapping[str, Any]], Event | None]]]:
    yield Provider.STRIPE, _stripe
    yield Provider.PERSONA, _persona
    yield Provider.VERIFF, _veriff
    yield Provider.ONFIDO, _onfido


_READERS = dict(_readers())
