"""One request until the host gets it: its head, what is read of it, and what happens to it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hmac import compare_digest
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from guardrail.engine import Decision
from guardrail.guard import AsyncGuard, Guard
from guardrail.guard.precheck import Prechecked
from guardrail.http.identity import AmbiguousCredentialError, Caller
from guardrail.http.parsing import (
    Dialect,
    ParsedRequest,
    RequestParts,
    RewriteError,
    header_only,
    read_parts,
    read_plainly,
    rewritten,
    rewritten_path,
    with_stream_usage,
    with_units,
)
from guardrail.http.parsing.endpoints import DOCUMENTED, Kind, endpoint_of
from guardrail.http.parsing.folding import AT_ONCE
from guardrail.http.parsing.obligations import disabled_by
from guardrail.http.parsing.rewriting import CHANGES
from guardrail.http.parsing.shape import names_models
from guardrail.http.parsing.values import FREE
from guardrail.http.responses import Addressee, Answer, answer, answer_of, refuse
from guardrail.http.responses.client_view import NO_WAIT, Wait
from guardrail.http.responses.fields import is_preflight
from guardrail.http.responses.refusals import UNCHECKED, Refusal
from guardrail.http.settings.values import HttpSettings, OwnRefusal
from guardrail.model.effects import Effect
from guardrail.signals import ClientAddress, Signal
from guardrail.signals.directory import Identity

Field = tuple[bytes, bytes]

_OTHER = Dialect.OTHER
_THROTTLE = Effect.THROTTLE
_NAME = itemgetter(0)
_BYTES = frozenset({bytes})


class Head:
    """What is known of a request before its body; header names are in lower case.

    `path` is decoded and without the prefix the host is mounted under, as routers see it;
    `whole_path` is with it, `raw_path` as it was sent, where the server tells. `peer` is the
    address at the other end of the connection, None on a Unix socket. `connection` is the scope or
    the environ it was taken from. `named` has the first value of each header.
    """

    _given = tuple(
        "method path whole_path raw_path query headers peer http_version subprotocols "
        "connection".split()
    )
    __slots__ = (*_given, "announces_body", "named", "repeats", "stated_length")

    def __init__(
        self,
        method: str,
        path: str,
        whole_path: str,
        raw_path: bytes | None,
        query: bytes,
        headers: tuple[Field, ...],
        peer: str | None,
        http_version: str = "1.1",
        subprotocols: tuple[str, ...] = (),
        connection: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.method = method
        self.path = path
        self.whole_path = whole_path
        self.raw_path = raw_path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.http_version = http_version
        self.subprotocols = subprotocols
        self.connection = connection
        named = dict(headers)
        self.repeats = len(named) != len(headers)
        """Whether a field is there more than once."""
        # The first of several counts.
        self.named = named = dict(headers[::-1]) if self.repeats else named
        length = named.get(b"content-length", b"")
        if self.repeats:
            # Of several lengths any may be meant: the first that is not nought counts.
            stated = [value for name, value in headers if name == b"content-length"]
            length = next((value for value in stated if value.strip(b" \t0")), length)
        self.stated_length = int(length) if length.isdigit() and len(length) < 20 else None
        """The length that the request states for its body, None if it states none."""
        self.announces_body = (
            length.strip(b" \t0") != b""
            or b"transfer-encoding" in named
            or not http_version.startswith("1")
        )
        """Whether a body may follow: HTTP/1.x frames every body it has (RFC 9112 §6.3)."""

    def changed(self, **parts: Any) -> Head:
        """Return the head with some of its parts in the place of its own."""
        return Head(**{**{name: getattr(self, name) for name in self._given}, **parts})

    @property
    def sends_body(self) -> bool:
        """Whether a body is on its way, asked for or not (RFC 9110 §10.1.1)."""
        waits = any(n == b"expect" and v.lower() == b"100-continue" for n, v in self.headers)
        return self.announces_body and not waits

    def is_one_of(self, paths: Collection[str]) -> bool:
        """Tell whether the path, as routes see it, is exactly one of `paths`, nothing escaped."""
        if self.path not in paths:
            return False
        raw = self.raw_path
        return raw is None or raw.partition(b"?")[0] == self.whole_path.encode("utf-8", "replace")


def head_of_scope(scope: Mapping[str, Any]) -> Head:
    """Return the head of an ASGI connection, `http` or `websocket`."""
    whole = scope["path"]
    prefix = scope.get("root_path", "").rstrip("/")
    inside = prefix and (whole == prefix or whole.startswith(f"{prefix}/"))
    client = scope.get("client")
    return Head(
        scope.get("method", "GET"),
        whole[len(prefix) :] or "/" if inside else whole,
        whole,
        scope.get("raw_path"),
        scope.get("query_string", b""),
        _fields_of(scope["headers"]),
        client[0] or None if client else None,
        scope.get("http_version", "1.1"),
        tuple(scope.get("subprotocols", ())),
        scope,
    )


def _fields_of(given: Iterable[Iterable[Any]]) -> tuple[Field, ...]:
    """Return the header fields of a scope as bytes, their names in lower case.

    Servers write them so: that is seen at once, and each is kept as it is.
    """
    fields = tuple(map(tuple, given))
    names = b"".join(map(_NAME, fields))
    if names == names.lower() and _BYTES.issuperset(map(type, chain.from_iterable(fields))):
        return fields
    return tuple([(bytes(name).lower(), bytes(value)) for name, value in fields])


def head_of_environ(environ: Mapping[str, Any]) -> Head:
    """Return the head of a WSGI request; its native strings carry bytes (PEP 3333)."""
    path = _decoded(environ.get("PATH_INFO", ""))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    version = str(environ.get("SERVER_PROTOCOL", "HTTP/1.1")).rpartition("/")[2]
    return Head(
        method=environ["REQUEST_METHOD"],
        path=path or "/",
        whole_path=_decoded(environ.get("SCRIPT_NAME", "")) + path,
        raw_path=raw.encode("latin-1", "replace") if isinstance(raw, str) else None,
        query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        headers=tuple(_fields(environ)),
        peer=_peer_of(environ),
        http_version=version,
        connection=environ,
    )


def _peer_of(environ: Mapping[str, Any]) -> str | None:
    """Return the peer's address, None of a Unix socket's: waitress calls that one `localhost`."""
    peer = environ.get("REMOTE_ADDR")
    return None if peer == "localhost" else peer or None


def _fields(environ: Mapping[str, Any]) -> Iterator[Field]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            name = name[5:]
        elif name not in ("CONTENT_TYPE", "CONTENT_LENGTH") or not value:
            continue
        yield name.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace")


def _decoded(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


REQUEST_ID, TRACE_ID = "incoming request id", "incoming trace id"
"""Where a request's facts carry them: no fact of a policy has a blank in its name."""

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def incoming_ids(head: Head) -> dict[str, str]:
    """Return the `X-Request-ID` and the trace of a request, as far as they can be one.

    Whoever sends the request chooses them: they are told in the log, and nothing rests on them.
    Source: W3C Trace Context, `traceparent`.
    """
    found: dict[str, str] = {}
    for name, value in head.headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            found.setdefault(REQUEST_ID, value.decode("ascii"))
        elif name == b"traceparent":
            match = _TRACE.fullmatch(value)
            if match is not None:
                found.setdefault(TRACE_ID, match[1].decode("ascii"))
    return found


