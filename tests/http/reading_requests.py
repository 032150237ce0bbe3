"""Requests drawn by a seed: as clients send them, by mistake, and to pass a guard unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.http.reading_hosts import Sent

FUNCTION = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
MODELS = ("small", "large", "vertex_ai/gemini-pro", "org/large:v2")
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "messages batch": "/v1/messages/batches",
    "gemini batch": "/v1beta/models/small:batchGenerateContent",
    "gemini": "/v1beta/models/{}:generateContent",
    "ollama": "/api/chat",
    "files": "/v1/files",
}
_CHAT_PATHS = (
    "/v1/chat/completions",
    "/v1/engines/{}/chat/completions",
    "/openai/deployments/{}/chat/completions",
    "/unheard/of",
    "/v1/chat/completions;v=1",
    "//V1/Chat/completions/",
    "/v1/brand/new",
    "/v1/batches/x/../../chat/completions",
)
_TYPES = (
    None,
    b"text/plain",
    b"application/x-www-form-urlencoded",
    b"application/json; charset=utf-16",
    b"application/json; charset=unicode_escape",
    b"application/json; charset=utf-8",
    b"application/json;charset=UTF-7",
    b"application/json; charset*=utf-8''unicode_escape",
    b'application/json; x="; charset=utf-8"; charset=utf-16',
    b"application/vnd.api+json",
    b"multipart/form-data; boundary=xyz",
)


def drawn(random: Random) -> Sent:
    """Return one request: a third as clients send it, the others changed once or several times."""
    api = random.choice(list(PATHS))
    if api == "files":
        return _file(random)
    document = _document(random, api)
    path = _path(random, api, document)
    method = random.choice(("POST",) * 8 + ("PUT", "OPTIONS"))
    changes = random.choice((0, 1, 1, 2, 3))
    for _ in range(changes):
        random.choice(_CHANGES)(random, document)
    if changes and random.random() < 0.1 and "model" in document:
        return Sent(
            api,
            method,
            path,
            ((b"content-type", b"multipart/form-data; boundary=xyz"),),
            _form(random, document),
        )
    body = json.dumps(document, ensure_ascii=random.random() < 0.5).encode()
    stated: bytes | None = b"application/json"
    if changes and random.random() < 0.4:
        body = random.choice(_WRITINGS)(random, body)
    if changes and random.random() < 0.3:
        stated = random.choice(_TYPES)
        body = _written_as(random, body, stated)
    headers = () if stated is None else ((b"content-type", stated),)
    if changes and random.random() < 0.05:
        headers = (*headers, (b"content-type", random.choice(_TYPES) or b""))
    return Sent(api, method, path, headers, body)


def _written_as(random: Random, body: bytes, stated: bytes | None) -> bytes:
    text = body.decode("utf-8", "replace")
    if stated is None or b"charset" not in stated:
        return body
    if b"unicode_escape" in stated:
        # To who believes the label the escapes are a second member, to others a text.
        hidden = r"\u0022,\u0022model\u0022:\u0022large\u0022,\u0022x\u0022:\u0022"
        return text[:-1].encode() + b', "user": "' + hidden.encode() + b'"}'
    return text.encode("utf-16") if random.random() < 0.5 and b"utf-16" in stated else body


def _document(random: Random, api: str) -> dict[str, Any]:
    text = random.choice(("hi", "tell me more", "é ü"))
    messages = [{"role": "user", "content": text}]
    cap = random.choice((None, 1, 64, 4_000))
    model = random.choice(MODELS[:2])
    document: dict[str, Any] = {"model": model, "messages": messages}
    if api == "gemini":
        document = {"contents": [{"parts": [{"text": text}]}]}
        if cap:
            document["generationConfig"] = {"maxOutputTokens": cap}
        return document
    if api == "gemini batch":
        inline = [{"request": _document(random, "gemini")} for _ in range(random.randrange(1, 5))]
        return {"batch": {"input_config": {"requests": {"requests": inline}}}}
    if api == "messages batch":
        every = [
            {"custom_id": str(at), "params": _document(random, "messages")}
            for at in range(random.randrange(1, 5))
        ]
        return {"requests": every}
    if api == "ollama":
        options = random.choice(({}, {"num_predict": 5}, {"num_predict": -1}, {"num_predict": -2}))
        return {**document, "options": options}
    if api == "responses":
        document = {"model": model, "input": random.choice((text, messages))}
    if api == "completions":
        document = {"model": model, "prompt": random.choice((text, [text, text, text]))}
    if cap:
        caps = {"responses": "max_output_tokens", "chat": "max_completion_tokens"}
        document[caps.get(api, "max_tokens")] = cap
    if api == "chat" and random.random() < 0.2:
        document["n"] = random.randrange(1, 5)
    return document


def _path(random: Random, api: str, document: dict[str, Any]) -> str:
    if api == "gemini":
        path = random.choice((PATHS[api], PATHS[api], "/v1beta/models/{}:newMethod"))
        return path.format(random.choice(MODELS))
    if api != "chat" or random.random() < 0.5:
        return PATHS[api]
    named = random.choice((document["model"], random.choice(MODELS)))
    return random.choice(_CHAT_PATHS).format(named)


def _inner(random: Random, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document, or one of the requests it holds."""
    requests = document.get("requests")
    if isinstance(requests, list) and requests:
        one = random.choice(requests)
        return one["params"] if isinstance(one, dict) and "params" in one else document
    return document


