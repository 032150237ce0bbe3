"""A model's API in Flask, guarded by one line.

Start it from the project's folder:

    GUARDRAIL_HASH_KEY=example-hash-key gunicorn -c examples/server/gunicorn_config.py flask_app:app
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_shape
from flask import Flask, Response, request

from guardrail.wsgi import GuardrailMiddleware

logging.basicConfig(level="INFO")
app = Flask(__name__)
app.wsgi_app = GuardrailMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, config=Path(__file__).with_name("guardrail.toml")
)


@app.post("/v1/chat/completions")
def chat_completions() -> Response | dict[str, Any]:
    """Complete a chat, whole or as a stream."""
    body = request.get_json()
    if not body.get("stream"):
        return openai_shape.chat(body)
    return Response(events(body), mimetype="text/event-stream")


@app.get("/health")
def health() -> dict[str, str]:
    """Tell that the server is there; no key is needed."""
    return {"status": "ok"}


def events(body: dict[str, Any]) -> Iterator[str]:
    """Stream a completion as server-sent events."""
    for chunk in openai_shape.chat_chunks(body):
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"