LONGEST_AGENT = 256
NOBODY = Caller(ClientAddress(None), None, {})
NOTHING: Mapping[str, int] = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
SHORTLY = Wait(1, None, True)
LINGER = 5.0
"""How many seconds a client that is still sending has to see that it was answered.

A connection closed on unread bytes is reset, and the answer on its way to the client lost: it
tries again what was refused for good.
"""


class Delay(NamedTuple):
    """The request may wait for some seconds and be decided again, instead of being refused."""

    seconds: float


class Forward(NamedTuple):
    """The host gets the request; `body` and `path` are None where they stay as they came.

    `strips_usage`: the stream's usage is asked for by us alone, and taken out again.
    """

    decision: Decision
    body: bytes | None
    path: str | None
    strips_usage: bool


class Request:
    """One request until the host gets it. It is asked in order, and does no input or output.

    Each of these returns an answer if the request ends there: `opened`, then (with the identity of
    its credential) `identified`, `prechecked`, `received` with the body, `decided`.
    """

    guard: AsyncGuard | Guard
    """The guard in force when it was last decided on."""
    # An instance holds what is its own: for many a request, none of these.
    body: bytes | None = None
    caller = NOBODY
    notes: tuple[str, ...] = ()
    unavailable: frozenset[str] = frozenset()
    signals_asked: Sequence[Signal] = ()
    own_id = ""

    def __init__(self, head: Head, settings: HttpSettings, *, is_seen: bool = True) -> None:
        """Take a head; `is_seen` tells whether its body comes with it, if it has one."""
        self.head = head
        self.is_seen = is_seen
        self.has_body = is_seen and head.announces_body
        self._settings = settings
        self._endpoint = DOCUMENTED.get(head.path) or endpoint_of(head.path)
        self.asked: ParsedRequest = header_only(self._endpoint, head.path, head.headers)
        known = self.asked.dialect
        self.dialect = settings.dialect if known is _OTHER else known
        """Whose clients read the answer."""
        self.addressee = tuple.__new__(Addressee, (self.dialect, head.headers))
        """What of the request decides how it is answered."""
        self.facts: dict[str, object] = {}
        self.head_facts: dict[str, object] = {}
        self.known = settings.callers.directory is None
        reading = settings.reading
        self.max_body = (
            reading.max_body if self.known else min(reading.max_body, reading.max_unknown_body)
        )
        """How many bytes of a body are read: fewer of a caller whom the directory does not know."""

    def changes_large_body(self, decision: Decision) -> bool:
        """Tell whether a decision may change a body that is large."""
        body = self.asked.body
        return (
            body is not None
            and len(body) > AT_ONCE
            and decision.allowed
            and bool(self._settings.stream_usage or decision.obligations.keys() & CHANGES)
        )

    def opened(self) -> Answer | None:
        """Read the head: who asks from where, and whether the body can be taken at all."""
        settings, head = self._settings, self.head
        facts = self.facts
        agent = head.named.get(b"user-agent")
        if agent:
            facts["client.agent"] = agent.decode("latin-1")[:LONGEST_AGENT]
        try:
            self.caller = settings.callers.read(
                head.peer,
                head.headers,
                head.query,
                head.subprotocols,
                head.connection,
                named=None if head.repeats else head.named,
            )
        except AmbiguousCredentialError as problem:
            return self.refused(400, "ambiguous_credentials", f"Refused: {problem}.")
        note = self.caller.address.note
        if note is not None:
            self.notes = (note,)
        facts.update(self.caller.facts)
        if b"x-request-id" in head.named or b"traceparent" in head.named:
            facts.update(incoming_ids(head))
        self.head_facts = dict(facts)
        facts.update(self.asked.facts)
        length = head.stated_length
        too_large = length is not None and length > settings.reading.max_body
        return self.too_large() if too_large else None

    def identified(self, identity: Identity) -> Answer | None:
        """Take what the directory says of the credential; refuse a body too long for its caller."""
        self.facts.update(identity.facts)
        if identity.unavailable:
            self.unavailable = identity.unavailable - self.facts.keys()
        # While the directory does not answer, nobody is refused for being unknown to it.
        if "account.id" in identity.facts or "account.id" in identity.unavailable:
            self.known, self.max_body = True, self._settings.reading.max_body
        length = self.head.stated_length
        return self.too_large() if length is not None and length > self.max_body else None

    def prechecked(self, found: Prechecked) -> Answer | None:
        """Take what the guard settled by the head alone; refuse what no body could change."""
        self.facts = dict(found.facts)
        self.unavailable, self.signals_asked = found.unavailable, found.asked
        if found.refusal is None:
            return None
        return refuse(found.refusal, self.addressee, self._settings.style)

    def received(self, body: bytes | None) -> Answer | None:
        """Read the body (None: there is none); refuse one that is not what its endpoint takes.

        On an endpoint that is not known the body may be anything: it is then counted as the most
        restricted kind, unless it is JSON that can be read in two ways. Of a body that is not seen
        here a request counts, tokens do not.
        """
        if not self.is_seen:
            self.asked = self.asked._replace(estimate=dict(FREE))
            self.facts = {**self.asked.facts, **self.facts}
            return None
        settings, head = self._settings, self.head
        asked = None
        if body and not (settings.classifiers or head.repeats or head.query):
            asked = read_plainly(head.path, head.named, body, settings.hash_key, settings.reading)
        if asked is None:
            asked = with_units(read_parts(self._parts, settings.classifiers, self._endpoint))
        self.asked = asked
        dialect = settings.dialect if asked.dialect is _OTHER else asked.dialect
        if dialect is not self.dialect:
            self.dialect = dialect
            self.addressee = Addressee(dialect, head.headers)
        # What the head and the directory establish stands over what a body says.
        stated = asked.facts
        if settings.classifiers:
            stated = {
                name: value
                for name, value in stated.items()
                if name.startswith("request.") or name not in self.facts
            }
        self.facts = facts = {**self.facts, **stated}
        if "request.model" not in stated:
            facts.pop("request.model", None)  # the path's, which may be in doubt by now
        if asked.problem is None:
            return None
        if asked.status == 413 or (
            settings.refuse_unreadable and (asked.ambiguous or asked.dialect is not _OTHER)
        ):
            return self.refused(
                asked.status or 400, "invalid_request", asked.problem, param=asked.param
            )
        return None

    @property
    def _parts(self) -> RequestParts:
        """The request as it came, for what reads it at length."""
        settings, head = self._settings, self.head
        return RequestParts(
            head.method.upper(),
            head.path,
            head.query,
            head.headers,
            self.body or b"",
            settings.hash_key,
            settings.reading,
        )

    def decided(self, decision: Decision, waited: float = 0.0) -> Answer | Delay | Forward:
        """Return what follows a decision; `waited` is how many seconds the request was held."""
        settings = self._settings
        ruling = decision.ruling
        if ruling.effect >= _THROTTLE:
            wait = ruling.retry_after
            holds = ruling.effect is _THROTTLE and wait is not None
            if holds and wait is not None and waited + wait <= settings.max_delay:
                return Delay(wait)
            return refuse(decision, self.addressee, settings.style)
        if ruling.idle and leaves_model_open(decision, self.asked):
            return self._not_possible(MODEL_LEFT_OPEN)
        body: bytes | None = None
        path: str | None = None
        obliged = ruling.obligations
        if obliged and obliged.keys() & CHANGES:
            try:
                if not self.is_seen:
                    raise RewriteError("its body is not seen here")
                body = rewritten(self.asked, obliged, self._parts)
                path = rewritten_path(self.asked, obliged)
            except RewriteError as problem:
                return self._not_possible(str(problem))
        strips = False
        if settings.stream_usage and "stream" not in disabled_by(decision.obligations):
            told = with_stream_usage(self.asked, body)
            body, strips = (body, False) if told is None else (told, True)
        return tuple.__new__(Forward, (decision, body, path, strips))

    def _not_possible(self, why: str) -> Answer:
        message = f"This request could only be served with less than it asks for, and {why}."
        return self.refused(403, "degrade_not_possible", message)

    def too_large(self) -> Answer:
        """Return the answer to a body over the bound."""
        message = f"The body is longer than {self.max_body} bytes; send less at once."
        if not self.known:
            message += f" Accounts may send {self._settings.reading.max_body}."
        return self.refused(413, "request_too_large", message, close=True)

    def too_slow(self) -> Answer:
        """Return the answer to a body that does not arrive in time."""
        message = f"The body did not arrive within {self._settings.body_timeout:g} seconds."
        return self.refused(408, "request_timeout", message, close=True)

    def busy(self) -> Answer:
        """Return the answer where too many large bodies wait to be read."""
        message = "Too many large requests are being read right now; nothing was charged."
        return self.refused(503, "guard_busy", f"{message} Try again shortly.")

    def failed(self) -> Answer:
        """Return the answer where we failed, before the host was asked."""
        return self.refused(503, "guard_failed", UNCHECKED)

    def refused(
        self, status: int, code: str, message: str, *, param: str | None = None, close: bool = False
    ) -> Answer:
        """Return an answer of the door's own, that no decision stands behind, and log it."""
        # HTTP/2 has no connection fields.
        close = close and self.head.http_version.startswith("1")
        self.own_id = self.logged(status, code)
        return own_answer(
            self.addressee, self._settings, self.own_id, status, code, message, param, close
        )

    def logged(self, status: int, code: str) -> str:
        """Log a refusal that no decision stands behind; return the id that its client is told."""
        request_id = secrets.token_hex(12)
        facts = {**incoming_ids(self.head), **self.facts}
        self._settings.on_refusal(OwnRefusal(request_id, status, code, facts))
        return request_id


