"""A model's API that LiteLLM's proxy forwards to: every answer tells a use that is known."""

from __future__ import annotations

import asyncio
import json

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response, StreamingResponse

app = FastAPI()

TOLD = {"prompt_tokens": 13, "completion_tokens": 9, "total_tokens": 22}
OF_RESPONSES = {"input_tokens": 13, "output_tokens": 9, "total_tokens": 22}
SEEN: list[dict] = []
"""What arrived: path, model and body of each request."""


class Held:
    """What waits: requests until they are let go, and streams until their client leaves."""

    waiting = left = 0
    goes = False


async def body_of(request):
    kind = request.headers.get("content-type", "")
    if "json" in kind:
        body = await request.json()
    else:
        form = await request.form()
        body = {name: value for name, value in form.items() if isinstance(value, str)}
    SEEN.append({"path": request.url.path, **body})
    return body


def events(*chunks, done=True) -> Response:
    async def stream():
        for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


def named(*chunks) -> Response:
    async def stream():
        for chunk in chunks:
            yield f"event: {chunk['type']}\ndata: {json.dumps(chunk)}\n\n".encode()

    return StreamingResponse(stream(), media_type="text/event-stream")


async def held():
    """Wait until a test lets go."""
    Held.waiting += 1
    while not Held.goes:
        await asyncio.sleep(0.01)


def fails(body) -> Response | None:
    text = json.dumps(body)
    if "please fail" in text:
        return JSONResponse({"error": {"message": "no", "type": "server_error"}}, 500)
    if "please refuse" in text:
        return JSONResponse({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
    return None


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await body_of(request)
    if (failed := fails(body)) is not None:
        return failed
    if "please wait" in json.dumps(body):
        await held()
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "two words"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**told, "choices": [choice], "usage": TOLD})
    told["object"] = "chat.completion.chunk"
    words = [{"index": 0, "delta": {"role": "assistant", "content": "word "}}]
    chunks = [{**told, "choices": words} for _ in range(4)]
    if "please go on" in json.dumps(body):
        return StreamingResponse(endless(chunks[0]), media_type="text/event-stream")
    chunks.append({**told, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**told, "choices": [], "usage": TOLD})
    return events(*chunks)


async def endless(chunk):
    Held.waiting += 1
    try:
        while True:
            yield f"data: {json.dumps(chunk)}\n\n".encode()
            await asyncio.sleep(0.01)
    finally:
        Held.left += 1


@app.post("/v1/completions")
async def complete(request: Request) -> Response:
    body = await body_of(request)
    told = {"id": "c", "object": "text_completion", "created": 1, "model": body["model"]}
    choice = {"index": 0, "text": "two words", "finish_reason": "stop", "logprobs": None}
    if not body.get("stream"):
        return JSONResponse({**told, "choices": [choice], "usage": TOLD})
    chunks = [{**told, "choices": [choice]}]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**told, "choices": [], "usage": TOLD})
    return events(*chunks)


@app.post("/v1/embeddings")
async def embed(request: Request) -> Response:
    body = await body_of(request)
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}]
    usage = {"prompt_tokens": 13, "total_tokens": 13}
    told = {"object": "list", "model": body["model"], "data": data, "usage": usage}
    return JSONResponse(told)


@app.post("/v1/responses")
async def respond(request: Request) -> Response:
    body = await body_of(request)
    text = {"type": "output_text", "text": "two words", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    told = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [{**message, "content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": OF_RESPONSES,
    }
    if not body.get("stream"):
        return JSONResponse(told)
    begun = {**told, "status": "in_progress", "output": [], "usage": None}
    delta = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0}
    return named(
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {**delta, "content_index": 0, "sequence_number": 1, "delta": "two words"},
        {"type": "response.completed", "sequence_number": 2, "response": told},
    )


@app.post("/v1/messages")
async def message(request: Request) -> Response:
    body = await body_of(request)
    usage = {"input_tokens": 13, "output_tokens": 9}
    told = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
    text = {"type": "text", "text": "two words"}
    if not body.get("stream"):
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        return JSONResponse({**told, **ended, "content": [text], "usage": usage})
    begun = {**told, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    delta = {"type": "text_delta", "text": "two words"}
    return named(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {**text, "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    )


@app.post("/v1/moderations")
async def moderate(request: Request) -> Response:
    await body_of(request)
    result = {"flagged": False, "categories": {}, "category_scores": {}}
    return JSONResponse({"id": "modr-1", "model": "m", "results": [result]})


@app.post("/v1/images/generations")
async def draw(request: Request) -> Response:
    await body_of(request)
    usage = {**OF_RESPONSES, "input_tokens_details": {"text_tokens": 13, "image_tokens": 0}}
    return JSONResponse({"created": 1, "data": [{"b64_json": "AAAA"}], "usage": usage})


@app.post("/v1/audio/transcriptions")
async def transcribe(request: Request) -> Response:
    await body_of(request)
    of = {"input_token_details": {"text_tokens": 0, "audio_tokens": 13}}
    return JSONResponse({"text": "two words", "usage": {"type": "tokens", **of, **OF_RESPONSES}})


@app.post("/v1/audio/speech")
async def speak(request: Request) -> Response:
    await body_of(request)
    return Response(b"sound" * 100, media_type="audio/mpeg")


@app.post("/v1/rerank")
@app.post("/rerank")
async def rank(request: Request) -> Response:
    await body_of(request)
    results = [{"index": 0, "relevance_score": 0.5}]
    meta = {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 13}}
    return JSONResponse({"id": "r", "results": results, "meta": meta})


@app.post("/v1/files")
async def keep(request: Request) -> Response:
    await body_of(request)
    told = {"id": "file-1", "object": "file", "bytes": 9, "created_at": 1, "filename": "a.jsonl"}
    return JSONResponse({**told, "purpose": "batch", "status": "processed"})


@app.post("/v1/batches")
async def batch(request: Request) -> Response:
    await body_of(request)
    told = {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions"}
    told |= {"input_file_id": "file-1", "completion_window": "24h", "status": "validating"}
    return JSONResponse({**told, "created_at": 1})


@app.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json({"type": "session.created", "event_id": "e0", "session": {"id": "s"}})
    async for text in socket.iter_text():
        if json.loads(text).get("type") != "response.create":
            continue
        SEEN.append({"path": "/v1/realtime", **json.loads(text)})
        done = {"id": "r", "status": "completed", "output": [], "usage": OF_RESPONSES}
        await socket.send_json({"type": "response.created", "event_id": "e1", "response": {}})
        await socket.send_json({"type": "response.done", "event_id": "e2", "response": done})
