"""Meters a connection that is fed sound without pause: a translation, a live transcription.

Nothing in it asks for a response: the host translates, or writes down, what it hears as it comes.
So each minute of sound is a turn. It begins with the first piece, reserves a whole minute, and is
settled by what came, or by what the host tells. Names are those of OpenAI's translations and of
Mistral's live transcriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import decoded, object_of, text_of
from guardrail.http.metering.turns import (
    Event,
    EventMeter,
    Frame,
    Running,
    Turn,
)
from guardrail.http.metering.usage_formats import figures_of

PATHS = ("/v1/realtime/translations", "/v1/audio/transcriptions/realtime")
SPAN = 60
"""How many seconds of sound a turn has."""
BYTES_PER_SECOND = 64_000
"""24 kHz of 16 bits as base64."""
AUDIO_BYTES_PER_TOKEN = 4_096

_PIECES = frozenset({"session.input_audio_buffer.append", "input_audio.append"})
_QUIET = frozenset({"session.update", "session.close", "input_audio.flush", "input_audio.end"})
_ENDINGS = frozenset({"session.closed", "transcription.done"})
# The settings of such a connection have none of these.
_UNHEARD = frozenset({"tools", "prompt", "instructions"})


class ContinuousMeter(EventMeter):
    """Follows a connection that is fed sound without pause."""

    speaks_errors = True

    def __init__(self, **more: Any) -> None:
        """Take what is known of the connection."""
        super().__init__(**more)
        self._bytes = 0

    def sent(self, frame: Frame) -> list[Event]:
        """Take a frame of the client's; return the turns that end and start with it."""
        quiet = frame.kind in _QUIET and _UNHEARD.isdisjoint(object_of(frame.event, "session"))
        if frame.problem is None and quiet:
            return []
        if frame.problem is not None or frame.kind not in _PIECES:
            return [self._unknown(frame)]
        running = self._oldest(lambda one: True)
        if running is not None and self._bytes < SPAN * BYTES_PER_SECOND:
            self._bytes += len(frame.text)
            return []
        ended: list[Event] = [] if running is None else [self._over(running, {})]
        self._bytes = len(frame.text)
        return [*ended, self._turn(frame.event_id)]

    def received(self, frame: str | bytes) -> list[Event]:
        """Take a frame of the host's; return the turn that ends with it, if one does."""
        event = decoded(frame) or {}
        kind = event.get("type")
        running = self._oldest(lambda one: True)
        if running is None or not isinstance(kind, str):
            return []
        if kind in _ENDINGS:
            return [self._over(running, event)]
        if kind.endswith(".delta"):
            text = text_of(event, "delta", "text") or ""
            running.passed(text, media=kind.endswith("audio.delta"))
        return []

    def cut(self) -> list[Event]:
        """Return what the running turn used if the connection ends now, and forget it."""
        return [self._over(running, {}) for running in list(self._running.values())]

    def _turn(self, event_id: str | None) -> Turn:
        most = SPAN * BYTES_PER_SECOND // AUDIO_BYTES_PER_TOKEN
        estimate = {"input_tokens": most, "audio_seconds": SPAN}
        return self._hearing(self._model, estimate, family="sound", event_id=event_id)

    def _over(self, running: Running, event: Mapping[str, Any]) -> Event:
        usage = object_of(event, "usage")
        heard = {"input_tokens": self._bytes // AUDIO_BYTES_PER_TOKEN + 1}
        told = figures_of(usage, UsageFormat.OPENAI_RESPONSES)
        document = {"usage": {"seconds": self._bytes / BYTES_PER_SECOND, **usage}}
        return self._end(running, {**heard, **told}, document)