MODEL_LEFT_OPEN = "which model would answer cannot be told"


def wants_known_model(decision: Decision) -> bool:
    """Tell whether a weaker model is obliged, while it is not known which one would answer."""
    rules, idle = decision.engine.policies.rules, decision.ruling.idle
    if not idle or "request.model" in decision.facts:
        return False
    found = (f for f in decision.case.found if not f.shadow and f.order >= 0)
    return any(rules[finding.order].id in idle for finding in found)


def leaves_model_open(decision: Decision, asked: ParsedRequest) -> bool:
    """Tell whether a weaker model is obliged, while the request leaves open which one it names."""
    if not wants_known_model(decision):
        return False
    endpoint = endpoint_of(asked.path)
    if endpoint.unnamed or endpoint.kind is Kind.UPLOAD:
        return not asked.estimate.items() >= FREE.items()
    return names_models(asked.document, batched=endpoint.kind is Kind.BATCH)


def own_answer(
    addressee: Addressee,
    settings: HttpSettings,
    request_id: str,
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    close: bool = False,
) -> Answer:
    """Return an answer that no decision stands behind; `close` ends the connection with it."""
    ours = status >= 500
    refusal = Refusal(
        status=status,
        kind="service_unavailable_error" if ours else "invalid_request_error",
        code=code,
        message=message,
        param=param,
        wait=SHORTLY if ours else NO_WAIT,
    )
    more = [(b"connection", b"close")] if close else []
    return answer(refusal, addressee, settings.style, request_id, more)


def is_let_through(head: Head, settings: HttpSettings) -> bool:
    """Tell whether a request is none of ours: a preflight, or an exempt path exactly."""
    # HTTP/2 need not state that a body follows; what a body would be is stated all the same.
    if head.method == "OPTIONS":
        labelled = not head.http_version.startswith("1") and head.named.get(b"content-type")
        if not labelled and is_preflight(head.method, head.headers):
            return True
    return head.path in settings.exempt and head.is_one_of(settings.exempt)


def is_scrape(head: Head, settings: HttpSettings) -> bool:
    """Tell whether a request asks for the counts of all workers, and may be told."""
    if head.method != "GET" or settings.metrics is None or not head.is_one_of({settings.metrics}):
        return False
    sent = [value for name, value in head.headers if name == b"authorization"]
    return len(sent) == 1 and compare_digest(sent[0], b"Bearer " + settings.metrics_token)


def counts_answer(text: str) -> Answer:
    """Return counts in the text format of Prometheus as an answer."""
    return answer_of(200, b"text/plain; version=0.0.4; charset=utf-8", text.encode())
