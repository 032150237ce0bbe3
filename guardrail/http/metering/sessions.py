"""Meters of connections but Realtime's, and which meter follows a connection.

OpenAI's Responses API: each `response.create` is a request; its frame has the body of one, beside
its type. Responses of one lane (`stream_id`) follow each other, those of several run side by side;
one that steering makes the host start by itself is a turn like any other.

Gemini's Live API: a `setup` configures the turns. A turn starts with content that completes the
client's part, with text, or with what tools answer; where the model hears that the client is done,
with the host's first content. It ends when the host says that it is complete. Names are read in
both of the spellings that JSON of protocol buffers has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import msgspec

from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import decoded, object_of, text_of
from guardrail.http.metering.continuous import PATHS as CONTINUOUS
from guardrail.http.metering.continuous import ContinuousMeter
from guardrail.http.metering.realtime import RealtimeMeter
from guardrail.http.metering.turns import (
    NOTHING,
    Event,
    EventMeter,
    Frame,
    Running,
    SessionMeter,
    Turn,
    doubtful,
    obey,
    texts_in,
)
from guardrail.http.metering.usage_formats import figures_of, with_tools
from guardrail.http.parsing.caps import caps_by_usage
from guardrail.http.parsing.endpoints import JSON_FIELDS, LONGEST_MODEL, endpoint_of
from guardrail.http.parsing.json_body import Members, inner_of, members_of
from guardrail.http.parsing.obligations import disabled_by
from guardrail.http.parsing.reading import read_parts
from guardrail.http.parsing.rewriting import rewritten
from guardrail.http.parsing.shape import shape_of
from guardrail.http.parsing.values import (
    Classifier,
    ParsedRequest,
    ReadingLimits,
    RequestParts,
    RewriteError,
    UnreadableError,
)

PATH = "/v1/responses"

_ENVELOPE = ("type", "event_id", "stream_id")
_QUIET = frozenset({"response.steer", "response.cancel"})
_ENDINGS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.done"}
)


class ResponsesMeter(EventMeter):
    """Follows a connection to the Responses API."""

    speaks_errors = True
    names_model = True

    def __init__(self, *, classifiers: Sequence[Classifier] = (), **more: Any) -> None:
        """Take the readers of the host's own."""
        super().__init__(**{"endpoint": PATH, **more})
        self._classifiers = classifiers
        self._last: Mapping[str, object] = {}

    def read(self, frame: str | bytes) -> Frame:
        """Return what a frame of the client's says; it changes nothing here."""
        found = super().read(frame)
        if found.problem is not None or found.kind != "response.create":
            return found
        body = _body_in(members_of(found.text))
        if body is None:
            problem = "the request stands beside `response` and in it; send it in one place"
            return replace(found, problem=problem)
        content = msgspec.json.encode(body)
        parts = RequestParts("POST", PATH, b"", JSON_FIELDS, content, self._hash_key, self._limits)
        asked = read_parts(parts, self._classifiers)
        return replace(found, asked=asked, problem=asked.problem)

    def sent(self, frame: Frame) -> list[Event]:
        """Take a frame of the client's; return the turn that it asks for, if it asks for one."""
        lane = text_of(frame.event, "stream_id")
        if frame.problem is None and frame.asked is not None:
            return [self._turn(frame.asked, lane, frame.event_id)]
        if frame.problem is None and frame.kind in _QUIET:
            self._context += frame.tokens
            return []
        return [self._unknown(frame, lane=lane)]

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turns that start and end with it."""
        event = decoded(frame) or {}
        kind = event.get("type")
        if not isinstance(kind, str):
            return []
        lane = text_of(event, "stream_id")
        response = object_of(event, "response")
        name = text_of(response, "id")
        if kind in ("response.created", "response.queued", "response.in_progress"):
            return self._started(lane, name)
        if kind in _ENDINGS:
            started = self._started(lane, name)
            running = self._named(lane, name)
            if running is None:
                return started
            told = figures_of(object_of(response, "usage"), UsageFormat.OPENAI_RESPONSES)
            told = with_tools(told, response)
            return [*started, self._end(running, told, response, failed=kind == "response.failed")]
        if kind == "error":
            return self._error(event, lane)
        delta = event.get("delta")
        running = self._named(lane, text_of(event, "response_id"))
        if kind.endswith(".delta") and isinstance(delta, str) and running is not None:
            running.passed(delta, media=kind.endswith("audio.delta"))
        return []

    def changed(self, frame: Frame, turn: Turn, obligations: Mapping[str, object]) -> bytes | None:
        """Return a turn's frame changed as obliged, None if it may stay as it is."""
        if frame.asked is None or turn.automatic:
            obey(turn, obligations)
            return None
        if "stream" in disabled_by(obligations):
            raise RewriteError("a connection streams")
        body = rewritten(frame.asked, obligations)
        if body is None:
            return None
        members = members_of(frame.text)
        envelope = {name: members[name] for name in _ENVELOPE if name in members}
        if "response" in members:
            return msgspec.json.encode({**envelope, "response": msgspec.Raw(body)})
        return msgspec.json.encode({**envelope, **members_of(body)})

    def _turn(
        self,
        asked: ParsedRequest,
        lane: str | None,
        event_id: str | None = None,
        *,
        automatic: bool = False,
        name: str | None = None,
    ) -> Turn:
        document = asked.document if isinstance(asked.document, dict) else {}
        estimate = dict(asked.estimate)
        if document.get("previous_response_id") is not None or automatic:
            estimate["input_tokens"] = estimate.get("input_tokens", 0) + self._context
        facts = dict(asked.facts)
        facts["request.stream"] = True
        self._last = facts
        return Turn(
            number=self._next(),
            facts=facts,
            estimate=estimate,
            automatic=automatic,
            lane=lane,
            name=name,
            event_id=event_id,
            stands=document.get("background") is True,
        )

    def _started(self, lane: str | None, name: str | None) -> list[Event]:
        if self._begun(name, lambda one: one.turn.lane == lane):
            return []
        running = self._oldest(lambda one: one.turn.lane == lane and one.turn.name is None)
        if running is not None or (name is None and self._named(lane, None) is not None):
            return []
        turn = self._most_restricted(0, automatic=True, lane=lane, name=name)
        if self._last:
            # What the host goes on with by itself has the settings of what went before.
            turn = replace(turn, facts=self._last)
        self._unasked(turn)
        return [turn]

    def _named(self, lane: str | None, name: str | None) -> Running | None:
        return self._oldest(lambda one: one.turn.name == name is not None) or self._oldest(
            lambda one: one.turn.lane == lane
        )

    def _error(self, event: Mapping[str, Any], lane: str | None) -> list[Event]:
        running = self._named(lane, None)
        if running is None:
            return []
        told = object_of(event, "error")
        status = event.get("status")
        ours = text_of(told, "type") == "server_error"
        failed = ours or (isinstance(status, int) and (status >= 500 or status == 429))
        return [self._end(running, {} if running.output.pieces else NOTHING, failed=failed)]


