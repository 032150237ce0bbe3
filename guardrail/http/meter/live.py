"""Meters Gemini's Live API: a connection of turns that a `setup` configures.

A turn starts with content that completes the client's part, with text, or with what tools answer;
where the model hears that the client is done, with the host's first content. It ends when the
host says that it is complete. Names are read in both of the spellings that JSON of protocol
buffers has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.http.asked.caps import caps_by_usage
from guardrail.http.asked.shapes import LONGEST_MODEL, shape_of
from guardrail.http.asked.tools import strictest
from guardrail.http.asked.values import UnreadableError
from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.figures import figures_of
from guardrail.http.meter.turns import (
    Event,
    EventMeter,
    Frame,
    Running,
    Turn,
    decoded,
    object_of,
    text_of,
    texts_in,
)

METHOD = "bidigeneratecontent"
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
_TELLS = {
    "prompt_token_count": "promptTokenCount",
    "responseTokenCount": "candidatesTokenCount",
    "response_token_count": "candidatesTokenCount",
    "thoughts_token_count": "thoughtsTokenCount",
    "tool_use_prompt_token_count": "toolUsePromptTokenCount",
    "cached_content_token_count": "cachedContentTokenCount",
    "total_token_count": "totalTokenCount",
}
"""Names of the Live API's usage, as the rest of Gemini's API has them."""


class LiveMeter(EventMeter):
    """Follows a connection to the Live API."""

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
        event = decoded(frame)
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
            told = {_TELLS.get(name, name): figure for name, figure in usage.items()}
            figures = figures_of(told, UsageFormat.GEMINI)
            for unit, amount in figures.items():
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
            for name in ("request.tools", "request.toolset", "request.reasoning"):
                facts.pop(name, None)
            facts["request.capability"] = strictest(shape.capability, "agentic")
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
