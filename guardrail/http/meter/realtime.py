"""Meters a Realtime connection by its turns: each response asked for, and what each one used.

A turn starts with the client's `response.create`, or, where the session detects speech, with the
host's `response.created` that no client asked for. It ends with `response.done`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from guardrail.http.asked.documents import read_document
from guardrail.http.asked.shapes import shape_of
from guardrail.http.asked.tools import strictest
from guardrail.http.asked.values import ReadingLimits, UnreadableError
from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.figures import figures_of
from guardrail.http.meter.tally import BYTES_PER_TOKEN

_CAPS = ("max_output_tokens", "max_response_output_tokens")
_KEPT = ("model", "tools", "instructions", "modalities", "output_modalities", *_CAPS)
_AUDIO_BYTES_PER_TOKEN = 4_096
_STANDARD = ReadingLimits()


class Turn(NamedTuple):
    """A response is asked for: facts and an estimate as of a request of its own.

    `automatic` tells that the host started it by itself. `problem` says why the client's frame
    could not be read; such a turn counts as the most restricted kind.
    """

    facts: Mapping[str, object]
    estimate: Mapping[str, int]
    automatic: bool = False
    problem: str | None = None


class TurnUsage(NamedTuple):
    """A turn is over: what it used, in units, and whether it failed."""

    usage: Mapping[str, int]
    failed: bool = False


class RealtimeMeter:
    """Follows the frames of one connection in both directions; bounded, without I/O."""

    def __init__(
        self, *, hash_key: bytes, model: str | None = None, limits: ReadingLimits = _STANDARD
    ) -> None:
        """Take the model that the connection's address names."""
        self._hash_key = hash_key
        self._limits = limits
        self._session: dict[str, object] = {} if model is None else {"model": model}
        self._context = 0
        self._asked = 0
        self._running = 0
        self._deltas = 0
        self._text_bytes = 0
        self._reserved: int | None = None

    def sent(self, frame: str | bytes) -> Turn | None:
        """Take a frame of the client's; return the turn it asks for, None if it asks for none."""
        text = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        try:
            value, tokens = read_document(text, self._limits)
            event = value if isinstance(value, dict) else {}
            kind = event.get("type")
            if kind == "response.create":
                turn = self._turn(_object(event, "response"), tokens)
                self._asked += 1
                return turn
            if kind == "session.update":
                session = _object(event, "session")
                self._turn(session, 0)  # a session that no turn could start from is a problem
                self._session |= {name: session[name] for name in _KEPT if name in session}
        except UnreadableError as error:
            self._asked += 1
            return Turn(
                {"request.capability": "agentic", "request.endpoint": "/v1/realtime"},
                {"requests": 1, "input_tokens": self._context + len(text) // BYTES_PER_TOKEN + 1},
                problem=str(error),
            )
        if kind == "input_audio_buffer.append":
            tokens = len(text) // _AUDIO_BYTES_PER_TOKEN + 1
        self._context += tokens
        return None

    def refused(self) -> None:
        """Take that the turn `sent` returned last is not passed on to the host."""
        self._asked = max(self._asked - 1, 0)

    def received(self, frame: str | bytes) -> Turn | TurnUsage | None:
        """Take a frame of the host's; return the turn that starts or ends with it, if one does."""
        try:
            event = msgspec.json.decode(frame)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        if not isinstance(event, dict):
            return None
        kind = event.get("type")
        if kind == "response.created":
            self._running += 1
            if self._asked:
                self._asked -= 1
                return None
            return self._turn({}, 0)._replace(automatic=True)
        if kind == "response.done":
            return self._done(_object(event, "response"))
        delta = event.get("delta")
        if isinstance(kind, str) and kind.endswith(".delta") and isinstance(delta, str):
            self._deltas += 1
            if not kind.endswith("audio.delta"):
                self._text_bytes += len(delta.encode("utf-8", "replace"))
        return None

    def cut(self) -> TurnUsage | None:
        """Return what the running turn used if the connection ends now, None if none runs."""
        if not self._running and not self._asked:
            return None
        return TurnUsage({"input_tokens": self._context, "output_tokens": self._streamed()})

    def _turn(self, response: Mapping[str, object], tokens: int) -> Turn:
        members = {**self._session, **{name: response[name] for name in _KEPT if name in response}}
        for name in _CAPS:
            if members.get(name) == "inf":
                members[name] = None
        shape = shape_of(members, strictest("audio", "chat"))
        estimate = {"requests": 1, "input_tokens": self._context + tokens}
        self._reserved = shape.counts.output_tokens
        if self._reserved is not None:
            estimate["output_tokens"] = self._reserved
        facts = shape.facts(self._hash_key) | {"request.stream": True}
        return Turn({"request.endpoint": "/v1/realtime", **facts}, estimate)

    def _done(self, response: Mapping[str, object]) -> TurnUsage:
        self._running = max(self._running - 1, 0)
        usage = figures_of(_object(response, "usage"), UsageFormat.OPENAI_RESPONSES)
        if "output_tokens" not in usage:
            usage["output_tokens"] = self._streamed()
        if "input_tokens" in usage:
            self._context = usage["input_tokens"] + usage["output_tokens"]
        self._deltas = self._text_bytes = 0
        return TurnUsage(usage, failed=response.get("status") == "failed")

    def _streamed(self) -> int:
        streamed = max(self._deltas, -(-self._text_bytes // BYTES_PER_TOKEN), 1)
        return streamed if self._reserved is None else min(streamed, self._reserved)


def _object(event: Mapping[str, object], name: str) -> dict[str, object]:
    inner = event.get(name)
    return inner if isinstance(inner, dict) else {}
