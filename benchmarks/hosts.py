"""A model API to be guarded, who calls it, and the middleware it is measured with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Duration, Limiter, Rate

from benchmarks.workload import addresses_served, r5_requests
from guardrail.signals.directory import Credential, Identity, credential_id

App = Callable[..., Any]

HASH_KEY = b"a hash key for benchmarks"
PATH = "/v1/chat/completions"
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Quite so. " * 12},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 31, "completion_tokens": 37, "total_tokens": 68},
    }
).encode()


def host(*dependencies: Any) -> FastAPI:
    """Return a model API that reads its body and answers with one completion."""
    host = FastAPI()

    @host.post(PATH, dependencies=[Depends(dependency) for dependency in dependencies])
    async def chat(request: Request) -> Response:
        await request.json()
        return Response(ANSWER, media_type="application/json")

    return host


def no_op(app: App) -> App:
    """Return a pure ASGI middleware that does nothing."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


class Accounts:
    """A directory in a host's memory: a thousand accounts of R5, by their keys."""

    provides = frozenset({"account.id", "account.org", "account.tier"})

    def __init__(self, tier: str | None) -> None:
        self._known = {}
        for facts, _ in r5_requests(1000, tier=tier).stated:
            told = {name: facts[name] for name in sorted(self.provides)}
            self._known[credential_id(_key(facts["account.id"]), HASH_KEY)] = Identity(told)

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a key is."""
        return self._known.get(credential.id, Identity())

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same: nothing is waited for."""
        return self.look_up(credential, now)

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return nothing: memory does not fail."""
        return ()

    def close(self) -> None:
        """Let go of nothing."""


def with_fastapi_limiter() -> FastAPI:
    """Return the host with three limits of fastapi-limiter's, in memory."""

    async def identifier(request: Request) -> str:
        return key_of(request)

    rates = [Rate(1 << 40, period) for period in (Duration.MINUTE, Duration.DAY, Duration.DAY)]
    return host(*(RateLimiter(Limiter(rate), identifier) for rate in rates))


def key_of(request: Request) -> str:
    """Return whom the limits of others count."""
    return request.headers["authorization"]


def _key(account: object) -> str:
    return f"sk-{account}"


def scopes(length: int) -> list[dict[str, Any]]:
    """Return the scopes of requests of a thousand accounts, from countries that are served."""
    addresses = addresses_served(1000)
    keys = [_key(facts["account.id"]) for facts, _ in r5_requests(1000).stated]
    return [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"api.example"),
                (b"accept", b"application/json"),
                (b"accept-encoding", b"gzip, deflate, br, zstd"),
                (b"connection", b"keep-alive"),
                (b"user-agent", b"OpenAI/Python 2.8.1"),
                (b"content-type", b"application/json"),
                (b"authorization", f"Bearer {key}".encode()),
                (b"content-length", str(length).encode()),
            ],
            "client": (address, 50000),
            "server": ("127.0.0.1", 80),
        }
        for key, address in zip(keys, addresses, strict=True)
    ]
