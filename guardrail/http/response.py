"""The response to an admitted request: what goes with it, what it used, how its request ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import decoded
from guardrail.http.metering import Meter
from guardrail.http.parsing import ParsedRequest
from guardrail.http.parsing.endpoints import Kind, endpoint_of
from guardrail.http.parsing.values import FREE
from guardrail.http.responses import Addressee, Style, admitted_fields
from guardrail.http.responses.refusals import Refusal, error_frame
from guardrail.model.policy import PolicySet

Field = tuple[bytes, bytes]

_NONE = UsageFormat.NONE
_MEDIA = UsageFormat.OPENAI_MEDIA
_TEXTS = ("text", "srt", "vtt")
_FORMAT = re.compile(rb'name="?response_format"?')
_IS_TEXT = re.compile(rb"[^\r\n]{0,128}\r?\n(?:[^\r\n]{1,128}\r?\n){0,4}\r?\n(?:text|srt|vtt)\s")
_MOST_FORMATS = 8
_ASKING = frozenset({"background", "deferred", "echo", "response_format"})
"""Members of a body that tell how its response is metered; few bodies have any."""
BROKEN_OFF = Refusal(
    status=500,
    kind="server_error",
    code="stream_broken_off",
    message="The stream broke off before its end; what it said so far may be incomplete.",
)
NOTHING_SERVED: Mapping[str, int] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cached_input_tokens": 0,
    "reasoning_tokens": 0,
}
"""The tokens of a request that came to nothing; money follows from them."""


class Settlement(NamedTuple):
    """How a decision is settled: `usage` None gives everything back."""

    usage: Mapping[str, int] | None
    model: str | None = None


class ResponseTracker:
    """Follows the response to one admitted request: what goes with it, and what it used."""

    stripper: UsageStripper | None = None
    """What takes the usage out of a stream that only we asked for, None for another stream."""
    _streams = False
    _status: int | None = None

    def __init__(
        self,
        decision: Decision,
        asked: ParsedRequest,
        addressee: Addressee,
        style: Style,
        *,
        policies: PolicySet,
        strips_usage: bool,
        background: BackgroundWork | None = None,
    ) -> None:
        """Take a request that `policies` admitted.

        Decisions on work that outlives it wait in `background`.
        """
        self.decision = decision
        self._asking = addressee
        self._style = style
        self._estimate = asked.estimate
        self._policies = policies
        self._meter = _meter_of(decision, policies, asked)
        self._background = background
        watches = None
        if background is not None and background.waiting and may_tell_ends(asked):
            watches = Meter(UsageFormat.OPENAI_RESPONSES, asked.streams)
        self._watch: Meter | None = watches
        self._strips_usage = strips_usage
        self.take: Callable[[bytes], None] = self._meter.feed if watches is None else self._take
        """Meters a piece of the host's body."""

    def started(self, status: int, headers: Sequence[Field]) -> list[Field]:
        """Take the host's status and fields; return the fields to send.

        A field that the host sends itself stays the host's.
        """
        self._status = status
        fields: list[Field] = []
        named: list[Field] = []
        for name, value in headers:
            field = bytes(name), bytes(value)
            fields.append(field)
            named.append((field[0].lower(), field[1]))
        present = dict(named)
        self._meter.start(status, named)
        if self._watch is not None:
            self._watch.start(status, named)
        if present.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            # Nothing can be put into a compressed stream, or taken out of it.
            plain = present.get(b"content-encoding", b"identity").lower() == b"identity"
            self._streams = plain
            self.stripper = UsageStripper() if plain and self._strips_usage else None
        ours = admitted_fields(self.decision, self._asking, self._style)
        if not present.keys().isdisjoint(dict(ours)):
            ours = [field for field in ours if field[0] not in present]
        return fields + ours

    def sent(self, chunk: bytes, *, last: bool) -> bytes:
        """Meter a piece of the host's body; return what of it to send."""
        if chunk:
            self.take(chunk)
        return chunk if self.stripper is None else self.stripper.feed(chunk, last=last)

    def _take(self, chunk: bytes) -> None:
        self._meter.feed(chunk)
        if self._watch is not None:
            self._watch.feed(chunk)

    @property
    def has_started(self) -> bool:
        """Whether the host has sent a status, and so something that may be charged."""
        return self._status is not None

    def broken_off(self) -> bytes:
        """Return the event that tells a client that its stream ends early, nothing if it did not.

        Without it, some clients take a cut stream for a whole one.
        """
        if not self._streams or self._meter.ended:
            return b""
        rest = b"" if self.stripper is None else self.stripper.feed(b"", last=True)
        # What came of an unfinished event must not swallow the one that follows.
        return rest + b"\n\n" + error_frame(BROKEN_OFF, self._asking.dialect, self.decision.id)

    def endings(self, *, failed: bool, left: bool = False) -> list[tuple[Decision, Settlement]]:
        """Return what is to be settled now that it has ended, its own decision first.

        Work that goes on after the response gives its place in flight back, and keeps what was
        reserved. A copy of its decision waits until another response tells the end of the work:
        that is settled with the request which asked for it.
        """
        settlement = self.ended(failed=failed, left=left)
        background = self._background
        work = self._meter.goes_on if settlement.usage is not None else None
        found = [(self.decision, settlement)]
        if background is not None and work is not None:
            background.keep(work, Decision.of(self.decision.ruling, self.decision.case))
        if background is not None and self._watch is not None and self._watch.answered:
            told = self._watch.told_end
            waiting = None if told is None else background.take(told)
            if waiting is not None:
                usage = dict(self._watch.usage()) if self._watch.told else {}
                if usage.get("input_tokens") == 0:
                    del usage["input_tokens"]  # there was some: it stays as reserved
                found.append(
                    (waiting, Settlement(usage, _served(waiting.case.engine.policies, self._watch)))
                )
        return found

    def ended(self, *, failed: bool, left: bool = False) -> Settlement:
        """Return how its decision is settled.

        What was served is charged, also if the client left before its end. Nothing served, by
        the host's fault (`failed`, a 5xx, a redirect, a 429 from behind it): everything is given
        back. A client's own fault costs the request, and no tokens; one that `left` before the
        first byte pays for the input, or, for work in the background, what was reserved.
        """
        status = self._status
        if left and status is None:
            if self._meter.background:
                return Settlement({})
            incoming = self._estimate.get("input_tokens", 0)
            return Settlement({**self._nothing(), "input_tokens": incoming})
        if status is None or (failed and not self._meter.size):
            return Settlement(None)
        if 200 <= status < 300:
            policies, meter = self._policies, self._meter
            model = _served(policies, meter) if policies.models else None
            return tuple.__new__(Settlement, (meter.usage(), model))
        if 400 <= status < 500 and status != 429:
            return Settlement(self._nothing())
        return Settlement(None)

    def _nothing(self) -> dict[str, int]:
        others = {unit: 0 for unit in self._estimate if unit != "requests"}
        declared = dict.fromkeys(self._policies.units, 0)
        return {**declared, **others, **NOTHING_SERVED}


