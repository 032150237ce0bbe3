"""Meters one response: takes its bytes as they pass, and tells what was used when it is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import decoded
from guardrail.http.metering.accumulator import Tally
from guardrail.http.metering.chunks import AT_ONCE, READ_TOGETHER, events_of, take_events
from guardrail.http.metering.partial_json import (
    LONGEST_TEXT,
    WANTED,
    WHOLE_ENDS,
    Skim,
    items_of,
    predicted,
    read_whole,
)
from guardrail.http.metering.streams import (
    Decoder,
    EventStream,
    FrameStream,
    UndecodableError,
)
from guardrail.http.metering.texts import BYTES_PER_TOKEN, Unread
from guardrail.http.metering.usage_formats import Figures, figures_of

_NONE = UsageFormat.NONE
_MEDIA = UsageFormat.OPENAI_MEDIA
_USUAL_BYTES, _MOST_BYTES, _SLACK = 6, 10, 4
"""A whole body is not read for its text where so much is told that it can hardly hold more: a token
for six bytes, or one for ten and, but for a fifth, for each blank."""
_PREDICTING = (_MEDIA, UsageFormat.OPENAI_EMBEDDINGS)
_PREDICTIONS = b'"predictions"'
# The bytes of pictures and sounds say nothing of their tokens.
_AS_RESERVED = (_MEDIA,)
_LINES = (b"ndjson", b"jsonl", b"json-lines", b"stream+json", b"json-seq")
_FRAMES = b"application/vnd.amazon.eventstream"
_BEDROCK = b"x-amzn-bedrock-%b-token-count"
_TOLD_BY: Mapping[bytes, str] = {
    _BEDROCK % b"input": "inputTokens",
    _BEDROCK % b"output": "outputTokens",
    _BEDROCK % b"cache-read-input": "cacheReadInputTokens",
    _BEDROCK % b"cache-write-input": "cacheWriteInputTokens",
    b"x-prompt-tokens": "prompt_tokens",
    b"x-generated-tokens": "completion_tokens",
    b"x-compute-tokens": "prompt_tokens",
}
"""Fields in which Bedrock, TGI and TEI tell what bodies of some models do not."""
_SHOWING = (
    UsageFormat.OPENAI_CHAT,
    UsageFormat.OPENAI_COMPLETIONS,
    UsageFormat.OPENAI_RESPONSES,
    UsageFormat.NATIVE,
)
"""Whose hosts may show all of a model's reasoning; others show none, or a summary."""


class _Trust(Enum):
    """How far a response's own word on its usage goes, by its content type.

    `TOLD` is believed. Without a content type, what is told can only `RAISE` what is charged. What
    is told by another type is `NOTHING`: it may be a model's own words.
    """

    TOLD = "told"
    RAISE = "raise"
    NOTHING = "nothing"


_TOLD = _Trust.TOLD
_RAISE = _Trust.RAISE
_NOTHING = _Trust.NOTHING


_ANSWERS: Mapping[UsageFormat, tuple[str, str]] = {
    UsageFormat.OPENAI_CHAT: ("object", "chat.completion"),
    UsageFormat.OPENAI_COMPLETIONS: ("object", "text_completion"),
    UsageFormat.ANTHROPIC: ("type", "message"),
}
"""What a whole answer says that it is."""
_TELLING_MORE = frozenset(path[0] for path in WANTED).difference(
    ("id", "model", "usage", "object", "type", "metadata")  # whose usage only events tell
)
_JSON = b"application/json"


class _Whole(NamedTuple):
    """What an answer tells that came in one piece, and is all there is to know of it."""

    usage: Figures
    model: str | None


