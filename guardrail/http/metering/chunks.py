"""Reads many events of a stream at once: most say a few words, and tell nothing else.

What comes of them is what `Tally.take_event` makes of each; any other event is left to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from guardrail.http.dialects import UsageFormat
from guardrail.http.documents import UNDECODABLE
from guardrail.http.metering.accumulator import DONE, Tally
from guardrail.http.metering.streams import LONGEST_HELD, Event

AT_ONCE = 1 << 12
"""How many bytes of a stream wait at most before they are read."""

_BEGIN, _NAME, _END = b"data: ", b"event: ", b"\n\n"


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What has no other members; they stand in the order in which hosts write them.

    So each is found where it is looked for.
    """


class _Said(_Strict):
    role: Any = None
    content: str | None = None
    refusal: None = None


class _Choice(_Strict, kw_only=True):
    index: Any = None
    delta: _Said
    logprobs: None = None
    finish_reason: Any = None
    native_finish_reason: Any = None
    stop_reason: Any = None


class _Chunk(_Strict, kw_only=True):
    """A chunk of a chat; without a choice, it says nothing."""

    id: Any = None
    object: Literal["chat.completion.chunk"] | None = None
    created: Any = None
    model: str | None = None
    service_tier: Any = None
    system_fingerprint: Any = None
    choices: Annotated[list[_Choice], msgspec.Meta(max_length=1)]
    usage: None = None
    obfuscation: Any = None

    @property
    def words(self) -> str | None:
        """What it says."""
        choices = self.choices
        return choices[0].delta.content if choices else None


class _Text(_Strict, tag="text_delta"):
    text: str


class _Thought(_Strict, tag="thinking_delta", rename={"text": "thinking"}):
    text: str


class _Input(_Strict, tag="input_json_delta", rename={"text": "partial_json"}):
    text: str


class _BlockDelta(_Strict, kw_only=True, tag="content_block_delta"):
    """A piece of a block of Anthropic's."""

    model: ClassVar[str | None] = None
    index: Any = None
    delta: _Text | _Thought | _Input

    @property
    def words(self) -> str:
        """What it says."""
        return self.delta.text


class _TextDelta(
    _Strict, kw_only=True, tag="response.output_text.delta", rename={"words": "delta"}
):
    """A piece of a text of OpenAI's responses."""

    model: ClassVar[str | None] = None
    sequence_number: Any = None
    item_id: Any = None
    output_index: Any = None
    content_index: Any = None
    words: str
    logprobs: Annotated[list[Any], msgspec.Meta(max_length=0)] | None = None
    obfuscation: Any = None


_Piece = _Chunk | _BlockDelta | _TextDelta
_DECODERS: Mapping[UsageFormat, Callable[[bytes], _Piece]] = {
    UsageFormat.OPENAI_CHAT: msgspec.json.Decoder(_Chunk).decode,
    UsageFormat.ANTHROPIC: msgspec.json.Decoder(_BlockDelta).decode,
    UsageFormat.OPENAI_RESPONSES: msgspec.json.Decoder(_TextDelta).decode,
}
READ_TOGETHER = frozenset(_DECODERS)
"""The formats whose streams consist of such events."""


def events_of(data: bytes) -> list[bytes] | None:
    """Return what the events say that bytes consist of, None if they are not written alike.

    Each has one line of data, and none but one that names it before that. Nothing may have begun
    before them; they begin and end with an event.
    """
    if len(data) > LONGEST_HELD or not data.endswith(_END) or b"\r" in data:
        return None
    if data.startswith(_BEGIN):
        texts = data[len(_BEGIN) : -len(_END)].split(_END + _BEGIN)
        return texts if data.count(b"\n") == 2 * len(texts) else None
    if data.startswith(_NAME):
        events = data[len(_NAME) : -len(_END)].split(_END + _NAME)
        parts = [event.partition(b"\n" + _BEGIN) for event in events]
        if data.count(b"\n") == 3 * len(parts) and all(between for _, between, _ in parts):
            return [text for _, _, text in parts]
    return None


def take_events(tally: Tally, texts: list[bytes]) -> None:
    """Take in what events say, in order."""
    decode = _DECODERS[tally.usage_format]
    said: list[str] = []
    plain = 0
    model: str | None = None
    for text in texts:
        try:
            piece = decode(text)
        except UNDECODABLE:
            pass
        else:
            words = piece.words
            if not (words and words.startswith("data:")) and not tally.ended:
                plain += 1
                if words:
                    said.append(words)
                model = piece.model or model
                continue
        tally.take_plain(said, plain, model)
        said, plain, model = [], 0, None
        if text == DONE:
            tally.end()
        else:
            tally.take_event(Event(text + b"\n", (), len(text) + 1))
    tally.take_plain(said, plain, model)
