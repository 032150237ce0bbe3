"""A model's API in Django, guarded by one line.

Start it from the project's folder:

    GUARDRAIL_HASH_KEY=example-hash-key gunicorn -c examples/server/gunicorn_config.py django_app
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai_shape
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from guardrail.wsgi import GuardrailMiddleware

logging.basicConfig(level="INFO")
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])


@csrf_exempt
@require_POST
def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """Complete a chat, whole or as a stream."""
    body = json.loads(request.body)
    if not body.get("stream"):
        return JsonResponse(openai_shape.chat(body))
    return StreamingHttpResponse(events(body), content_type="text/event-stream")


def health(request: HttpRequest) -> HttpResponseBase:
    """Tell that the server is there; no key is needed."""
    return JsonResponse({"status": "ok"})


def events(body: dict[str, Any]) -> Iterator[str]:
    """Stream a completion as server-sent events."""
    for chunk in openai_shape.chat_chunks(body):
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


urlpatterns = [path("v1/chat/completions", chat_completions), path("health", health)]
application = GuardrailMiddleware(
    get_wsgi_application(), config=Path(__file__).with_name("guardrail.toml")
)
