"""Reads a request: its endpoint, its body, and from these facts and an estimate."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs

from guardrail.http.dialects import Dialect, UsageFormat
from guardrail.http.parsing.batches import (
    NO_BATCH,
    UNREAD,
    shape_of_batch,
    shape_of_lines,
    shape_of_upload,
)
from guardrail.http.parsing.caps import caps_of, caps_of_batches
from guardrail.http.parsing.endpoints import (
    DOCUMENTED,
    FORM,
    JSON,
    LONGEST_MODEL,
    MULTIPART,
    SDP,
    Endpoint,
    Kind,
    endpoint_of,
    is_name,
)
from guardrail.http.parsing.forms import Form, read_form
from guardrail.http.parsing.json_body import read_document, read_named
from guardrail.http.parsing.members import strictest
from guardrail.http.parsing.shape import Shape, generates, shape_of
from guardrail.http.parsing.values import (
    FREE,
    Classifier,
    Headers,
    ParsedRequest,
    ReadingLimits,
    RequestParts,
    UnreadableError,
    shown,
)
from guardrail.model.spellings import is_alike

_BATCH = Kind.BATCH
_CONTROL = Kind.CONTROL
_COUNT = Kind.COUNT
_EMBED = Kind.EMBED
_UNKNOWN = Kind.UNKNOWN
_UPLOAD = Kind.UPLOAD
_OTHER = Dialect.OTHER
_NONE = UsageFormat.NONE
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_FORMS = (MULTIPART, FORM)
_CODED = frozenset({b"content-encoding", b"x-body-compressed"})
_PARAMETERS = re.compile(
    r"(?:[ \t]*+;[ \t]*+"
    r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++|\"[^\"\\]*+\"))?)*"
)
# Some frameworks read an encoded one, `charset*=` (RFC 2231), in the place of a plain one.
_CHARSET = re.compile(r";[ \t]*charset(\*[^=]*)?=\"?([^\";]*)", re.IGNORECASE)
_SPEECH = "/v1/audio/speech"
_CONVERSATION = "/v1/conversations/"
# The addresses of sessions, which name their model in the query.
_SESSIONS = ("/v1/realtime", "/v1/audio/transcriptions/realtime")
_TEXTS = ("prompt", "input", "text")
_INFERENCE = "/v2/models/*/infer"
_MOST_DIGITS = 16
REALTIME_NAMES = ("model", "deployment")
"""What names the model in the address of a session: OpenAI's name, and Azure's."""
_BEGINNING, _TRIED = 256, 1 << 16
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
) -> ParsedRequest:
    """Return what a request asks for. No body makes this raise: see `ParsedRequest.problem`.

    `path` is decoded, as routers see it. A `body` that was not read, for its length, is None.
    `hash_key` keys the hashes of templates and tools. The first of the `classifiers` that knows
    the request reads it alone.
    """
    pairs = _pairs(headers)
    return read_parts(
        RequestParts(method.upper(), path, query, pairs, body, hash_key, limits), classifiers
    )


def read_parts(
    parts: RequestParts,
    classifiers: Sequence[Classifier] = (),
    endpoint: Endpoint | None = None,
) -> ParsedRequest:
    """Return the same for a request in parts, its header names in lower case.

    `endpoint` is that of its path, where it is known.
    """
    for classifier in classifiers:
        if (known := classifier(parts)) is not None:
            return known
    path, pairs, body = parts.path, parts.headers, parts.body
    endpoint = endpoint or endpoint_of(path)
    if endpoint.kind is _CONTROL:
        endpoint = _asked_of(endpoint, parts.method, body)
    if not body and parts.method in _WITHOUT_BODY:
        return _without_body(parts, endpoint)
    try:
        content = _content(parts, endpoint)
        facts = content.shape.facts(parts.hash_key)
        facts["request.endpoint"] = endpoint.name
        vague = endpoint.vague or endpoint.unnamed or endpoint.perhaps is not None
        if parts.query or vague or endpoint.streams or endpoint.model is not None:
            _take_address(facts, endpoint, parts.query)
        if content.shape.others:
            # Whatever the path names, another may answer.
            facts.pop("request.model", None)
    except UnreadableError as error:
        return _unread(parts, endpoint, error)
    return ParsedRequest(
        _dialect(endpoint, pairs),
        facts,
        _estimate(content, endpoint, parts.limits),
        _usage_format(endpoint, content.document, pairs),
        document=content.document,
        body=body,
        path=path,
    )


def _asked_of(endpoint: Endpoint, method: str, body: bytes | None) -> Endpoint:
    """Return what a method makes of stored things: what is not documented may do anything."""
    if (method == "POST" and endpoint.posts) or (method in _WITHOUT_BODY and not body):
        return endpoint
    return endpoint._replace(kind=_UNKNOWN, capability="agentic", vague=True)


def header_only(endpoint: Endpoint, path: str, headers: Headers) -> ParsedRequest:
    """Return what is known of a request before its body is read; that is not to be changed."""
    return _BY_PATH.get(path) or _of_head(endpoint, path, _dialect(endpoint, headers))


def _of_head(endpoint: Endpoint, path: str, dialect: Dialect) -> ParsedRequest:
    facts: dict[str, object] = {"request.endpoint": endpoint.name}
    if endpoint.model is not None:
        facts["request.model"] = endpoint.model[:LONGEST_MODEL]
    return ParsedRequest(dialect, facts, {}, endpoint.usage, path=path)


# Documented paths, at which headers tell nothing of the dialect.
_BY_PATH = {
    path: _of_head(endpoint, path, endpoint.dialect)
    for path, endpoint in DOCUMENTED.items()
    if endpoint.dialect is not _OTHER and endpoint.kind is not _CONTROL
}


def _pairs(headers: Mapping[bytes, bytes] | Headers) -> tuple[tuple[bytes, bytes], ...]:
    every = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name.lower(), value) for name, value in every)


def _content(parts: RequestParts, endpoint: Endpoint) -> _Content:
    content_type = _content_type(parts)
    body, limits, kind = parts.body or b"", parts.limits, JSON
    if not body and endpoint.kind in (_CONTROL, _UNKNOWN):
        return _Content(_vaguely(shape_of({}, endpoint.capability), endpoint), 0, None)
    if endpoint.kind is _UPLOAD and not endpoint.takes and not _is_multipart(content_type):
        return _of_raw_upload(body, endpoint, limits)
    if content_type != JSON or JSON not in endpoint.takes:
        kind = _media_type(content_type, endpoint)
    if kind in _FORMS and not endpoint.unlabelled:
        content = _of_form(body, content_type, endpoint, limits)
        return content._replace(shape=_vaguely(content.shape, endpoint))
    if kind == SDP:
        shape = shape_of({}, endpoint.capability)._replace(opaque=True)
        return _Content(shape, len(body) // 4 + 1, None)
    text = body if endpoint.name != _INFERENCE else _before_tensors(body, parts.headers)
    document, tokens, names = read_named(text, limits)
    if text is not body:
        tokens += (len(body) - len(text)) // 4
    members = document if isinstance(document, dict) else {}
    if document.__class__ is not dict and endpoint.kind not in (_CONTROL, _UNKNOWN):
        raise UnreadableError("the body is not a JSON object; send the request's members in one")
    if endpoint.kind is _BATCH:
        return _Content(shape_of_batch(members, caps_of(endpoint), limits), tokens, document)
    capability = endpoint.capability
    goes_on = False
    if capability == "other" and endpoint.kind is not _EMBED and generates(members):
        goes_on = endpoint.name.startswith(_CONVERSATION)
        capability = "agentic" if goes_on else "chat"
    shape = shape_of(members, capability, caps_of(endpoint), names)
    if goes_on:
        shape = shape._replace(opaque=True, unseen=shape.unseen + 1)
    if endpoint.kind is _COUNT:
        # Nothing is generated, whatever tools the tokens to be counted describe.
        shape = shape._replace(capability="other")
    elif document.__class__ is list:
        # A list of requests, or of what else may ask for something.
        shape = shape._replace(capability="agentic", opaque=True)
    elif kind != JSON and endpoint.unlabelled:
        shape = shape._replace(capability="agentic")
    if endpoint.streams_by_default and members.get("stream") is None:
        shape = shape._replace(stream=True)
    if endpoint.vague or endpoint.goes_on:
        shape = _vaguely(shape, endpoint)
    return _Content(shape, tokens, document)


def _before_tensors(body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the JSON that a body of Triton's begins with; tensors may follow it as bytes."""
    stated = [value for name, value in headers if name == b"inference-header-content-length"]
    if len(stated) != 1 or not stated[0].isdigit() or len(stated[0]) > _MOST_DIGITS:
        return body
    return body[: int(stated[0])]


