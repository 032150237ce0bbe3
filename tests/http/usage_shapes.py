"""Every shape in which hosts tell what a response used, made from what was really produced.

Each shape turns a `Work` into the pieces a host sends, with how much of the output has passed when
a piece is through. What is told may be the truth, nothing, or zeros.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from guardrail.http.metering import UsageFormat

SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"
NDJSON = b"application/x-ndjson"
AMAZON = b"application/vnd.amazon.eventstream"


class Work(NamedTuple):
    """What a model did: a token a word, and reasoning that is not shown; `tells` what of it."""

    words: tuple[str, ...]
    hidden: int = 0
    incoming: int = 30
    cached: int = 10
    tells: str = "truth"

    @property
    def out(self) -> int:
        """All output tokens."""
        return len(self.words) + self.hidden

    @property
    def text(self) -> str:
        return "".join(self.words)

    def told(self, amount: int) -> int:
        """Return a figure as the host tells it."""
        return amount if self.tells == "truth" else 0

    @property
    def silent(self) -> bool:
        return self.tells == "nothing"


class Piece(NamedTuple):
    """Bytes that a host sends, and how many output tokens have passed with them."""

    data: bytes
    passed: int


class Shape(NamedTuple):
    """A way to tell: how it is metered, its content type, and what makes it.

    `hides` tells that reasoning that is not shown can be told; `runs` that each piece tells.
    """

    name: str
    usage_format: UsageFormat
    kind: bytes
    make: Callable[[Work], Iterator[Piece]]
    streams: bool = True
    hides: bool = True
    runs: bool = False


def _event(document: object, name: str | None = None) -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    text = document if isinstance(document, str) else json.dumps(document)
    return head + b"data: " + text.encode() + b"\n\n"


def _frame(kind: str, payload: object) -> bytes:
    """Return a frame of Amazon's event streams."""
    headers = b""
    for name, value in ((":event-type", kind), (":message-type", "event")):
        headers += struct.pack(">B", len(name)) + name.encode()
        headers += struct.pack(">BH", 7, len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    whole = prelude + headers + body
    return whole + struct.pack(">I", binascii.crc32(whole))


def _openai(work: Work, out: int | None = None) -> dict[str, object]:
    out = work.out if out is None else out
    return {
        "prompt_tokens": work.told(work.incoming),
        "prompt_tokens_details": {"cached_tokens": work.told(work.cached)},
        "completion_tokens": work.told(out),
        "completion_tokens_details": {"reasoning_tokens": work.told(work.hidden)},
        "total_tokens": work.told(work.incoming + out),
    }


def _beside(work: Work) -> dict[str, object]:
    """Return a usage whose completion leaves the reasoning out: the total tells."""
    usage = _openai(work)
    return {**usage, "completion_tokens": work.told(len(work.words))}


def _responses(work: Work) -> dict[str, object]:
    return {
        "input_tokens": work.told(work.incoming),
        "input_tokens_details": {"cached_tokens": work.told(work.cached)},
        "output_tokens": work.told(work.out),
        "output_tokens_details": {"reasoning_tokens": work.told(work.hidden)},
        "total_tokens": work.told(work.incoming + work.out),
    }


def _anthropic(work: Work, out: int) -> dict[str, object]:
    return {
        "input_tokens": work.told(work.incoming - work.cached),
        "cache_read_input_tokens": work.told(work.cached),
        "cache_creation_input_tokens": 0,
        "output_tokens": work.told(out),
    }


def _gemini(work: Work, words: int) -> dict[str, object]:
    return {
        "promptTokenCount": work.told(work.incoming),
        "cachedContentTokenCount": work.told(work.cached),
        "candidatesTokenCount": work.told(words),
        "thoughtsTokenCount": work.told(work.hidden),
        "totalTokenCount": work.told(work.incoming + words + work.hidden),
    }


def _choices(usage: Callable[[Work], dict[str, object]], **more: object):
    def make(work: Work) -> Iterator[Piece]:
        head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield Piece(b": PROCESSING\n\n" + _event({**head, "choices": [role]}), 0)
        for count, word in enumerate(work.words, 1):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            yield Piece(_event({**head, "choices": [choice], "usage": None}), count)
        stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
        last = {**head, "choices": [stop], **more}
        if not work.silent:
            told = {**head, "choices": [], "usage": usage(work)}
            yield Piece(_event(last) + _event(told), work.out)
        yield Piece(_event("[DONE]"), work.out)

    return make


def _last_chunk(wrap: Callable[[dict[str, object]], dict[str, object]]):
    """Return what makes streams whose last choice tells the usage."""

    def make(work: Work) -> Iterator[Piece]:
        for count, word in enumerate(work.words, 1):
            yield Piece(_event({"choices": [{"index": 0, "delta": {"content": word}}]}), count)
        stop = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
        told = {} if work.silent else wrap(_openai(work))
        yield Piece(_event({"model": "m-1", "choices": [stop], **told}), work.out)
        yield Piece(_event("[DONE]"), work.out)

    return make


def _choices_telling(work: Work) -> Iterator[Piece]:
    """Yield a stream whose last choice holds the usage."""
    for count, word in enumerate(work.words, 1):
        yield Piece(_event({"choices": [{"index": 0, "delta": {"content": word}}]}), count)
    stop = {"index": 0, "delta": {}, "finish_reason": "stop", **_telling(work, _openai(work))}
    yield Piece(_event({"choices": [stop]}), work.out)
    yield Piece(_event("[DONE]"), work.out)


def _running(work: Work) -> Iterator[Piece]:
    for count, word in enumerate(work.words, 1):
        usage = {} if work.silent else {"usage": _openai(work, count + work.hidden)}
        yield Piece(_event({"choices": [{"delta": {"content": word}}], **usage}), count)
    yield Piece(_event("[DONE]"), work.out)


def _with_ids(work: Work) -> Iterator[Piece]:
    for count, word in enumerate(work.words, 1):
        choice = {"index": 0, "delta": {"content": word}, "token_ids": [count]}
        yield Piece(_event({"choices": [choice], "prompt_token_ids": [1, 2, 3]}), count)
    if not work.silent:
        yield Piece(_event({"choices": [], "usage": _openai(work)}), work.out)
    yield Piece(_event("[DONE]"), work.out)


def _completions(work: Work) -> Iterator[Piece]:
    for count, word in enumerate(work.words, 1):
        yield Piece(_event({"choices": [{"index": 0, "text": word, "logprobs": None}]}), count)
    if not work.silent:
        yield Piece(_event({"choices": [], "usage": _openai(work)}), work.out)
    yield Piece(_event("[DONE]"), work.out)


def _response_events(work: Work) -> Iterator[Piece]:
    kind = "response.created"
    yield Piece(_event({"type": kind, "response": {"id": "r", "status": "in_progress"}}, kind), 0)
    kind = "response.output_text.delta"
    for count, word in enumerate(work.words, 1):
        yield Piece(_event({"type": kind, "delta": word, "obfuscation": "x" * 9}, kind), count)
    kind = "response.output_text.done"
    yield Piece(_event({"type": kind, "text": work.text}, kind), len(work.words))
    kind = "response.completed"
    content = [{"type": "output_text", "text": work.text, "annotations": []}]
    output = [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA" * 40},
        {"type": "message", "role": "assistant", "content": content},
    ]
    response: dict[str, object] = {"id": "r", "status": "completed", "output": output}
    response["usage"] = None if work.silent else _responses(work)
    yield Piece(_event({"type": kind, "response": response}, kind), work.out)


def _message_events(work: Work) -> Iterator[tuple[str, dict[str, object], int]]:
    usage = {} if work.silent else {"usage": _anthropic(work, 1)}
    yield "message_start", {"message": {"id": "m", "model": "m-1", "content": [], **usage}}, 0
    block = {"type": "text", "text": ""}
    yield "content_block_start", {"index": 0, "content_block": block}, 0
    yield "ping", {}, 0
    for count, word in enumerate(work.words, 1):
        delta = {"type": "text_delta", "text": word}
        yield "content_block_delta", {"index": 0, "delta": delta}, count
    yield "content_block_stop", {"index": 0}, len(work.words)
    usage = {} if work.silent else {"usage": {"output_tokens": work.told(work.out)}}
    yield "message_delta", {"delta": {"stop_reason": "end_turn"}, **usage}, work.out
    yield "message_stop", {}, work.out


def _messages(work: Work) -> Iterator[Piece]:
    for kind, members, passed in _message_events(work):
        yield Piece(_event({"type": kind, **members}, kind), passed)


def _bedrock_messages(work: Work) -> Iterator[Piece]:
    for kind, members, passed in _message_events(work):
        inner = json.dumps({"type": kind, **members}).encode()
        payload = {"bytes": base64.b64encode(inner).decode(), "p": "abc"}
        yield Piece(_frame("chunk", payload), passed)


def _converse(work: Work) -> Iterator[Piece]:
    yield Piece(_frame("messageStart", {"role": "assistant"}), 0)
    for count, word in enumerate(work.words, 1):
        delta = {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdef"}
        yield Piece(_frame("contentBlockDelta", delta), count)
    yield Piece(_frame("messageStop", {"stopReason": "end_turn"}), len(work.words))
    if not work.silent:
        told = {"usage": _converse_usage(work), "metrics": {"latencyMs": 5}}
        yield Piece(_frame("metadata", told), work.out)


def _converse_usage(work: Work) -> dict[str, object]:
    return {
        "inputTokens": work.told(work.incoming - work.cached),
        "cacheReadInputTokens": work.told(work.cached),
        "outputTokens": work.told(work.out),
        "totalTokens": work.told(work.incoming + work.out),
    }


def _gemini_documents(work: Work) -> Iterator[tuple[dict[str, object], int]]:
    for count, word in enumerate(work.words, 1):
        candidate: dict[str, object] = {"content": {"parts": [{"text": word}], "role": "model"}}
        last = count == len(work.words)
        if last:
            candidate["finishReason"] = "STOP"
        usage = {} if work.silent else {"usageMetadata": _gemini(work, count)}
        document: dict[str, object] = {"candidates": [candidate], "modelVersion": "m-1", **usage}
        yield document, work.out if last else count


def _gemini_events(work: Work) -> Iterator[Piece]:
    for document, passed in _gemini_documents(work):
        yield Piece(_event(document), passed)


def _gemini_list(work: Work) -> Iterator[Piece]:
    before = b"["
    for document, passed in _gemini_documents(work):
        yield Piece(before + json.dumps(document, indent=1).encode(), passed)
        before = b"\n,\r\n"
    yield Piece(b"\n]\n", work.out)


def _sglang(work: Work) -> Iterator[Piece]:
    text = ""
    for count, word in enumerate(work.words, 1):
        text += word
        last = count == len(work.words)
        meta = {
            "prompt_tokens": work.told(work.incoming),
            "cached_tokens": work.told(work.cached),
            "completion_tokens": work.told(work.out if last else count),
        }
        document: dict[str, object] = {"text": text, "meta_info": {} if work.silent else meta}
        yield Piece(_event(document), work.out if last else count)
    yield Piece(_event("[DONE]"), work.out)


def _ollama(member: Callable[[str], dict[str, object]]):
    def make(work: Work) -> Iterator[Piece]:
        for count, word in enumerate(work.words, 1):
            document = {"model": "m-1", **member(word), "done": False}
            yield Piece(json.dumps(document).encode() + b"\n", count)
        last: dict[str, object] = {"model": "m-1", **member(""), "done": True}
        if not work.silent:
            last["prompt_eval_count"] = work.told(work.incoming)
            last["eval_count"] = work.told(work.out)
        yield Piece(json.dumps(last).encode() + b"\n", work.out)

    return make


def _cohere(work: Work) -> Iterator[Piece]:
    for count, word in enumerate(work.words, 1):
        delta = {"message": {"content": {"text": word}}}
        kind = "content-delta"
        yield Piece(_event({"type": kind, "index": 0, "delta": delta}, kind), count)
    billed = {"input_tokens": work.told(1), "output_tokens": work.told(1)}
    usage = {"billed_units": billed, "tokens": _tokens(work)}
    ending: dict[str, object] = {} if work.silent else {"usage": usage}
    yield Piece(_event({"type": "message-end", "delta": ending}, "message-end"), work.out)


def _cohere_lines(work: Work) -> Iterator[Piece]:
    for count, word in enumerate(work.words, 1):
        document = {"event_type": "text-generation", "text": word, "is_finished": False}
        yield Piece(json.dumps(document).encode() + b"\n", count)
    meta = {} if work.silent else {"meta": {"tokens": _tokens(work)}}
    last = {"event_type": "stream-end", "response": {"text": work.text, **meta}}
    yield Piece(json.dumps(last).encode() + b"\n", work.out)


def _tokens(work: Work) -> dict[str, int]:
    return {"input_tokens": work.told(work.incoming), "output_tokens": work.told(work.out)}


def _conversation(work: Work) -> Iterator[Piece]:
    """Yield a conversation of Mistral's, whose pieces stand beside their types."""
    kind = "message.output.delta"
    for count, word in enumerate(work.words, 1):
        piece = {"type": kind, "id": "m", "output_index": 0, "role": "assistant", "content": word}
        yield Piece(_event(piece, kind), count)
    kind = "conversation.response.done"
    yield Piece(_event({"type": kind, **_telling(work, _openai(work))}, kind), work.out)


def _interaction_usage(work: Work) -> dict[str, object]:
    return {
        "total_input_tokens": work.told(work.incoming),
        "total_cached_tokens": work.told(work.cached),
        "total_output_tokens": work.told(len(work.words)),
        "total_thought_tokens": work.told(work.hidden),
        "total_tokens": work.told(work.incoming + work.out),
    }


def _interaction(work: Work) -> Iterator[Piece]:
    start = {
        "event_type": "interaction.start",
        "interaction": {"id": "v1", "status": "in_progress"},
    }
    yield Piece(_event(start), 0)
    for count, word in enumerate(work.words, 1):
        delta = {"type": "text", "text": word}
        yield Piece(_event({"event_type": "content.delta", "index": 0, "delta": delta}), count)
    done = {"id": "v1", "status": "completed", **_telling(work, _interaction_usage(work))}
    yield Piece(_event({"event_type": "interaction.complete", "interaction": done}), work.out)


def _transcript(work: Work) -> Iterator[Piece]:
    kind = "transcript.text.delta"
    for count, word in enumerate(work.words, 1):
        yield Piece(_event({"type": kind, "delta": word}), count)
    usage = {} if work.silent else {"usage": {"type": "tokens", **_responses(work)}}
    document = {"type": "transcript.text.done", "text": work.text, **usage}
    yield Piece(_event(document), work.out)


def _whole(build: Callable[[Work], dict[str, object]]):
    """Return what makes a whole body, a piece of its own each 40 bytes."""

    def make(work: Work) -> Iterator[Piece]:
        data = json.dumps(build(work)).encode()
        for at in range(0, len(data), 40):
            yield Piece(data[at : at + 40], work.out if at + 40 >= len(data) else 0)

    return make


def _telling(work: Work, usage: dict[str, object], name: str = "usage") -> dict[str, object]:
    return {} if work.silent else {name: usage}


def _chat_body(work: Work) -> dict[str, object]:
    message = {"role": "assistant", "content": work.text}
    return {"model": "m-1", "choices": [{"message": message}], **_telling(work, _openai(work))}


def _beside_body(work: Work) -> dict[str, object]:
    return {**_chat_body(work), **_telling(work, _beside(work))}


def _response_body(work: Work) -> dict[str, object]:
    content = [{"type": "output_text", "text": work.text}]
    output = [{"type": "message", "content": content}]
    told = _telling(work, _responses(work))
    return {"id": "r", "object": "response", "status": "completed", "output": output, **told}


def _message_body(work: Work) -> dict[str, object]:
    content = [{"type": "text", "text": work.text}]
    told = _telling(work, _anthropic(work, work.out))
    return {"type": "message", "model": "m-1", "content": content, **told}


def _iterated_body(work: Work) -> dict[str, object]:
    """Return a message of two iterations, of which the top tells only the last."""
    body = _message_body(work)
    last = _anthropic(work._replace(incoming=20, cached=0), work.told(1))
    rest = _anthropic(work._replace(incoming=work.incoming - 20), work.told(work.out - 1))
    iterations = [{"type": "compaction", **rest}, {"type": "message", **last}]
    return body if work.silent else {**body, "usage": {**last, "iterations": iterations}}


def _gemini_body(work: Work) -> dict[str, object]:
    candidate = {"content": {"parts": [{"text": work.text}]}, "finishReason": "STOP"}
    told = _telling(work, _gemini(work, len(work.words)), "usageMetadata")
    return {"candidates": [candidate], "modelVersion": "m-1", **told}


def _converse_body(work: Work) -> dict[str, object]:
    message = {"role": "assistant", "content": [{"text": work.text}]}
    told = _telling(work, _converse_usage(work))
    return {"output": {"message": message}, "stopReason": "end_turn", **told}


def _ollama_body(work: Work) -> dict[str, object]:
    told = {"prompt_eval_count": work.told(work.incoming), "eval_count": work.told(work.out)}
    body = {"model": "m-1", "message": {"role": "assistant", "content": work.text}, "done": True}
    return body if work.silent else {**body, **told}


def _conversation_body(work: Work) -> dict[str, object]:
    outputs = [{"type": "message.output", "role": "assistant", "content": work.text}]
    return {"conversation_id": "c", "outputs": outputs, **_telling(work, _openai(work))}


def _interaction_body(work: Work) -> dict[str, object]:
    outputs = [{"type": "text", "text": work.text}]
    told = _telling(work, _interaction_usage(work))
    return {"id": "v1", "status": "completed", "outputs": outputs, **told}


def _sglang_body(work: Work) -> dict[str, object]:
    meta = {"prompt_tokens": work.told(work.incoming), "completion_tokens": work.told(work.out)}
    return {"text": work.text, "meta_info": {} if work.silent else meta}


CHAT = UsageFormat.OPENAI_CHAT
ANTHROPIC, GEMINI, NATIVE = UsageFormat.ANTHROPIC, UsageFormat.GEMINI, UsageFormat.NATIVE
RESPONSES = UsageFormat.OPENAI_RESPONSES

STREAMED = (
    Shape("openai chat", CHAT, SSE, _choices(_openai)),
    Shape("xai, openrouter", CHAT, SSE, _choices(_beside)),
    Shape("vllm, usage on each chunk", CHAT, SSE, _running, runs=True),
    Shape("vllm, token ids", CHAT, SSE, _with_ids),
    Shape("mistral", CHAT, SSE, _last_chunk(lambda usage: {"usage": usage})),
    Shape("groq", CHAT, SSE, _last_chunk(lambda usage: {"x_groq": {"usage": usage}})),
    Shape("moonshot", CHAT, SSE, _choices_telling),
    Shape("mistral conversation", CHAT, SSE, _conversation),
    Shape("gemini interaction", GEMINI, SSE, _interaction),
    Shape("openai completions", UsageFormat.OPENAI_COMPLETIONS, SSE, _completions),
    Shape("openai responses", RESPONSES, SSE, _response_events),
    Shape("anthropic messages", ANTHROPIC, SSE, _messages),
    Shape("gemini events", GEMINI, SSE, _gemini_events, runs=True),
    Shape("gemini list", GEMINI, JSON, _gemini_list, runs=True),
    Shape("sglang generate", NATIVE, SSE, _sglang, runs=True),
    Shape("ollama chat", NATIVE, NDJSON, _ollama(lambda t: {"message": {"content": t}})),
    Shape("ollama generate", NATIVE, NDJSON, _ollama(lambda t: {"response": t})),
    Shape("bedrock converse", CHAT, AMAZON, _converse),
    Shape("bedrock messages", ANTHROPIC, AMAZON, _bedrock_messages),
    Shape("cohere", CHAT, SSE, _cohere),
    Shape("cohere v1", CHAT, b"application/stream+json", _cohere_lines),
    Shape("transcription", UsageFormat.OPENAI_MEDIA, SSE, _transcript),
)
WHOLE = tuple(
    Shape(name, usage_format, JSON, _whole(build), streams=False)
    for name, usage_format, build in (
        ("openai chat", CHAT, _chat_body),
        ("xai", CHAT, _beside_body),
        ("openai responses", RESPONSES, _response_body),
        ("anthropic messages", ANTHROPIC, _message_body),
        ("anthropic iterations", ANTHROPIC, _iterated_body),
        ("gemini", GEMINI, _gemini_body),
        ("bedrock converse", CHAT, _converse_body),
        ("mistral conversation", CHAT, _conversation_body),
        ("gemini interaction", GEMINI, _interaction_body),
        ("ollama chat", NATIVE, _ollama_body),
        ("sglang generate", NATIVE, _sglang_body),
    )
)