def _body_in(members: Members) -> Members | None:
    """Return the request in a frame, None if it has two places for one."""
    beside = {name: members[name] for name in members if name not in (*_ENVELOPE, "response")}
    within = inner_of(members, "response")
    if within is None and "response" in members:
        return {**beside, "response": members["response"]}
    if within is None:
        return beside
    return None if beside else within


METHOD = "bidigeneratecontent"
_CONSTRAINED = f"{METHOD}constrained"  # for tokens that fix what a session is set up with
"""What the last part of the path holds, in lower case."""

_AUDIO_BYTES_PER_TOKEN = 1_707
"""16 kHz of 16 bits as base64, at 25 tokens a second."""
_SETUP = ("setup",)
_CONTENT = ("clientContent", "client_content")
_REALTIME = ("realtimeInput", "realtime_input")
_TOOLS = ("toolResponse", "tool_response")
_KNOWN = frozenset({*_SETUP, *_CONTENT, *_REALTIME, *_TOOLS})
_SERVER = ("serverContent", "server_content")
_USAGE = ("usageMetadata", "usage_metadata")


class LiveMeter(EventMeter):
    """Follows a connection to the Live API."""

    names_model = True

    def __init__(self, *, stored: bool = False, **more: Any) -> None:
        """Take whether a token fixes a setup that is not seen here."""
        super().__init__(**more)
        self._setup: dict[str, Any] | None = None
        self._stored = stored
        self._calling = False

    def sent(self, frame: Frame) -> list[Event]:
        """Take a frame of the client's; return the turns that end and start with it."""
        event = frame.event
        named = [name for name in event if name in _KNOWN]
        problem = frame.problem
        if problem is None and len(named) > 1:
            problem = "the message is several in one; send them one by one"
        try:
            if problem is not None:
                raise UnreadableError(problem)
            if not named or (len(event) > 1):
                return [self._most_restricted(frame.tokens, brief=True)]
            inner = object_of(event, *named)
            if named[0] in _SETUP:
                self._configure(inner)
            asks = self._asks(named[0], inner)
            tokens = self._tokens(named[0], inner, frame)
            if not asks:
                self._context += tokens
                return []
            ended: list[Event] = []
            if self._calling:
                # What tools answer is read with all that went before: a generation of its own.
                self._calling = False
                running = self._oldest(lambda one: True)
                ended = [] if running is None else [self._end(running, {})]
            return [*ended, self._turn(tokens)]
        except UnreadableError as error:
            return [self._most_restricted(frame.tokens, problem=str(error))]

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turns that start and end with it."""
        event = decoded(frame) or {}
        content = object_of(event, *_SERVER)
        usage = object_of(event, *_USAGE)
        calls = object_of(event, "toolCall", "tool_call")
        output = object_of(content, "modelTurn", "model_turn")
        started: list[Event] = []
        running = self._oldest(lambda one: True)
        if running is None:
            if not (output or calls or usage):
                return []
            turn = self._turn(0, automatic=True)
            running = self._unasked(turn)
            started = [turn]
        running.started = True
        self._take(running, output, usage, calls)
        over = any(
            content.get(name) is True for name in ("turnComplete", "turn_complete", "interrupted")
        )
        if not over:
            return started
        self._calling = False
        return [*started, self._end(running, {})]

    def _take(
        self,
        running: Running,
        output: Mapping[str, Any],
        usage: Mapping[str, Any],
        calls: Mapping[str, Any],
    ) -> None:
        """Take what a frame of the host's adds to a turn."""
        for part in output.get("parts") or ():
            text = text_of(part, "text") if isinstance(part, dict) else None
            running.passed(text or "", media=text is None)
        for text in texts_in(calls):
            running.passed(text)
        self._calling = self._calling or bool(calls)
        if usage:
            for unit, amount in figures_of(usage, UsageFormat.GEMINI).items():
                running.told[unit] = max(amount, running.told.get(unit, 0))

    def _configure(self, setup: Mapping[str, Any]) -> None:
        self._stored = self._stored or bool(
            object_of(setup, "sessionResumption", "session_resumption").get("handle")
        )
        previous = self._setup
        self._setup = dict(setup)
        self._turn(0)  # a setup that no turn could start from is a problem
        if previous is not None:
            raise UnreadableError("the session has its setup already; open another one")

    def _asks(self, name: str, inner: Mapping[str, Any]) -> bool:
        if name in _CONTENT:
            complete = inner.get("turnComplete", inner.get("turn_complete"))
            return complete is not False
        return name in _TOOLS or (name in _REALTIME and inner.get("text") is not None)

    def _tokens(self, name: str, inner: Mapping[str, Any], frame: Frame) -> int:
        kinds = [
            kind for blob in _blobs(inner) if (kind := blob.get("mimeType", blob.get("mime_type")))
        ]
        media = all(str(kind).startswith(("audio/", "video/", "image/")) for kind in kinds)
        if name in _REALTIME and inner.get("text") is None and media:
            return len(frame.text) // _AUDIO_BYTES_PER_TOKEN + 1
        return frame.tokens

    def _turn(self, tokens: int, *, automatic: bool = False) -> Turn:
        setup = self._setup or {}
        rules = caps_by_usage(UsageFormat.GEMINI)
        shape = shape_of(
            {name: value for name, value in setup.items() if name != "model"}, "audio", rules
        )
        facts = shape.facts(self._hash_key) | {"request.stream": True}
        if self._setup is None or self._stored:
            facts = doubtful(facts)
        model = text_of(setup, "model") or self._model
        if model is not None:
            facts["request.model"] = model.rpartition("models/")[2][:LONGEST_MODEL]
        estimate = {"requests": 1, "input_tokens": self._context + tokens}
        if shape.counts.output_tokens is not None:
            estimate["output_tokens"] = shape.counts.output_tokens
        return Turn(
            number=self._next(),
            facts={"request.endpoint": self._endpoint, **facts},
            estimate=estimate,
            automatic=automatic,
        )