def _served(policies: PolicySet, meter: Meter) -> str | None:
    """Return the model that answered, where policies know it by that name.

    Hosts often answer under a longer name than was asked for: the model requested, or
    degraded to, then stands for it, and not the dearest of all.
    """
    model = meter.served_model
    return None if policies.model_named(model) is None else model


def _meter_of(decision: Decision, policies: PolicySet, asked: ParsedRequest) -> Meter:
    """Return what meters the response to a request, by what was asked for and reserved."""
    reserved = asked.estimate
    if reserved.get("output_tokens") is None:
        output = decision.engine.sizer.output(reserved, decision.model)
        if output is not None:
            reserved = {**reserved, "output_tokens": output}
    usage_format, guessed = asked.usage_format, False
    if usage_format is _NONE and not asked.estimate.items() >= FREE.items():
        # A host's own path may answer in a shape that we know.
        guessed = endpoint_of(asked.path).kind is Kind.UNKNOWN
        usage_format = UsageFormat.OPENAI_CHAT if guessed else usage_format
    document: Mapping[str, object] = {}
    if isinstance(asked.document, dict) and not _ASKING.isdisjoint(asked.document):
        document = asked.document
    return Meter(
        usage_format,
        asked.facts.get("request.stream") is True,
        reserved,
        reasons=asked.facts.get("request.reasoning") is True,
        background=bool(document)
        and True in (document.get("background"), document.get("deferred")),
        echoes=bool(document) and document.get("echo") is True,
        units=policies.units,
        guessed=guessed,
        as_text=usage_format is _MEDIA and _wants_text(asked, document),
    )


