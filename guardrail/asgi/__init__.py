"""The guard as ASGI middleware: FastAPI, Starlette, vLLM and whatever else speaks ASGI."""

from guardrail.asgi.middleware import GuardrailMiddleware

__all__ = ["GuardrailMiddleware"]
