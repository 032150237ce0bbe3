"""Reads many events of a chat's stream at once: most say a few words, and tell nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from guardrail.http.metering.accumulator import DONE, Tally
from guardrail.http.metering.streams import LONGEST_HELD, Event

AT_ONCE = 1 << 14
"""How many bytes of a stream wait at most before they are read."""

_BEGIN, _END = b"data: ", b"\n\n"
_BETWEEN = _END + _BEGIN
_UNDECODABLE = (msgspec.DecodeError, ValueError, RecursionError)


class _Said(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str | None = None
    refusal: None = None
    role: Any = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    delta: _Said
    finish_reason: Any = None
    index: Any = None
    logprobs: None = None
    native_finish_reason: Any = None
    stop_reason: Any = None


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chunk that says something, or nothing, and has no member that may tell anything else."""

    choices: Annotated[list[_Choice], msgspec.Meta(max_length=1)]
    object: Literal["chat.completion.chunk"] | None = None
    model: str | None = None
    usage: None = None
    created: Any = None
    id: Any = None
    obfuscation: Any = None
    service_tier: Any = None
    system_fingerprint: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


def events_of(data: bytes) -> list[bytes] | None:
    """Return what the events say that bytes consist of, None if they are not all of one line.

    Nothing may have begun before them; they begin and end with an event.
    """
    if not data.startswith(_BEGIN) or not data.endswith(_END) or len(data) > LONGEST_HELD:
        return None
    texts = data[len(_BEGIN) : -len(_END)].split(_BETWEEN)
    return None if b"\r" in data or data.count(b"\n") != 2 * len(texts) else texts


def take_events(tally: Tally, texts: list[bytes]) -> None:
    """Take in what events say, in order; it comes to the same as `Tally.take_event` of each."""
    decode = _DECODER.decode
    said: list[str] = []
    plain = 0
    model: str | None = None
    for text in texts:
        try:
            chunk = decode(text)
        except _UNDECODABLE:
            pass
        else:
            choices = chunk.choices
            words = choices[0].delta.content if choices else None
            if not words or not words.startswith("data:"):
                plain += 1
                if words:
                    said.append(words)
                if chunk.model:
                    model = chunk.model
                continue
        tally.take_plain(said, plain, model)
        said, plain, model = [], 0, None
        if text == DONE:
            tally.end()
        else:
            tally.take_event(Event(text + b"\n", (), len(text) + 1))
    tally.take_plain(said, plain, model)
