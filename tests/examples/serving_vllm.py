"""Stands in for the command `vllm`, which needs a GPU's worth of packages.

It serves the example's mock model, and takes its middleware from the command line word for word
as vLLM does: found by its dotted path, added to the app without arguments.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from tests.examples.starting import EXAMPLES

sys.path.insert(0, str(EXAMPLES / "server"))


def built(middleware):
    """Return an app with vLLM's own middleware inside, and what was named outside of it."""
    openai_shape = importlib.import_module("openai_shape")
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat_completions(body: dict) -> Any:
        return openai_shape.chat(body)

    @app.post("/invocations")
    async def invocations(body: dict) -> Any:
        return openai_shape.chat(body)

    @app.get("/health")
    async def health() -> Any:
        return {}

    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    for path in middleware:
        module, name = path.rsplit(".", 1)
        imported: Any = getattr(importlib.import_module(module), name)
        if not inspect.isclass(imported):
            raise ValueError(f"Invalid middleware {path}. Must be a function or a class.")
        app.add_middleware(imported)  # type: ignore[arg-type]
    return app


def main():
    """Serve as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    uvicorn.run(built(given.middleware), host="127.0.0.1", port=given.port)


if __name__ == "__main__":
    main()