def _tools(random: Random, document: dict[str, Any]) -> None:
    inner = _inner(random, document)
    if "contents" in inner:
        name = random.choice(("functionDeclarations", "function_declarations"))
        inner["tools"] = [
            {name: [{"name": "f"}, {"name": "g"}], **random.choice(({}, {"type": "googleSearch"}))}
        ]
        return
    inner["tools"] = random.choice(
        (
            [FUNCTION],
            [{**FUNCTION, "type": "web_search"}],
            [{"type": "web_search"}],
            [{"type": "brand_new"}],
            [{"name": "f", "input_schema": {}, "type": "file_search"}],
            [FUNCTION] * 3,
        )
    )


def _hidden(random: Random, document: dict[str, Any]) -> None:
    """Put something that decides where gateways and SDKs carry it."""
    inner = _inner(random, document)
    what = random.choice(
        ({"tools": [FUNCTION]}, {"n": 50}, {"model": "large"}, {"max_tokens": 90_000})
    )
    inner["extra_body"] = what
    if isinstance(inner.get("input"), list):
        inner["input"] = [{"type": "additional_tools", "tools": [FUNCTION, FUNCTION]}]
    if "contents" in inner:
        inner["cachedContent"] = "cachedContents/x"


def _decoy(random: Random, document: dict[str, Any]) -> None:
    if "requests" in document:
        document["batch"] = random.choice(({}, {"requests": []}, {"input_config": {}}))
        document["input_config"] = {"requests": [{"request": {}}]}
    elif "batch" in document:
        document["requests"] = random.choice(([], [{"params": {}}]))
        document["batch"]["requests"] = random.choice(({}, []))
    else:
        document[random.choice(("max_tokens", "max_completion_tokens", "max_new_tokens"))] = 1


def _odd_number(random: Random, document: dict[str, Any]) -> None:
    inner = _inner(random, document)
    name = random.choice(("n", "max_tokens", "max_completion_tokens", "max_output_tokens"))
    inner[name] = random.choice(("7", 7.0, True, 0, -1, 1e400, float("nan"), 2**70, None, [7]))


def _other_case(random: Random, document: dict[str, Any]) -> None:
    name, value = random.choice((("Model", "large"), ("TOOLS", [FUNCTION]), ("Options", {})))
    _inner(random, document)[name] = value


_CHANGES: tuple[Callable[[Random, dict[str, Any]], None], ...] = (
    _tools,
    _tools,
    _hidden,
    _decoy,
    _odd_number,
    _other_case,
)


def _doubled(random: Random, body: bytes) -> bytes:
    again = random.choice(
        (b'"model": "large"', b'"n": 40', b'"max_tokens": 1', b'"mod\\u0065l": "large"')
    )
    return body[:-1] + b", " + again + b"}"


_WRITINGS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _doubled,
    _doubled,
    lambda random, body: b"\xef\xbb\xbf" + body,
    lambda random, body: body.decode().encode(random.choice(("utf-16", "utf-32", "utf-16-le"))),
    lambda random, body: body + random.choice((b"\n", b" {}", b"\0", b'{"n": 9}')),
    lambda random, body: b"a=1&" + body,
    lambda random, body: body[: random.randrange(len(body))],
    lambda random, body: b"",
)


def _form(random: Random, document: dict[str, Any]) -> bytes:
    parts = [
        b'--xyz\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (name.encode(), value.encode() if isinstance(value, str) else json.dumps(value).encode())
        for name, value in document.items()
    ]
    return b"".join(parts) + b"--xyz--\r\n"


def _file(random: Random) -> Sent:
    bodies = [_document(random, "chat") for _ in range(random.randrange(1, 6))]
    if random.random() < 0.3:
        bodies[0]["tools"] = [FUNCTION]
    lines = [
        {"custom_id": str(at), "method": "POST", "url": PATHS["chat"], "body": body}
        for at, body in enumerate(bodies)
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    purpose = random.choice((b"batch", b"batch", b"user_data", b"batch ", b"Batch"))
    named = random.choice(
        (
            b'name="purpose"',
            b'name="purpose"',
            b"name=purpose",
            b'name="purpose"; x="; filename="',
            b'name="purpose"; filename=""',
            b"name*=utf-8''purpose",
            b'name="pur\\pose"',
        )
    )
    body = (
        b"--xyz\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n"
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="f.jsonl"\r\n\r\n%b\r\n'
        b"--xyz--\r\n" % (named, purpose, content)
    )
    stated = random.choice(
        (b"multipart/form-data; boundary=xyz",) * 4
        + (
            b'multipart/form-data; boundary="xyz"',
            b"application/json",
            b"multipart/mixed; boundary=xyz",
        )
    )
    return Sent("files", "POST", PATHS["files"], ((b"content-type", stated),), body)
