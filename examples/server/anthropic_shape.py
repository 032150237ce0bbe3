"""The model's answers in the shape of Anthropic's API: messages, whole and in events."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any
from uuid import uuid4

from model import Reply, reply_to

Body = dict[str, Any]


def message(body: Body) -> Body:
    """Answer messages, whole."""
    reply = _reply(body)
    said = reply.whole()
    content = _block(reply, said)
    return _message(body, reply) | {"content": [content], "stop_reason": _why(reply)}


def message_events(body: Body) -> Generator[Body]:
    """Answer messages in events; the output's tokens are told at the end."""
    reply = _reply(body)
    yield {"type": "message_start", "message": _message(body, reply)}
    yield {"type": "content_block_start", "index": 0, "content_block": _block(reply, "")}
    for token in reply.stream():
        spoken = {"type": "text_delta", "text": token}
        called = {"type": "input_json_delta", "partial_json": token}
        delta = called if reply.tool else spoken
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": _why(reply), "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": reply.written}}
    yield {"type": "message_stop"}


def _reply(body: Body) -> Reply:
    messages, tools = body["messages"], body.get("tools") or ()
    last = messages[-1].get("content")
    told = isinstance(last, list) and any(part.get("type") == "tool_result" for part in last)
    named = [{"name": t["name"], "parameters": t.get("input_schema")} for t in tools]
    return reply_to([body.get("system"), messages], body["max_tokens"], named, told=told)


def _message(body: Body, reply: Reply) -> Body:
    return {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.prompt_tokens, "output_tokens": reply.written},
    }


def _block(reply: Reply, said: str) -> Body:
    if not reply.tool:
        return {"type": "text", "text": said}
    given = json.loads(said) if said and not reply.cut else {}
    return {"type": "tool_use", "id": f"toolu_{uuid4().hex}", "name": reply.tool, "input": given}


def _why(reply: Reply) -> str:
    return "max_tokens" if reply.cut else "tool_use" if reply.tool else "end_turn"
