"""A model's API in FastAPI, guarded by one line.

Start it from the project's folder:

    GUARDRAIL_HASH_KEY=example-hash-key uvicorn --app-dir examples/server fastapi_app:app
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic_shape
import openai_shape
from bodies import Chat, Embeddings, Messages, Responses
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from guardrail.asgi import GuardrailMiddleware

PACE = 0.005
"""Seconds that the model takes for a token."""

logging.basicConfig(level="INFO")
app = FastAPI(title="A model that repeats what it is told")
app.add_middleware(GuardrailMiddleware, config=Path(__file__).with_name("guardrail.toml"))


@app.post("/v1/chat/completions")
async def chat_completions(asked: Chat) -> Any:
    """Complete a chat."""
    body = asked.model_dump(exclude_none=True)
    if asked.stream:
        return stream(openai_shape.chat_chunks(body), end="data: [DONE]\n\n")
    return openai_shape.chat(body)


@app.post("/v1/responses")
async def responses(asked: Responses) -> Any:
    """Make a response."""
    body = asked.model_dump(exclude_none=True)
    if asked.stream:
        return stream(openai_shape.response_events(body))
    return openai_shape.response(body)


@app.post("/v1/embeddings")
async def embeddings(asked: Embeddings) -> Any:
    """Make vectors of texts."""
    return openai_shape.embeddings(asked.model_dump(exclude_none=True))


@app.post("/v1/messages")
async def messages(asked: Messages) -> Any:
    """Answer messages."""
    body = asked.model_dump(exclude_none=True)
    if asked.stream:
        return stream(anthropic_shape.message_events(body))
    return anthropic_shape.message(body)


@app.get("/v1/models")
async def models() -> Any:
    """List the models."""
    data = [{"id": name, "object": "model", "owned_by": "you"} for name in ("large", "small")]
    return {"object": "list", "data": data}


@app.get("/health")
async def health() -> Any:
    """Tell that the server is there; no key is needed."""
    return {"status": "ok"}


def stream(events: Generator[dict[str, Any]], end: str = "") -> StreamingResponse:
    """Send events as they come, at the pace of a model."""

    async def paced() -> AsyncIterator[str]:
        with closing(events):  # the model stops when its client leaves
            for event in events:
                name = f"event: {event['type']}\n" if "type" in event else ""
                yield f"{name}data: {json.dumps(event)}\n\n"
                await asyncio.sleep(PACE)
        yield end

    return StreamingResponse(paced(), media_type="text/event-stream")
