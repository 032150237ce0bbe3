"""Meters OpenAI's Responses API over a WebSocket: each `response.create` is a request.

Its frame has the body of one, beside its type. Responses of one lane (`stream_id`) follow each
other, those of several run side by side; one that steering makes the host start by itself is a
turn like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from guardrail.http.asked.endpoints import JSON_FIELDS
from guardrail.http.asked.raw import Members, inner_of, members_of
from guardrail.http.asked.reading import read_parts
from guardrail.http.asked.rewriting import rewritten
from guardrail.http.asked.values import Asked, Classifier, RequestParts, RewriteError
from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.figures import figures_of
from guardrail.http.meter.turns import (
    NOTHING,
    Event,
    EventMeter,
    Frame,
    Running,
    Turn,
    decoded,
    obey,
    object_of,
    text_of,
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
        brief = frame.problem is None
        event_id = frame.event_id
        return [
            self._most_restricted(
                frame.tokens, problem=frame.problem, brief=brief, lane=lane, event_id=event_id
            )
        ]

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turns that start and end with it."""
        event = decoded(frame)
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
            return [*started, self._end(running, told, failed=kind == "response.failed")]
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
        disabled = obligations.get("disable")
        if isinstance(disabled, list | tuple) and "stream" in disabled:
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
        asked: Asked,
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
        if self._oldest(lambda one: one.turn.lane == lane and one.turn.name == name is not None):
            return []
        asked = self._oldest(lambda one: one.turn.lane == lane and not one.started)
        if asked is not None:
            asked.started = True
            asked.turn = replace(asked.turn, name=name)
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
        return [self._end(running, {} if running.deltas else NOTHING, failed=failed)]


def _body_in(members: Members) -> Members | None:
    """Return the request in a frame, None if it has two places for one."""
    beside = {name: members[name] for name in members if name not in (*_ENVELOPE, "response")}
    within = inner_of(members, "response")
    if within is None and "response" in members:
        return {**beside, "response": members["response"]}
    if within is None:
        return beside
    return None if beside else within