def _wants_text(asked: ParsedRequest, document: Mapping[str, object]) -> bool:
    """Whether a transcription is asked for as text, which tells nothing of its usage."""
    if document.get("response_format") in _TEXTS:
        return True
    # A file may hold what looks like the field: of many none is looked at.
    found = list(islice(_FORMAT.finditer(asked.body or b""), _MOST_FORMATS + 1))
    return len(found) > _MOST_FORMATS or any(
        _IS_TEXT.match(asked.body or b"", field.end()) for field in found
    )


MOST_WAITING = 4_096
"""How many decisions wait at once in a process; the oldest of more stay as reserved."""

LONGEST_NAME = 256
"""The longest id of such work that is remembered, in characters."""
_TOLD_BY = ("/v1/responses/", "/v1/threads/", "/v1/interactions/")


class BackgroundWork:
    """The decisions on work in the background, by the id that the host gave the work.

    Nothing tells this process of an end that nobody asks it for, or asks another process for: what
    was reserved then stays charged. Safe between threads.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        # A request that is collected as garbage may end within a call of the same thread.
        self._lock = threading.RLock()
        self.waiting: dict[str, Decision] = {}
        """The decisions that wait."""

    def keep(self, name: str, decision: Decision) -> None:
        """Let a decision wait that is not settled; of too many, the oldest is forgotten.

        One whose work has an id that is too long stays as reserved.
        """
        if len(name) > LONGEST_NAME:
            return
        with self._lock:
            self.waiting.pop(name, None)
            if len(self.waiting) >= self._most:
                self.waiting.pop(next(iter(self.waiting)))
            self.waiting[name] = decision

    def take(self, name: str) -> Decision | None:
        """Return the decision that waits for the end of some work, and forget it."""
        with self._lock:
            return self.waiting.pop(name, None)


def may_tell_ends(asked: ParsedRequest) -> bool:
    """Whether the response to a request may tell the end of work that was begun before."""
    endpoint = asked.facts.get("request.endpoint")
    return isinstance(endpoint, str) and endpoint.startswith(_TOLD_BY)


LONGEST = 1 << 20
"""An event longer than this many bytes is none of usage; it is passed on as it comes."""

_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r(?!\n)|\n)")
_LONGEST_END = 4


class UsageStripper:
    """Passes a server-sent stream on, event by event, without the chunk that tells the usage.

    That chunk has no choices, or none that says anything. Only the end of an event that is not
    complete yet is held back.
    """

    def __init__(self) -> None:
        self._held = b""
        self._passing = False
        # Whether the last event ended in a CR whose LF may be still to come, and was passed on.
        self._open: bool | None = None

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        """Return what of the stream so far may be passed on."""
        if self._passing:
            return chunk
        before = b""
        if self._open is not None and chunk:
            if chunk.startswith(b"\n"):
                before, chunk = b"\n" if self._open else b"", chunk[1:]
            self._open = None
        # What is held has no end in it but, perhaps, the beginning of one.
        whole, self._held = _whole_events(self._held + chunk, len(self._held) - _LONGEST_END)
        kept = [event for event in whole if not _is_usage(event)]
        passed = before + b"".join(kept)
        if whole and not self._held and whole[-1].endswith(b"\r"):
            self._open = bool(kept) and kept[-1] is whole[-1]
        if last or len(self._held) > LONGEST:
            self._passing = True
            passed, self._held = passed + self._held, b""
        return passed


def _whole_events(text: bytes, seen: int) -> tuple[list[bytes], bytes]:
    """Split a stream after each blank line; the rest is an event still being written.

    So many bytes have been `seen` to hold none.
    """
    events: list[bytes] = []
    start = 0
    for end in _END.finditer(text, max(0, seen)):
        events.append(text[start : end.end()])
        start = end.end()
    return events, text[start:]


def _is_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
    chunk = decoded(data) or {}
    choices = chunk.get("choices")
    return (
        bool(chunk.get("usage"))
        and isinstance(choices, list)
        and not any(map(_says_something, choices))
    )


def _says_something(choice: object) -> bool:
    """Tell whether a client would miss a choice: LiteLLM sends its usage with an empty one."""
    if not isinstance(choice, dict) or choice.get("finish_reason") or choice.get("text"):
        return True
    delta = choice.get("delta") or {}
    return not isinstance(delta, dict) or any(delta.values()) or bool(choice.get("logprobs"))
