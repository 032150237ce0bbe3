"""An admitted request while the host serves it: fields, metering, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.http.answers import Addressee, Style, admitted_fields
from guardrail.http.answers.bodies import error_frame
from guardrail.http.answers.refusing import Refusal
from guardrail.http.asked import Asked
from guardrail.http.asked.endpoints import Kind, endpoint_of
from guardrail.http.asked.values import FREE
from guardrail.http.dialects import UsageFormat
from guardrail.http.exchange.later import Later, may_tell_ends
from guardrail.http.exchange.stripping import UsageStripper
from guardrail.http.meter import Meter

Field = tuple[bytes, bytes]

_TEXTS = ("text", "srt", "vtt")
_TEXT_FIELD = re.compile(
    rb'name="?response_format"?[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n(?:text|srt|vtt)\s'
)
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


class Serving:
    """Follows the response to one admitted request: what goes with it, and what it used."""

    def __init__(
        self,
        decision: Decision,
        asked: Asked,
        addressee: Addressee,
        style: Style,
        *,
        strips_usage: bool,
        later: Later | None = None,
    ) -> None:
        """Take an admitted request; `later` is where decisions on work in the background wait."""
        self.decision = decision
        self._asking = addressee
        self._style = style
        self._estimate = asked.estimate
        self._meter = _meter_of(decision, asked)
        self._later = later
        self._watch: Meter | None = None
        if later and may_tell_ends(asked.facts.get("request.endpoint")):
            self._watch = Meter(UsageFormat.OPENAI_RESPONSES, asked.streams)
        self._strips_usage = strips_usage
        self._stripper: UsageStripper | None = None
        self._streams = False
        self._status: int | None = None
        self._bytes = 0

    def started(self, status: int, headers: Sequence[Field]) -> list[Field]:
        """Take the host's status and fields; return the fields to send.

        A field that the host sends itself stays the host's.
        """
        self._status = status
        fields = [(bytes(name), bytes(value)) for name, value in headers]
        present = {name.lower(): value for name, value in fields}
        self._meter.start(status, fields)
        if self._watch is not None:
            self._watch.start(status, fields)
        kind = present.get(b"content-type", b"")
        plain = present.get(b"content-encoding", b"identity").lower() == b"identity"
        # Nothing can be put into a compressed stream, or taken out of it.
        self._streams = plain and kind.lower().startswith(b"text/event-stream")
        if self._strips_usage and self._streams:
            self._stripper = UsageStripper()
        ours = admitted_fields(self.decision, self._asking, self._style)
        fields += [field for field in ours if field[0] not in present]
        return fields

    def sent(self, chunk: bytes, *, last: bool) -> bytes:
        """Meter a piece of the host's body; return what of it to send."""
        self._bytes += len(chunk)
        if chunk:
            self._meter.feed(chunk)
            if self._watch is not None:
                self._watch.feed(chunk)
        return chunk if self._stripper is None else self._stripper.feed(chunk, last=last)

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
        rest = b"" if self._stripper is None else self._stripper.feed(b"", last=True)
        # What came of an unfinished event must not swallow the one that follows.
        return rest + b"\n\n" + error_frame(BROKEN_OFF, self._asking.dialect, self.decision.id)

    def endings(self, *, failed: bool, left: bool = False) -> list[tuple[Decision, Settlement]]:
        """Return what is to be settled now that it has ended, its own decision first.

        Work that goes on after the response gives its place in flight back, and keeps what was
        reserved. A copy of its decision waits until another response tells the end of the work:
        that is settled with the request which asked for it.
        """
        settlement = self.ended(failed=failed, left=left)
        later = self._later
        work = self._meter.goes_on if settlement.usage is not None else None
        found = [(self.decision, settlement)]
        if later is not None and work is not None:
            later.keep(work, Decision.of(self.decision.ruling, self.decision.case))
        if later is not None and self._watch is not None and self._watch.answered:
            told = self._watch.told_end
            waiting = None if told is None else later.take(told)
            if waiting is not None:
                usage = dict(self._watch.usage()) if self._watch.told else {}
                if usage.get("input_tokens") == 0:
                    del usage["input_tokens"]  # there was some: it stays as reserved
                found.append((waiting, Settlement(usage, _served(waiting, self._watch))))
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
        if status is None or (failed and not self._bytes):
            return Settlement(None)
        if 200 <= status < 300:
            return Settlement(self._meter.usage(), _served(self.decision, self._meter))
        if 400 <= status < 500 and status != 429:
            return Settlement(self._nothing())
        return Settlement(None)

    def _nothing(self) -> dict[str, int]:
        others = {unit: 0 for unit in self._estimate if unit != "requests"}
        declared = dict.fromkeys(self.decision.case.engine.policies.units, 0)
        return {**declared, **others, **NOTHING_SERVED}


def _meter_of(decision: Decision, asked: Asked) -> Meter:
    """Return what meters the response to a request, by what was asked for and reserved."""
    engine = decision.case.engine
    reserved = dict(asked.estimate)
    output = engine.sizer.output(reserved, asked.facts.get("request.model"))
    if output is not None:
        reserved["output_tokens"] = output
    usage_format, guessed = asked.usage_format, False
    if usage_format is UsageFormat.NONE and not asked.estimate.items() >= FREE.items():
        # A host's own path may answer in a shape that we know.
        guessed = endpoint_of(asked.path).kind is Kind.UNKNOWN
        usage_format = UsageFormat.OPENAI_CHAT if guessed else usage_format
    document = asked.document if isinstance(asked.document, dict) else {}
    return Meter(
        usage_format,
        asked.streams,
        reserved,
        reasons=asked.facts.get("request.reasoning") is True,
        background=document.get("background") is True,
        echoes=document.get("echo") is True,
        units=engine.policies.units,
        guessed=guessed,
        as_text=_wants_text(asked, document),
    )


def _wants_text(asked: Asked, document: Mapping[str, object]) -> bool:
    """Whether a transcription is asked for as text, which tells nothing of its usage."""
    if asked.usage_format is not UsageFormat.OPENAI_MEDIA:
        return False
    if document.get("response_format") in _TEXTS:
        return True
    body = asked.body or b""
    return b"response_format" in body and _TEXT_FIELD.search(body) is not None


def _served(decision: Decision, meter: Meter) -> str | None:
    """Return the model that answered, where policies know it by that name.

    Hosts often answer under a longer name than was asked for: the model requested, or
    degraded to, then stands for it, and not the dearest of all.
    """
    model = meter.served_model
    policies = decision.case.engine.policies
    return None if policies.model_named(model) is None else model
