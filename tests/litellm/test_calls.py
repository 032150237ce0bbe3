"""Every kind of call to LiteLLM's proxy: decided once, settled once, its place given back."""

from __future__ import annotations

from typing import Any

import pytest

ASK = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
SOUND = {"file": ("a.wav", b"RIFF" + bytes(100), "audio/wav")}
LINES = {"file": ("a.jsonl", b'{"custom_id": "1", "method": "POST", "url": "/v1/embeddings"}\n')}

# Path, what is sent, and the tokens that are charged (None: as estimated).
CALLS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "chat": ("/v1/chat/completions", {"json": ASK}, 22),
    "chat of an older path": ("/chat/completions", {"json": ASK}, 22),
    "chat of a deployment": ("/openai/deployments/small/chat/completions", {"json": ASK}, 22),
    "chat stream": ("/v1/chat/completions", {"json": ASK | {"stream": True}}, 22),
    "completion": ("/v1/completions", {"json": {"model": "small", "prompt": "hi"}}, 22),
    "completion stream": (
        "/v1/completions",
        {"json": {"model": "small", "prompt": "hi", "stream": True}},
        22,
    ),
    "embedding": ("/v1/embeddings", {"json": {"model": "small", "input": "hi"}}, 13),
    "response": ("/v1/responses", {"json": {"model": "small", "input": "hi"}}, 22),
    "response stream": (
        "/v1/responses",
        {"json": {"model": "small", "input": "hi", "stream": True}},
        22,
    ),
    "message": ("/v1/messages", {"json": ASK | {"model": "claude"}}, 22),
    "message stream": ("/v1/messages", {"json": ASK | {"model": "claude", "stream": True}}, 22),
    "message of a chat model": ("/v1/messages", {"json": ASK}, 22),
    "moderation": ("/v1/moderations", {"json": {"model": "moderates", "input": "hi"}}, None),
    "image": ("/v1/images/generations", {"json": {"model": "draws", "prompt": "a"}}, None),
    "transcription": (
        "/v1/audio/transcriptions",
        {"data": {"model": "hears"}, "files": SOUND},
        None,
    ),
    "speech": (
        "/v1/audio/speech",
        {"json": {"model": "speaks", "input": "hi", "voice": "alloy"}},
        None,
    ),
    "rerank": (
        "/v1/rerank",
        {"json": {"model": "ranks", "query": "hi", "documents": ["a"]}},
        None,
    ),
    "file": ("/v1/files", {"data": {"purpose": "user_data"}, "files": LINES}, None),
    "batch": (
        "/v1/batches",
        {
            "json": {
                "input_file_id": "file-1",
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            }
        },
        None,
    ),
    "pass through": ("/mine", {"json": ASK}, 22),
    "pass through of a vendor": ("/openai_passthrough/chat/completions", {"json": ASK}, 22),
    "pass through stream": ("/mine", {"json": ASK | {"stream": True}}, 22),
}


GEMINI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
# The same for paths of other vendors, where refusals are worded differently.
OTHERS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "gemini": ("/v1beta/models/small:generateContent", {"json": GEMINI}, 22),
    "gemini stream": ("/v1beta/models/small:streamGenerateContent", {"json": GEMINI}, 22),
    "anthropic pass through": ("/anthropic/v1/messages", {"json": ASK | {"model": "claude"}}, 22),
    "engine": ("/engines/small/chat/completions", {"json": ASK}, 22),
    "cursor": ("/cursor/chat/completions", {"json": {"model": "small", "input": "hi"}}, 22),
    "interaction": ("/v1beta/interactions", {"json": {"model": "small", "input": "hi"}}, None),
    "tool server": (
        "/mcp",
        {"json": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}},
        None,
    ),
}


@pytest.mark.parametrize("call", [*CALLS, *OTHERS])
def test_each_call_is_decided_and_settled_once_and_leaves_its_place(proxy, call):
    path, sent, tokens = (CALLS | OTHERS)[call]
    with proxy.client() as client:
        answers = [client.post(path, **sent) for _ in range(3)]
    used = proxy.settled(client.name)

    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    assert used["calls"] == 3
    assert tokens is None or used["tokens"] == 3 * tokens