class Meter:
    """What one response used; feed it the bytes the host sends, cut anywhere.

    It does no I/O and holds a bounded part of the response: an event up to 64 KiB, a document up to
    256 KiB, and of longer ones the members that tell. What comes of most streams waits, up to
    4 KiB, and is read together.
    """

    # Most responses change few of these: an instance holds what is its own.
    status: int | None = None
    size = 0
    """How many bytes of the body passed."""
    _trust = _TOLD
    _plain = _lines = _opaque = False
    _read = 0
    _decoder: Decoder | None = None
    _events: EventStream | FrameStream | None = None
    _skim: Skim | None = None
    _first: bytes | None = None
    # While `_holds`, the body came in one piece: most are read at their end, and need no more.
    _holds = False
    _held: bytes | None = None
    _told: _Whole | None = None
    # What came of a stream since it was read last.
    _backlog: list[bytes] | None = None
    # The tally as if the response ended after so many bytes, as it was asked for last.
    _cut_at: tuple[int, Tally] | None = None

    def __init__(
        self,
        usage_format: UsageFormat,
        streaming: bool,
        reserved: Mapping[str, int] | None = None,
        *,
        reasons: bool = False,
        background: bool = False,
        echoes: bool = False,
        units: Collection[str] = (),
        guessed: bool = False,
        as_text: bool = False,
    ) -> None:
        """Take how the response tells its usage, and what was reserved for the request.

        `reserved` is in units; an estimate of what was streamed never exceeds its
        `output_tokens`. `streaming` is what the client asked for: the response's own content type
        goes before it. `reasons`, `background` and `echoes` tell that the request asks the model to
        reason, to work on after the response, to repeat the prompt. `units` are a policy's own.
        `guessed` tells that the format is a guess: what is not told then stays as reserved.
        `as_text` tells that the response is text, whatever its type says.
        """
        self._streaming = streaming
        self._reserved = reserved or {}
        self._reasons = reasons
        self.background = background
        self._echoes = echoes
        self._units = units
        self._guessed = guessed
        self._as_text = as_text
        self._format = usage_format

    @cached_property
    def _tally(self) -> Tally:
        return Tally(
            self._format,
            self._reserved.get("input_tokens"),
            feeds=bool(self._units),
            reasons=self._reasons,
        )

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Take the head of the response, the names of its fields in lower case."""
        self.status = status
        named = dict(headers)
        beside = not _TOLD_BY.keys().isdisjoint(named)
        if beside:
            told = {at: named[name] for name, at in _TOLD_BY.items() if name in named}
            self._tally.tell({at: text.decode("latin-1").strip() for at, text in told.items()})
        if b"content-encoding" in named:
            codings = b",".join(value for name, value in headers if name == b"content-encoding")
            if codings.strip(b", ").lower() not in (b"", b"identity"):
                try:
                    self._decoder = Decoder(codings)
                except UndecodableError:
                    self._opaque = True
        kind = named.get(b"content-type", b"").lower().partition(b";")[0].strip()
        coded = self._decoder is not None or self._opaque
        if kind == _JSON and self._format in _ANSWERS and not (beside or coded or self._units):
            self._holds = not self._as_text
        if not self._holds:
            self._frame(kind)

    def _frame(self, kind: bytes) -> None:
        """Take the media type: how the body is cut into documents, and whether it is believed."""
        if self._as_text:
            self._trust = _NOTHING
        elif kind == b"text/event-stream":
            self._events = EventStream()
            if self._format in READ_TOGETHER and self._decoder is None and not self._opaque:
                self._backlog = []
        elif kind == _FRAMES:
            self._events = FrameStream()
        elif b"json" in kind:
            self._skim = Skim()
            self._lines = kind.endswith(_LINES)
        elif not kind:
            self._trust = _RAISE
            self._events = EventStream() if self._streaming else None
            self._skim = None if self._streaming else Skim()
        else:
            self._trust = _NOTHING
            self._plain = kind.startswith(b"text/")

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        size = self.size = self.size + len(chunk)
        backlog = self._backlog
        if backlog is not None:
            backlog.append(bytes(chunk))
            if size - self._read > AT_ONCE:
                self._catch_up(backlog)
            return
        if self._holds:
            if self._held is None and len(chunk) <= LONGEST_TEXT:
                self._held = bytes(chunk)
                return
            self._follow()
        if self._opaque or self._format is _NONE:
            return
        if self._decoder is None:
            self._take(chunk)
            return
        try:
            for piece in self._decoder.feed(chunk):
                self._take(piece)
        except UndecodableError:
            self._opaque = True

    def _catch_up(self, backlog: list[bytes], *, ends: bool = False) -> None:
        """Read what waits; an event that is cut waits on, unless the stream `ends` for now."""
        data = b"".join(backlog)
        backlog.clear()
        if self._events is not None and self._events.between:
            at = data.rfind(b"\n\n") + 2
            texts = events_of(data[:at])
            if texts is not None:
                take_events(self._tally, texts)
                self._read += at
                data = data[at:]
                if not ends:
                    backlog.append(data)
                    return
        if data:
            self._take(data)

    def _follow(self) -> None:
        """Take in what was held; what comes after it is taken in as it comes."""
        held, self._holds, self._held = self._held, False, None
        self._frame(_JSON)
        if held is not None:
            self._take(held)

    @property
    def _whole(self) -> _Whole | None:
        """What a plain answer tells that came in one piece, None where that takes a closer look."""
        if not self._holds:
            return None
        if self._told is None:
            self._told = self._told_by(self._held or b"")
            if self._told is None:
                self._follow()
        return self._told

    def _told_by(self, body: bytes) -> _Whole | None:
        document = decoded(body) if body.endswith(WHOLE_ENDS) else None
        if not document or not _TELLING_MORE.isdisjoint(document):
            return None
        name, said = _ANSWERS[self._format]
        usage, model = document.get("usage"), document.get("model")
        if document.get(name) != said or not isinstance(usage, dict):
            return None
        if None in usage.values():
            usage = {name: amount for name, amount in usage.items() if amount is not None}
        figures = figures_of(usage, self._format, self._reserved.get("input_tokens"))
        out = figures.get("output_tokens")
        if not out or not figures.get("input_tokens") or not _fits(out, body):
            return None
        named = model if model and isinstance(model, str) else None
        return tuple.__new__(_Whole, (figures, named))

    def _take(self, chunk: bytes) -> None:
        first = not self._read
        self._read += len(chunk)
        if first and self._trust is _RAISE and chunk.lstrip()[:1] in (b"{", b"["):
            self._events, self._skim = None, Skim()  # a stream of JSON, not of events
        if self._events is not None:
            for event in self._events.feed(chunk):
                self._tally.take_event(event)
            self._opaque = self._events.broken
        elif self._skim is not None:
            self._take_json(self._skim, chunk, first)
        elif self._plain:
            self._tally.passed.take_plain(chunk)

    def _take_json(self, skim: Skim, chunk: bytes, first: bool) -> None:
        whole = read_whole(chunk) if first else None
        if whole is not None and whole.get("done") is not False and not self._lines:
            skim.complete = True
            skim.text = chunk if len(chunk) <= LONGEST_TEXT else None
            if skim.text is None:
                skim.unread.take(chunk)
            if self._tally.usage_format is _MEDIA:
                self._tally.fed.listed(items_of(chunk))
            self._take_predictions(chunk)
            read = decoded(skim.text) if self._units else None
            self._first = skim.text if read is None else None
            self._tally.add(read or whole, whole=True, kept=read is None)
            return
        for kept in skim.feed(chunk):
            read = decoded(skim.text)
            document = read or kept
            listed = skim.listed
            ends = not listed and not self._lines and document.get("done") is not False
            if ends:
                self._take_predictions(skim.text)
            self._tally.add(document, whole=ends, listed=listed, kept=read is None)
            if skim.text is None and (listed or self._lines):
                self._tally.add_unread(skim.unread.size)
        if self._tally.usage_format is _MEDIA:
            self._tally.fed.listed(skim.items)
        if skim.listed_whole:
            self._tally.end()

    def _take_predictions(self, text: bytes | None) -> None:
        """Take in what a response of Vertex's tells beside its predictions, if it has some."""
        if self._tally.usage_format in _PREDICTING and text is not None and _PREDICTIONS in text:
            self._tally.tell(predicted(text))

    @property
    def answered(self) -> bool:
        """Whether the host answered with success; if not, what was reserved may be released."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def ended(self) -> bool:
        """Whether the response said that it is over; a closed connection says nothing."""
        if self._whole is not None:
            return True
        if self._skim is not None:
            return self._skim.complete and self._tally.ended
        return self._now().ended

    @property
    def failed(self) -> bool:
        """Whether the stream reported an error."""
        return self._whole is None and self._now().failed

    @property
    def served_model(self) -> str | None:
        """The model that answered, by the response's own word."""
        if (whole := self._whole) is not None:
            return whole.model
        return self._now().model if self._trust is _TOLD else None

    @property
    def goes_on(self) -> str | None:
        """The id of work that goes on after the response, None where it does not, or has none."""
        if self._whole is not None:
            return None
        tally = self._now()
        may = tally.deferred or self.background
        return tally.name if may and self._is_deferred(tally) else None

    @property
    def told_end(self) -> str | None:
        """The id of work whose end the response tells, None where it tells none."""
        tally = self._now()
        return tally.name if tally.ended and not tally.deferred else None

    @property
    def told(self) -> bool:
        """Whether the response told its final usage."""
        return self._now().settled and self._trust is _TOLD

    def usage(self) -> Mapping[str, int]:
        """Return what was used, in units; a unit that is left out was used as reserved.

        Where the response told its final usage, it is that; but told figures that are lower than
        what passed at the very least, and an input of nothing, are not believed. Otherwise output
        is the larger of what it told so far and an estimate of what passed since, at least 1; the
        estimate is at most what was reserved. Where a model may have reasoned without showing it,
        output is as reserved if that is larger. Input is what was told, or as reserved.

        Of a response that cannot be read for its encoding, each byte counts as a token, and it
        counts no less than was reserved. All is as reserved where the response never started or
        was refused, tells no usage by its kind, or says that the work goes on after it.
        """
        if self._format is _NONE or not self.answered:
            return {}
        if (whole := self._whole) is not None:
            return whole.usage
        tally = self._now()
        if (tally.deferred or self.background) and self._is_deferred(tally):
            return {}
        if self._first is not None:
            self._read_texts(tally, self._first, tally.figures.get("output_tokens"))
        told = dict(tally.figures) if self._trust is not _NOTHING else {}
        least = 0 if self._echoes else tally.least
        if told.get("input_tokens") == 0 and self._reserved.get("input_tokens", 0):
            del told["input_tokens"]
        if self._trust is _RAISE:
            told.pop("cached_input_tokens", None)  # it makes input cheaper
            if "input_tokens" in told:
                told["input_tokens"] = max(
                    told["input_tokens"], self._reserved.get("input_tokens", 0)
                )
        output = self._output(tally, told, least)
        if self._guessed and (output or not told.get("output_tokens")):
            return {}
        if self._units and self._trust is _TOLD:
            media = tally.usage_format in _AS_RESERVED
            return {**told, **output, **tally.fed.amounts(self._units, media)}
        return {**told, **output}

    def _output(self, tally: Tally, told: Figures, least: int) -> Figures:
        """Return the output, nothing where it stays as told, or, where nothing is, as reserved.

        It was `least` at the very least.
        """
        media = tally.usage_format in _AS_RESERVED
        out = told.get("output_tokens")
        reserved = self._reserved.get("output_tokens")
        if (self._opaque and media) or (self._trust is _NOTHING and not self._plain):
            return {}
        if self._opaque and not (tally.settled and out):
            return {"output_tokens": max(self.size, reserved or 0, out or 0)}
        passed = 0
        believed = out is not None and out >= least and (out > 0 or not self._wrote(tally))
        if (tally.settled and believed and self._trust is _TOLD) or (media and out is None):
            return {}
        if out and believed and not tally.settled and self._trust is _TOLD:
            passed = out + tally.since
        elif not (media and believed):
            passed = self._passed(tally)
        if reserved is not None and (self._may_hide(tally, out) or media):
            passed = max(passed, reserved)
        elif reserved is None and self._may_hide(tally, out):
            return {} if out is None else {"output_tokens": max(out, passed, least)}
        capped = min(max(passed, 1), passed or 1 if reserved is None else reserved)
        return {"output_tokens": max(capped, out or 0, least)}

    def _wrote(self, tally: Tally) -> bool:
        """Whether any text passed, so that an output of nothing cannot be."""
        if self._skim is not None and self._skim.complete and self._skim.text is None:
            return self._tally.usage_format not in _AS_RESERVED
        return tally.estimate > 0 and tally.usage_format is not UsageFormat.OPENAI_EMBEDDINGS

    def _passed(self, tally: Tally) -> int:
        """About how many tokens passed."""
        raw = -(-self._unread(tally) // BYTES_PER_TOKEN)
        if self._trust is _RAISE:
            return max(raw, tally.estimate)
        if self._skim is not None and self._skim.complete and _holds_vectors(self._skim.text):
            return 0
        if self._events is not None:
            return max(tally.estimate, -(-self._events.stray // BYTES_PER_TOKEN))
        return tally.estimate or raw

    def _unread(self, tally: Tally) -> int:
        """About how many bytes of text the response is worth where none was found in it."""
        if self._skim is None or tally.estimate:
            return self._read
        text = self._skim.text if self._skim.complete else self._skim.begun
        if text is None:
            return self._skim.unread.size
        unread = Unread()
        unread.take(text)
        return unread.size + self._read - len(text)

    def _may_hide(self, tally: Tally, out: int | None) -> bool:
        """Whether a model may have reasoned without showing it, and nothing told of it."""
        if tally.settled or (out and tally.usage_format is not UsageFormat.ANTHROPIC):
            return False
        if tally.usage_format in _SHOWING and tally.shows_reasoning:
            return False
        return self._reasons or tally.hidden

    def _is_deferred(self, tally: Tally) -> bool:
        return tally.deferred or (self.background and not (tally.ended and tally.usage))

    def _read_texts(self, tally: Tally, body: bytes, out: int | None) -> None:
        """Read what a body that came in one piece holds, unless so much is told that it fits.

        Only words and text without blanks count: a body with few of both needs no look.
        """
        self._first = None
        if out and _fits(out, body):
            return
        tally.whole.take(decoded(body) or {})

    def _now(self) -> Tally:
        """Return the tally as if the response ended here, with what has no end yet.

        It is asked for several times at the end, and made once.
        """
        if self._holds:
            self._follow()
        if self._backlog:
            self._catch_up(self._backlog, ends=True)
        cut = self._cut_at
        if cut is not None and cut[0] == self.size:
            return cut[1]
        tally = self._tally
        events = self._events
        pending = None if events is None or events.between else events.unfinished()
        if pending is not None:
            tally = tally.copy()
            tally.take_event(pending, cut=True)
        elif self._skim is not None and not self._skim.complete:
            document = self._skim.document()
            if document:
                tally = tally.copy()
                tally.add(document, kept=True)
        self._cut_at = self.size, tally
        return tally


_VECTORS = frozenset({"embedding", "embeddings", "embeddingsByType"})


def _holds_vectors(text: bytes | None) -> bool:
    """Tell whether a response is of vectors, as Bedrock's models of embeddings answer."""
    if text is None or b'"embedding' not in text:
        return False
    return not _VECTORS.isdisjoint(decoded(text) or {})


def _fits(out: int, body: bytes) -> bool:
    """Tell whether so many tokens are told that a whole body can hardly hold more."""
    if out * _USUAL_BYTES >= len(body):
        return True
    return out + out // _SLACK >= max(body.count(b" "), len(body) // _MOST_BYTES)