def _blobs(inner: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the objects that a message holds, those in its lists too."""
    listed = (value if isinstance(value, list) else [value] for value in inner.values())
    return [one for values in listed for one in values if isinstance(one, dict)]


def session_meter(
    path: str,
    query: bytes,
    *,
    hash_key: bytes,
    limits: ReadingLimits,
    model: str | None,
    ephemeral: bool = False,
    classifiers: Sequence[Classifier] = (),
) -> SessionMeter:
    """Return what follows a WebSocket; one that is not known takes each frame for a request.

    `ephemeral` tells that the client's credential was made for one session, whose setup is then
    not seen here.
    """
    endpoint = endpoint_of(path).name
    known: dict[str, Any] = {
        "hash_key": hash_key,
        "endpoint": endpoint,
        "model": model,
        "limits": limits,
    }
    named = parse_qs(query.decode("utf-8", "replace"))
    if endpoint == PATH:
        return ResponsesMeter(classifiers=classifiers, **known)
    if endpoint in CONTINUOUS:
        return ContinuousMeter(**known)
    if endpoint.startswith("/v1/realtime"):
        stored = ephemeral or "call_id" in named or endpoint != "/v1/realtime"
        transcribes = "transcription" in named.get("intent", ())
        return RealtimeMeter(transcribes=transcribes, stored=stored, **known)
    last = path.rpartition("/")[2].lower()
    if METHOD in last:
        return LiveMeter(stored=ephemeral or _CONSTRAINED in last, **known)
    return SessionMeter(**known)