def _vaguely(shape: Shape, endpoint: Endpoint) -> Shape:
    """Return what a body asks for where its endpoint may read more in it than is known."""
    if endpoint.vague:
        return shape._replace(capability=strictest("agentic", shape.capability), opaque=True)
    if endpoint.goes_on and endpoint.kind is Kind.GENERATE:
        return shape._replace(opaque=True)
    return shape


def _content_type(parts: RequestParts) -> str:
    """Return the media type of a body and its parameters, empty if none is stated.

    Raises:
        UnreadableError: the body was not read, or is compressed, or its type is stated twice:
            hosts take the one or the other.
    """
    headers = parts.headers
    named = dict(headers)
    if not _CODED.isdisjoint(named) and any(
        name == b"x-body-compressed"
        or (name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"))
        for name, value in headers
    ):
        raise UnreadableError("the body is compressed; send it plain", status=415)
    stated = named.get(b"content-type")
    repeats = len(named) != len(headers)
    twice = repeats and sum(name == b"content-type" for name, _ in headers) > 1
    if parts.body is None or len(parts.body) > parts.limits.max_body:
        raise UnreadableError(
            f"the body is longer than {parts.limits.max_body} bytes; send less at once",
            status=413,
        )
    if twice:
        raise UnreadableError("the body's content type is stated twice; send it once", status=415)
    return "" if stated is None else stated.decode("latin-1").strip()


def _media_type(content_type: str, endpoint: Endpoint) -> str:
    """Return what kind of body was sent.

    Raises:
        UnreadableError: the endpoint takes no such bodies, or hosts could read it differently.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if endpoint.takes and kind not in endpoint.takes and not endpoint.unlabelled:
        stated = f"`{shown(kind)}` is" if kind else "a body without a content type is"
        wanted = " or ".join(f"`{taken}`" for taken in endpoint.takes)
        raise UnreadableError(f"{stated} not taken here; send `content-type` {wanted}", status=415)
    if kind in _FORMS:
        return kind
    rest = content_type[len(content_type.partition(";")[0]) :]
    charsets = _CHARSET.findall(rest)
    if _PARAMETERS.fullmatch(rest.rstrip()) is None or any(
        encoded or charset.strip(" \t").lower() not in ("utf-8", "utf8")
        for encoded, charset in charsets
    ):
        raise UnreadableError(
            "the content type has parameters that hosts read differently; send UTF-8, and no "
            "other `charset`",
            status=415,
        )
    return kind


def _is_multipart(content_type: str) -> bool:
    return content_type.lower().startswith(MULTIPART)


def _of_form(body: bytes, content_type: str, endpoint: Endpoint, limits: ReadingLimits) -> _Content:
    form = read_form(body, content_type.encode("latin-1"))
    if endpoint.kind is _UPLOAD:
        return _of_upload(form, endpoint, limits)
    members, tokens, opaque = _with_documents(form.fields, limits)
    shape = shape_of(members, endpoint.capability)
    text = sum(len(str(value)) for value in form.fields.values())
    media = sum(limits.media_tokens + len(file) // 64 for file in form.files.values())
    shape = shape._replace(opaque=shape.opaque or opaque)
    return _Content(shape, max(text // 4 + 1, tokens) + media, None)


def _of_upload(form: Form, endpoint: Endpoint, limits: ReadingLimits) -> _Content:
    """Return what a file may make a host do: one of requests is counted when it is uploaded."""
    if endpoint.capability == "batch":
        # A part of a file, which cannot be told from a part of a file of requests.
        size = sum(len(file) for file in form.files.values())
        return _Content(UNREAD._replace(capability="batch", opaque=True), size // 4 + 1, None)
    purpose = form.fields.get("purpose")
    if purpose is None or str(purpose).strip().lower() in NO_BATCH:
        return _Content(shape_of(form.fields, endpoint.capability), 0, None)
    content = b"\n".join(form.files.values())
    try:
        shape, tokens = shape_of_lines(content, limits)
    except UnreadableError:
        if purpose == "batch":
            raise
        shape, tokens = UNREAD._replace(capability="batch", opaque=True), len(content) // 4 + 1
    return _Content(shape, tokens, None)


def _of_raw_upload(body: bytes, endpoint: Endpoint, limits: ReadingLimits) -> _Content:
    """Return what a file may make a host do that is sent as it is, perhaps in pieces.

    So Gemini's are sent. Its first request, which only describes the file, holds none either.
    """
    shape, tokens = shape_of_upload(body, caps_of_batches(endpoint), limits)
    if shape is None:
        return _Content(shape_of({}, endpoint.capability), 0, None)
    return _Content(shape, tokens, None)


def _with_documents(
    fields: Mapping[str, object], limits: ReadingLimits
) -> tuple[dict[str, object], int, bool]:
    """Return a form's fields with JSON in its place, its tokens, and whether some was unreadable.

    A field of text may be a prompt that begins as JSON does: it is left as it is.
    """
    members, tokens, opaque = dict(fields), 0, False
    for name, value in fields.items():
        if name in _TEXTS or not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
            continue
        try:
            document = read_document(value.encode(), limits)
        except UnreadableError:
            if name == "session":
                raise
            opaque = True
            continue
        members[name], tokens = document.value, tokens + document.tokens
    return members, tokens, opaque


def _estimate(content: _Content, endpoint: Endpoint, limits: ReadingLimits) -> dict[str, int]:
    shape = content.shape
    kind = endpoint.kind
    document = content.document
    if kind is _CONTROL and not (isinstance(document, dict) and generates(document)):
        return dict(FREE)
    if kind is _COUNT:
        return dict(FREE)
    if kind is _UPLOAD and shape.capability == "other":
        return dict(FREE)
    incoming = content.tokens + shape.unseen * limits.unseen_tokens
    if kind is _EMBED:
        return {"requests": 1, "input_tokens": incoming, "output_tokens": 0}
    estimate = {"requests": shape.counts.completions, "input_tokens": incoming}
    if shape.counts.output_tokens is not None:
        estimate["output_tokens"] = shape.counts.output_tokens
    return estimate


def with_units(asked: ParsedRequest) -> ParsedRequest:
    """Return what a request asks for, with how many pictures and seconds, where that is known.

    A request for pictures asks for as many as for completions, one about sound for none, and for
    speech for no sound that is heard; one that makes no model work asks for neither.
    """
    estimate, facts = asked.estimate, asked.facts
    if estimate.get("output_tokens") == 0 and estimate.items() >= FREE.items():
        added = {"images": 0, "audio_seconds": 0}
    elif facts.get("request.capability") == "image":
        added = {"images": estimate.get("requests", 1), "audio_seconds": 0}
    elif facts.get("request.endpoint") == _SPEECH:
        added = {"images": 0, "audio_seconds": 0}
    elif facts.get("request.capability") == "audio":
        added = {"images": 0}
    else:
        return asked
    return asked._replace(estimate={**added, **estimate})


def _of_address(endpoint: Endpoint, query: bytes) -> dict[str, object]:
    """Return the facts that a path and a query establish by themselves."""
    facts: dict[str, object] = {}
    model = endpoint.model
    if model is None and endpoint.name.startswith(_SESSIONS):
        named = _models_in(query, *REALTIME_NAMES)
        model = named[0] if len(set(named)) == 1 and is_name(named[0]) else None
    if model is not None:
        facts["request.model"] = model[:LONGEST_MODEL]
    if endpoint.streams:
        facts["request.stream"] = True
    return facts


def _models_in(query: bytes, *names: str) -> list[str]:
    """Return the values of `model` in a query, or those of other names."""
    if not query:
        return []
    every = parse_qs(query.decode("utf-8", "replace"), max_num_fields=None)
    return [value for name in names or ("model",) for value in every.get(name, [])]


def _take_address(facts: dict[str, object], endpoint: Endpoint, query: bytes) -> None:
    """Add what a path and a query establish to what the body says.

    Some hosts take a `model` of the query anywhere, before the body's.

    Raises:
        UnreadableError: they name another model than the body does: hosts serve one or the other.
    """
    established = _of_address(endpoint, query)
    named, stated = established.get("request.model"), facts.get("request.model")
    if isinstance(named, str) and isinstance(stated, str) and not is_alike(named, stated):
        raise UnreadableError(
            f"the path asks for the model `{shown(named)}` and the body for `{shown(stated)}`; "
            "send one",
            param="model",
        )
    facts.update(established)
    realtime = endpoint.name.startswith(_SESSIONS)
    asked_for = list(dict.fromkeys(_models_in(query, *(REALTIME_NAMES if realtime else ()))))
    known = facts.get("request.model")
    if isinstance(known, str) and not all(is_alike(model, known) for model in asked_for):
        if endpoint.kind is not _UNKNOWN:
            raise UnreadableError(
                f"the query asks for the model `{shown(asked_for[0])}` and the request for "
                f"`{shown(known)}`; send one",
                param="model",
            )
        facts.pop("request.model")
    perhaps = endpoint.perhaps
    doubtful = perhaps is not None and not is_alike(str(facts.get("request.model")), perhaps)
    if endpoint.unnamed or endpoint.vague or doubtful or len(asked_for) > 1:
        facts.pop("request.model", None)


def _without_body(parts: RequestParts, endpoint: Endpoint) -> ParsedRequest:
    realtime = endpoint.name.startswith(_SESSIONS)
    capability = endpoint.capability if realtime or endpoint.vague else "other"
    facts: dict[str, object] = {
        "request.endpoint": endpoint.name,
        "request.capability": capability,
    }
    if endpoint.kind is not _UNKNOWN:
        # What is not there asks for nothing; on unknown paths a query, or frames, might.
        facts |= {"request.tools": 0, "request.stream": False, "request.reasoning": False}
    return ParsedRequest(
        dialect=_dialect(endpoint, parts.headers),
        facts=facts | _of_address(endpoint, parts.query),
        estimate={"requests": 1, "input_tokens": 1} if endpoint.vague else dict(FREE),
        usage_format=_NONE,
        body=parts.body,
        path=parts.path,
    )


def _unread(parts: RequestParts, endpoint: Endpoint, error: UnreadableError) -> ParsedRequest:
    """Return what an unreadable request counts as: the most restricted kind, without a cap."""
    length = len(parts.body) if parts.body is not None else parts.limits.max_body
    facts: dict[str, object] = {
        "request.endpoint": endpoint.name,
        "request.capability": strictest("agentic", endpoint.capability),
    }
    facts |= _of_address(endpoint, parts.query)
    if error.param == "model":
        facts.pop("request.model", None)
    return ParsedRequest(
        dialect=_dialect(endpoint, parts.headers),
        facts=facts,
        estimate={"requests": error.completions, "input_tokens": length // 4 + 1},
        usage_format=endpoint.usage,
        problem=str(error),
        status=error.status,
        param=error.param,
        body=parts.body,
        path=parts.path,
        ambiguous=error.param is None
        and endpoint.dialect is _OTHER
        and _is_read_by_others(parts.body or b""),
    )


def _is_read_by_others(body: bytes) -> bool:
    """Tell whether a body that is not read here is JSON to more forgiving readers.

    Python's takes UTF-16 and UTF-32, a key twice, and numbers that are none.
    """
    start = body[:_BEGINNING].decode(json.detect_encoding(body), "ignore").lstrip("\ufeff \t\r\n")
    if start[:1] not in ("{", "["):
        return False
    if len(body) > _TRIED:
        # Too long to be tried; what begins so is taken for what it seems.
        return True
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _dialect(endpoint: Endpoint, headers: Mapping[bytes, bytes] | Headers) -> Dialect:
    if endpoint.dialect is _OTHER or endpoint.kind is _CONTROL:
        names = {name for name, _ in _pairs(headers)}
        if b"anthropic-version" in names:
            return Dialect.ANTHROPIC
        if b"x-goog-api-key" in names:
            return Dialect.GEMINI
    return endpoint.dialect


def _usage_format(
    endpoint: Endpoint, document: object, headers: Sequence[tuple[bytes, bytes]]
) -> UsageFormat:
    """Return how the response is metered; on unknown paths, as the body's shape suggests."""
    if endpoint.usage is not _NONE or not isinstance(document, dict):
        return endpoint.usage
    if endpoint.kind not in (_UNKNOWN, _CONTROL) or not generates(document):
        return _NONE
    if any(name == b"anthropic-version" for name, _ in headers):
        return UsageFormat.ANTHROPIC
    if not document.keys().isdisjoint(("messages", "message", "prompt", "inputs")):
        return UsageFormat.OPENAI_CHAT
    return UsageFormat.OPENAI_RESPONSES if "input" in document else _NONE
