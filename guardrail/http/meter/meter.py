"""Meters one response: takes its bytes as they pass, and tells what was used when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from guardrail.http.dialects import UsageFormat
from guardrail.http.meter.events import Event, EventStream
from guardrail.http.meter.figures import Figures
from guardrail.http.meter.skim import Skim, read_whole
from guardrail.http.meter.tally import BYTES_PER_TOKEN, Tally

_DONE = b"[DONE]"
# The bytes of pictures and sounds say nothing of their tokens.
_AS_RESERVED = frozenset({UsageFormat.OPENAI_MEDIA})


class Meter:
    """What one response used; feed it the bytes the host sends, cut anywhere.

    It does no I/O and holds a bounded part of the response: an event up to 64 KiB, and of longer
    ones and of whole bodies the members that tell.
    """

    def __init__(
        self,
        usage_format: UsageFormat,
        streaming: bool,
        reserved: Mapping[str, int] | None = None,
    ) -> None:
        """Take how the response tells its usage, and what was reserved for the request.

        `reserved` is in units; an estimate of what was streamed never exceeds its
        `output_tokens`. `streaming` is what the client asked for: the response's own content type
        goes before it.
        """
        self.status: int | None = None
        self._streaming = streaming
        self._reserved = dict(reserved or {})
        self._tally = Tally(usage_format)
        self._opaque = False
        self._bytes = 0
        self._events: EventStream | None = None
        self._skim: Skim | None = None

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the head of the response."""
        self.status = status
        named = {name.lower(): value.strip().lower() for name, value in headers}
        self._opaque = named.get(b"content-encoding", b"identity") not in (b"", b"identity")
        kind = named.get(b"content-type", b"")
        if kind.startswith(b"text/event-stream") or (self._streaming and b"json" not in kind):
            self._events = EventStream()
        else:
            self._skim = Skim()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        first = not self._bytes
        self._bytes += len(chunk)
        if self._opaque or self._tally.usage_format is UsageFormat.NONE:
            return
        if self._events is not None:
            for event in self._events.feed(chunk):
                _take_event(self._tally, event)
        elif self._skim is not None:
            self._take(self._skim, chunk, first)

    def _take(self, skim: Skim, chunk: bytes, first: bool) -> None:
        whole = read_whole(chunk) if first else None
        if whole is not None:
            skim.complete = True
            self._tally.add(whole, whole=whole.get("done") is not False)
            return
        for document in skim.feed(chunk):
            listed = skim.listed
            self._tally.add(
                document, whole=not listed and document.get("done") is not False, listed=listed
            )
        if skim.listed_whole:
            self._tally.end()

    @property
    def answered(self) -> bool:
        """Whether the host answered with success; if not, what was reserved may be released."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def ended(self) -> bool:
        """Whether the response said that it is over; a closed connection says nothing."""
        if self._skim is not None:
            return self._skim.complete and self._tally.ended
        return self._now().ended

    @property
    def failed(self) -> bool:
        """Whether the stream reported an error."""
        return self._now().failed

    @property
    def served_model(self) -> str | None:
        """The model that answered, by the response's own word."""
        return self._now().model

    def usage(self) -> Mapping[str, int]:
        """Return what was used, in units; a unit that is left out was used as reserved.

        Where the response told its final usage, it is that. Otherwise output is the larger of
        what it told so far and an estimate of what passed, at least 1 and at most what was
        reserved; input is what it told, or as reserved. Of a response that cannot be read for
        its encoding, each byte counts as a token. All is as reserved where the response never
        started or was refused, tells no usage by its kind, or says that the work goes on after it.
        """
        tally = self._now()
        if tally.usage_format is UsageFormat.NONE or not self.answered or tally.deferred:
            return {}
        told = tally.figures
        if (tally.settled and "output_tokens" in told) or tally.usage_format in _AS_RESERVED:
            return told
        return told | {"output_tokens": self._estimated(tally, told)}

    def _estimated(self, tally: Tally, told: Figures) -> int:
        if self._opaque:
            passed = self._bytes
        elif self._events is not None:
            passed = tally.streamed
        else:
            passed = -(-self._bytes // BYTES_PER_TOKEN)
        least = told.get("output_tokens", 0)
        capped = min(max(passed, 1), self._reserved.get("output_tokens", passed or 1))
        return max(capped, least)

    def _now(self) -> Tally:
        """Return the tally as if the response ended here, with what has no end yet."""
        pending = self._events.unfinished() if self._events is not None else None
        if pending is not None:
            tally = self._tally.copy()
            _take_event(tally, pending)
            return tally
        if self._skim is not None and not self._skim.complete and not self._opaque:
            document = self._skim.document()
            if document:
                tally = self._tally.copy()
                tally.add(document)
                return tally
        return self._tally


def _take_event(tally: Tally, event: Event) -> None:
    if event.text is None:
        for document in event.kept:
            tally.add(document)
        if not tally.ended:
            tally.text_bytes += event.size
        return
    if event.text.strip() == _DONE:
        tally.end()
        return
    try:
        document = msgspec.json.decode(event.text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return
    for part in document if isinstance(document, list) else (document,):
        if isinstance(part, dict):
            tally.add(part)
