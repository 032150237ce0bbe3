"""Answers for proxies that ask whether to pass a request on, each in the words it understands.

* Envoy's HTTP check takes a 5xx for a failure of ours, and may be told to let requests through
  then: no refusal is one.
* nginx's `auth_request` knows 2xx, 401 and 403, and makes an error of its own of all else: the
  status stands in `x-guardrail-status`.
* Traefik and Caddy hand a refusal on as it is.
* AuthZEN 1.0 tells a refusal in the body of a 200.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from guardrail.engine import Decision
from guardrail.http.documents import UNDECODABLE
from guardrail.http.identity.caller import CREDENTIAL_FIELDS
from guardrail.http.parsing.values import FREE
from guardrail.http.request import SHORTLY, Field, Head
from guardrail.http.responses import Addressee, Answer, Style, answer, answer_of
from guardrail.http.responses.refusals import JSON, UNCHECKED, Refusal
from guardrail.model.facts import CAPABILITIES, Fact

STATUS = b"x-guardrail-status"
EVALUATION = "/access/v1/evaluation"
_FRAMING = (b"content-length", b"transfer-encoding")
_LEFT_OUT = frozenset({b"content-type", b"cookie", *CREDENTIAL_FIELDS.values()})
_UNPRINTABLE = re.compile(rb"[\x00-\x20\x7f#]")


class Profile(Enum):
    """Who asks."""

    ENVOY = "envoy"
    NGINX = "nginx"
    FORWARD = "forward"
    AUTHZEN = "authzen"


ORIGINAL: Mapping[Profile, tuple[bytes, bytes]] = {
    Profile.NGINX: (b"x-original-method", b"x-original-uri"),
    Profile.FORWARD: (b"x-forwarded-method", b"x-forwarded-uri"),
}
"""The fields in which a proxy tells the method and the target of the request it holds."""


def original(head: Head, profile: Profile) -> Head | None:
    """Return the head of the request that a proxy asks about, None if it cannot be told.

    What is between a proxy and its host may read a target in another way than it is written:
    climb, cut off what follows `#`, decode once more. Such a target is not told.
    """
    names = ORIGINAL.get(profile)
    if names is None:
        sent = head.raw_path
        raw = (
            head.whole_path.encode("utf-8", "replace") if sent is None else sent.partition(b"?")[0]
        )
        return without_body(head) if _is_plain(raw, head.query) else None
    method, target = (_only(head, name) for name in names)
    if method is None or target is None or not target.startswith(b"/"):
        return None
    raw, _, query = target.partition(b"?")
    if not _is_plain(raw, query):
        return None
    path = unquote(raw.decode("latin-1"))
    kept = tuple(field for field in head.headers if field[0] not in names)
    whole = head.changed(
        method=method.decode("latin-1").upper(),
        path=path,
        whole_path=path,
        raw_path=raw,
        query=query,
        headers=kept,
    )
    return without_body(whole)


def _only(head: Head, name: bytes) -> bytes | None:
    """Return the value of a field that is there once, None if it is not."""
    values = [value for key, value in head.headers if key == name]
    return values[0] if len(values) == 1 else None


def _is_plain(raw: bytes, query: bytes) -> bool:
    """Tell whether a target means one path, whoever resolves it."""
    if _UNPRINTABLE.search(raw) or b"#" in query or b"%" in unquote_to_bytes(raw):
        return False
    path = unquote_to_bytes(raw)
    if _UNPRINTABLE.search(path) or b"\\" in path or b"?" in path:
        return False
    # Some proxies and hosts cut parameters off before they climb.
    return all(part.partition(b";")[0] not in (b".", b"..") for part in path.split(b"/"))


def framing_of(head: Head) -> tuple[Field, ...]:
    """Return what a head says of a body."""
    return tuple(field for field in head.headers if field[0] in _FRAMING)


def is_bare(head: Head) -> bool:
    """Tell whether a request carries nothing that browsers leave out of a preflight.

    Few proxies tell of a body that they hold back, as Envoy and nginx do not: what comes with a
    content type, or with credentials, is a request, whatever it calls itself.
    """
    return _LEFT_OUT.isdisjoint(head.named)


def without_body(head: Head) -> Head:
    """Return a head without what it says of a body that does not come with it."""
    return head.changed(
        headers=tuple(field for field in head.headers if field[0] not in _FRAMING),
        http_version="1.1",
    )


def refusal_for(profile: Profile, refused: Answer, addressee: Addressee, style: Style) -> Answer:
    """Return a refusal as a proxy can hand it on."""
    if profile is Profile.ENVOY and refused.status >= 500:
        request_id = dict(refused.headers).get(b"x-request-id", b"none").decode("ascii")
        busy = Refusal(
            status=429,
            kind="requests",
            code="limits_unavailable",
            message=UNCHECKED,
            wait=SHORTLY,
        )
        return answer(busy, addressee, style, request_id)
    if profile is Profile.NGINX:
        told: Field = (STATUS, str(refused.status).encode("ascii"))
        status = refused.status if refused.status in (401, 403) else 403
        return Answer(status, [*refused.headers, told], refused.body)
    return refused


@dataclass(frozen=True, slots=True)
class Question:
    """What an AuthZEN evaluation asks, as facts and an estimate."""

    facts: Mapping[str, object]
    estimate: Mapping[str, object]


def question_of(body: bytes, facts: Mapping[str, Fact]) -> Question | None:
    """Return the question in an evaluation request, None if it is none.

    The subject is the account, an action a capability where it has the name of one, a resource of
    type `model` the model. Properties and context state facts by their names; others are passed
    over. The caller is a part of the host, and believed.
    """
    try:
        asked = msgspec.json.decode(body, type=dict[str, object])
    except UNDECODABLE:
        return None
    parts = {name: asked.get(name, {}) for name in ("subject", "action", "resource", "context")}
    if not all(isinstance(part, dict) for part in parts.values()):
        return None
    subject, action, resource, context = (dict(part) for part in parts.values())  # type: ignore[call-overload]
    if not all(isinstance(p.get("id"), str) for p in (subject, resource)):
        return None
    if not isinstance(action.get("name"), str):
        return None
    stated: dict[str, object] = {"account.id": subject["id"]}
    if action["name"] in CAPABILITIES:
        stated["request.capability"] = action["name"]
    if resource.get("type") == "model":
        stated["request.model"] = resource["id"]
    for part in (subject.get("properties"), resource.get("properties"), context):
        if isinstance(part, dict):
            stated |= {name: value for name, value in part.items() if name in facts}
    estimate = context.get("estimate")
    if estimate is None:
        return Question(stated, dict(FREE))
    # What is no map of amounts is refused as one of no amounts, not taken for none at all.
    return Question(stated, estimate if isinstance(estimate, dict) else {"estimate": str(estimate)})


def evaluated(decision: Decision | None) -> Answer:
    """Return the answer to an evaluation; None stands for a failure of ours, which permits none."""
    told: dict[str, object] = {"reason": "guard-failed"}
    if decision is not None:
        told = {
            "id": decision.id,
            "effect": str(decision.effect),
            "reason": decision.reason,
            "message": decision.message,
            "retry_after": decision.retry_after,
            "obligations": dict(decision.obligations),
        }
    allowed = decision is not None and decision.allowed
    return _json(200, {"decision": allowed, "context": told})


def not_asked(what: str) -> Answer:
    """Return the answer to what is no evaluation."""
    return _json(400, {"error": what})


def _json(status: int, document: Mapping[str, object]) -> Answer:
    body = msgspec.json.encode(document, enc_hook=_listed)
    return answer_of(status, JSON, body, (b"cache-control", b"no-store"))


def _listed(value: object) -> object:
    return list(value) if isinstance(value, (set, frozenset)) else str(value)
