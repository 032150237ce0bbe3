"""The model's answers in the shape of OpenAI's API: chat completions, responses, embeddings."""

from __future__ import annotations

import hashlib
import struct
import time
from base64 import b64encode
from collections.abc import Generator
from typing import Any
from uuid import uuid4

from model import Reply, reply_to, tokens_of

Body = dict[str, Any]
DIMENSIONS = 8
DONE = b"data: [DONE]\n\n"


def chat_reply(body: Body) -> Reply:
    """Let the model answer a chat."""
    messages = body["messages"]
    tools = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    cap = body.get("max_completion_tokens") or body.get("max_tokens")
    return reply_to(messages, cap, tools, told=messages[-1]["role"] == "tool")


def chat(body: Body) -> Body:
    """Complete a chat, whole."""
    reply = chat_reply(body)
    said = reply.whole()
    message: Body = {"role": "assistant", "content": said}
    if reply.tool:
        function = {"name": reply.tool, "arguments": said}
        call = {"id": _id("call"), "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": _why(reply)}
    return _completion(body) | {"choices": [choice], "usage": _chat_usage(reply)}


def chat_chunks(body: Body) -> Generator[Body]:
    """Complete a chat in chunks, the last of which tells the usage if that was asked for.

    With `continuous_usage_stats`, as vLLM has it, each chunk tells the usage so far.
    """
    reply = chat_reply(body)
    options = body.get("stream_options") or {}
    head = _completion(body) | {"object": "chat.completion.chunk"}

    def chunk(delta: Body, why: str | None = None) -> Body:
        so_far = _chat_usage(reply) if options.get("continuous_usage_stats") else None
        choice = {"index": 0, "delta": delta, "finish_reason": why}
        return head | {"choices": [choice], "usage": so_far}

    first: Body = {"role": "assistant"}
    if reply.tool:
        function = {"name": reply.tool, "arguments": ""}
        call = {"index": 0, "id": _id("call"), "type": "function", "function": function}
        first["tool_calls"] = [call]
    yield chunk(first)
    for token in reply.stream():
        spoken = {"content": token}
        called = {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}
        yield chunk(called if reply.tool else spoken)
    yield chunk({}, _why(reply))
    if options.get("include_usage"):
        yield head | {"choices": [], "usage": _chat_usage(reply)}


def response(body: Body) -> Body:
    """Make a response, whole."""
    reply = _response_reply(body)
    output = _said(_output(reply), reply.whole())
    return _finished(_response(body), reply, output)


def response_events(body: Body) -> Generator[Body]:
    """Make a response in events."""
    reply = _response_reply(body)
    made, output = _response(body), _output(reply)
    kind = "function_call_arguments" if reply.tool else "output_text"
    at = {"output_index": 0, "content_index": 0, "item_id": output["id"]}
    number = iter(range(1 << 20))

    def event(type_: str, **members: Any) -> Body:
        return {"type": f"response.{type_}", "sequence_number": next(number), **members}

    yield event("created", response=made | {"status": "in_progress"})
    yield event("output_item.added", output_index=0, item=output)
    if not reply.tool:
        part = {"type": "output_text", "text": "", "annotations": []}
        yield event("content_part.added", **at, part=part)
    said = ""
    for token in reply.stream():
        said += token
        yield event(f"{kind}.delta", **at, delta=token)
    output = _said(output, said)
    yield event(f"{kind}.done", **at, **{"arguments" if reply.tool else "text": said})
    yield event("output_item.done", output_index=0, item=output)
    finished = _finished(made, reply, output)
    yield event(finished["status"], response=finished)


def embeddings(body: Body) -> Body:
    """Make a vector of each text."""
    given = body["input"]
    texts = given if isinstance(given, list) else [given]
    data = []
    for index, text in enumerate(texts):
        packed = hashlib.shake_128(text.encode()).digest(DIMENSIONS)
        vector = [byte / 255 for byte in packed]
        as_text = b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
        shown = as_text if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    count = sum(len(tokens_of(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _id(kind: str) -> str:
    return f"{kind}_{uuid4().hex}"


def _completion(body: Body) -> Body:
    made = {"id": _id("chatcmpl"), "object": "chat.completion", "created": int(time.time())}
    return made | {"model": body["model"]}


def _why(reply: Reply) -> str:
    return "length" if reply.cut else "tool_calls" if reply.tool else "stop"


def _chat_usage(reply: Reply) -> Body:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.written,
        "total_tokens": reply.prompt_tokens + reply.written,
    }


def _response_reply(body: Body) -> Reply:
    given = body["input"]
    told = isinstance(given, list) and given[-1].get("type") == "function_call_output"
    tools = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
    prompt = [body.get("instructions"), given]
    return reply_to(prompt, body.get("max_output_tokens"), tools, told=told)


def _response(body: Body) -> Body:
    made = {"id": _id("resp"), "object": "response", "created_at": int(time.time())}
    asked = {"model": body["model"], "tools": body.get("tools") or [], "tool_choice": "auto"}
    return made | asked | {"parallel_tool_calls": False, "output": []}


def _output(reply: Reply) -> Body:
    """Return what the model is about to say, or to call."""
    if reply.tool:
        call = {"type": "function_call", "id": _id("fc"), "call_id": _id("call")}
        return call | {"name": reply.tool, "arguments": "", "status": "in_progress"}
    message = {"type": "message", "id": _id("msg"), "role": "assistant"}
    return message | {"content": [], "status": "in_progress"}


def _said(output: Body, said: str) -> Body:
    """Return the same when it is said."""
    if output["type"] == "function_call":
        return output | {"arguments": said, "status": "completed"}
    content = [{"type": "output_text", "text": said, "annotations": []}]
    return output | {"content": content, "status": "completed"}


def _finished(made: Body, reply: Reply, output: Body) -> Body:
    usage = {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + reply.written,
    }
    status = "incomplete" if reply.cut else "completed"
    why = {"incomplete_details": {"reason": "max_output_tokens"}} if reply.cut else {}
    return made | why | {"status": status, "output": [output], "usage": usage}
