"""Reads a request: its endpoint, its body, and from these facts and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs

from guardrail.http.asked.batches import shape_of_batch, shape_of_lines
from guardrail.http.asked.caps import caps_of
from guardrail.http.asked.documents import read_document
from guardrail.http.asked.endpoints import Endpoint, Kind, endpoint_of
from guardrail.http.asked.forms import read_form
from guardrail.http.asked.shapes import LONGEST_MODEL, Shape, generates, shape_of
from guardrail.http.asked.tools import strictest
from guardrail.http.asked.values import (
    FREE,
    Asked,
    Classifier,
    Headers,
    ReadingLimits,
    RequestParts,
    UnreadableError,
)
from guardrail.http.dialects import Dialect, UsageFormat

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")
_STANDARD = ReadingLimits()


class _Content(NamedTuple):
    shape: Shape
    tokens: int
    document: object


def read_request(
    method: str,
    path: str,
    query: bytes,
    headers: Mapping[bytes, bytes] | Headers,
    body: bytes | None,
    *,
    hash_key: bytes,
    limits: ReadingLimits = _STANDARD,
    classifiers: Sequence[Classifier] = (),
) -> Asked:
    """Return what a request asks for. No body makes this raise: see `Asked.problem`.

    `path` is decoded, as routers see it. A `body` that was not read, for its length, is None.
    `hash_key` keys the hashes of templates and tools. The first of the `classifiers` that knows
    the request reads it alone.
    """
    pairs = _pairs(headers)
    return read_parts(
        RequestParts(method.upper(), path, query, pairs, body, hash_key, limits), classifiers
    )


def read_parts(parts: RequestParts, classifiers: Sequence[Classifier] = ()) -> Asked:
    """Return the same for a request in parts, its header names in lower case."""
    for classifier in classifiers:
        if (known := classifier(parts)) is not None:
            return known
    path, pairs, body, limits = parts.path, parts.headers, parts.body, parts.limits
    endpoint = endpoint_of(path)
    if not body and parts.method in _WITHOUT_BODY:
        return _without_body(parts, endpoint)
    try:
        content = _content(parts, endpoint)
        facts = content.shape.facts(parts.hash_key)
        facts["request.endpoint"] = endpoint.name
        facts.update(_of_address(endpoint, parts.query))
    except UnreadableError as error:
        return _unread(parts, endpoint, error)
    return Asked(
        dialect=_dialect(endpoint, pairs),
        facts=facts,
        estimate=_estimate(content, endpoint, limits),
        usage_format=_usage_format(endpoint, content.document, pairs),
        document=content.document,
        body=body,
        path=path,
    )


def header_only(method: str, path: str, headers: Mapping[bytes, bytes] | Headers) -> Asked:
    """Return what is known of a request before its body is read: its endpoint and dialect."""
    endpoint = endpoint_of(path)
    facts: dict[str, object] = {"request.endpoint": endpoint.name}
    if endpoint.model is not None:
        facts["request.model"] = endpoint.model[:LONGEST_MODEL]
    return Asked(
        dialect=_dialect(endpoint, _pairs(headers)),
        facts=facts,
        estimate={},
        usage_format=endpoint.usage,
        path=path,
    )


def _pairs(headers: Mapping[bytes, bytes] | Headers) -> tuple[tuple[bytes, bytes], ...]:
    every = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name.lower(), value) for name, value in every)


def _content(parts: RequestParts, endpoint: Endpoint) -> _Content:
    body = _readable(parts)
    content_type = b""
    for name, value in parts.headers:
        if name == b"content-type":
            content_type += value
    limits = parts.limits
    form = content_type.strip().lower().startswith(_FORMS)
    if form and endpoint.usage in (UsageFormat.OPENAI_MEDIA, UsageFormat.NONE):
        return _of_form(body, content_type, endpoint, limits)
    if not body and endpoint.kind in (Kind.CONTROL, Kind.UNKNOWN):
        return _Content(shape_of({}, "other"), 0, None)
    document = read_document(body, limits)
    members = document.value if isinstance(document.value, dict) else {}
    if document.value.__class__ is not dict and endpoint.kind not in (Kind.CONTROL, Kind.UNKNOWN):
        raise UnreadableError("the body is not a JSON object; send the request's members in one")
    if endpoint.kind is Kind.BATCH:
        return _Content(
            shape_of_batch(members, caps_of(endpoint), limits), document.tokens, document.value
        )
    capability = endpoint.capability
    if capability == "other" and generates(members):
        capability = "chat"
    if endpoint.kind is Kind.COUNT:
        # Nothing is generated, whatever tools the tokens to be counted describe.
        shape = shape_of(members, "other")._replace(capability="other")
        return _Content(shape, document.tokens, document.value)
    shape = shape_of(members, capability, caps_of(endpoint))
    return _Content(shape, document.tokens, document.value)


def _readable(parts: RequestParts) -> bytes:
    """Return the body.

    Raises:
        UnreadableError: it was not read, or is compressed.
    """
    for name, value in parts.headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnreadableError("the body is compressed; send it plain", status=415)
        if name == b"x-body-compressed":
            raise UnreadableError("the body is compressed; send it plain", status=415)
    if parts.body is None or len(parts.body) > parts.limits.max_body:
        raise UnreadableError(
            f"the body is longer than {parts.limits.max_body} bytes; send less at once",
            status=413,
        )
    return parts.body


def _of_form(
    body: bytes, content_type: bytes, endpoint: Endpoint, limits: ReadingLimits
) -> _Content:
    form = read_form(body, content_type)
    if endpoint.kind is Kind.UPLOAD and form.fields.get("purpose") == "batch":
        content = b"\n".join(form.files.values())
        shape, tokens = shape_of_lines(content, limits)
        return _Content(shape, tokens, None)
    shape = shape_of(form.fields, endpoint.capability)
    text = sum(len(str(value)) for value in form.fields.values())
    media = sum(limits.media_tokens + len(file) // 64 for file in form.files.values())
    return _Content(shape, text // 4 + 1 + media, None)


def _estimate(content: _Content, endpoint: Endpoint, limits: ReadingLimits) -> dict[str, int]:
    shape = content.shape
    kind = endpoint.kind
    document = content.document
    if kind is Kind.CONTROL and not (isinstance(document, dict) and generates(document)):
        return dict(FREE)
    if kind is Kind.COUNT:
        return dict(FREE)
    if kind is Kind.UPLOAD and shape.capability == "other":
        return dict(FREE)
    incoming = content.tokens + shape.unseen * limits.unseen_tokens
    if kind is Kind.EMBED:
        return {"requests": 1, "input_tokens": incoming, "output_tokens": 0}
    estimate = {"requests": shape.counts.completions, "input_tokens": incoming}
    if shape.counts.output_tokens is not None:
        estimate["output_tokens"] = shape.counts.output_tokens
    return estimate


def _of_address(endpoint: Endpoint, query: bytes) -> dict[str, object]:
    """Return the facts that a path and a query establish over what a body says."""
    facts: dict[str, object] = {}
    model = endpoint.model
    if model is None and endpoint.name.startswith("/v1/realtime"):
        named = parse_qs(query.decode("utf-8", "replace"), max_num_fields=None).get("model")
        model = named[0] if named and len(named) == 1 else None
    if model is not None:
        facts["request.model"] = model[:LONGEST_MODEL]
    if endpoint.streams:
        facts["request.stream"] = True
    return facts


def _without_body(parts: RequestParts, endpoint: Endpoint) -> Asked:
    realtime = endpoint.name.startswith("/v1/realtime")
    capability = endpoint.capability if realtime else "other"
    facts: dict[str, object] = {
        "request.endpoint": endpoint.name,
        "request.capability": capability,
    }
    if endpoint.kind is not Kind.UNKNOWN:
        # What is not there asks for nothing; on unknown paths a query, or frames, might.
        facts |= {"request.tools": 0, "request.stream": False, "request.reasoning": False}
    return Asked(
        dialect=_dialect(endpoint, parts.headers),
        facts=facts | _of_address(endpoint, parts.query),
        estimate=dict(FREE),
        usage_format=UsageFormat.NONE,
        body=parts.body,
        path=parts.path,
    )


def _unread(parts: RequestParts, endpoint: Endpoint, error: UnreadableError) -> Asked:
    """Return what an unreadable request counts as: the most restricted kind, without a cap."""
    length = len(parts.body) if parts.body is not None else parts.limits.max_body
    facts = {
        "request.endpoint": endpoint.name,
        "request.capability": strictest("agentic", endpoint.capability),
    }
    return Asked(
        dialect=_dialect(endpoint, parts.headers),
        facts=facts | _of_address(endpoint, parts.query),
        estimate={"requests": 1, "input_tokens": length // 4 + 1},
        usage_format=endpoint.usage,
        problem=str(error),
        status=error.status,
        param=error.param,
        body=parts.body,
        path=parts.path,
    )


def _dialect(endpoint: Endpoint, headers: Sequence[tuple[bytes, bytes]]) -> Dialect:
    if endpoint.dialect is Dialect.OTHER or endpoint.kind is Kind.CONTROL:
        names = {name for name, _ in headers}
        if b"anthropic-version" in names:
            return Dialect.ANTHROPIC
        if b"x-goog-api-key" in names:
            return Dialect.GEMINI
    return endpoint.dialect


def _usage_format(
    endpoint: Endpoint, document: object, headers: Sequence[tuple[bytes, bytes]]
) -> UsageFormat:
    """Return how the response is metered; on unknown paths, as the body's shape suggests."""
    if endpoint.usage is not UsageFormat.NONE or not isinstance(document, dict):
        return endpoint.usage
    if endpoint.kind not in (Kind.UNKNOWN, Kind.CONTROL) or not generates(document):
        return UsageFormat.NONE
    if any(name == b"anthropic-version" for name, _ in headers):
        return UsageFormat.ANTHROPIC
    if "messages" in document or "prompt" in document:
        return UsageFormat.OPENAI_CHAT
    return UsageFormat.OPENAI_RESPONSES if "input" in document else UsageFormat.NONE
