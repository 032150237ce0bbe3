"""T7: what the ASGI middleware adds to a request, against none, slowapi and fastapi-limiter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import cycle
from statistics import median
from time import process_time, thread_time
from typing import Any, cast

from limits.storage import MemoryStorage
from slowapi import Limiter as SlowLimiter
from slowapi.middleware import SlowAPIMiddleware

from benchmarks.hosts import (
    HASH_KEY,
    Accounts,
    App,
    host,
    key_of,
    no_op,
    scopes,
    with_fastapi_limiter,
)
from benchmarks.peers import quiet
from benchmarks.results import Result
from benchmarks.timing import Contender, Rounds, interleaved, micros
from benchmarks.workload import R5_POLICY, Clock
from guardrail.asgi import GuardrailMiddleware

ADDED_MOST, SLOWAPI_LEAST = 60.0, 5.0
MIB = 1 << 20


def door_costs(rounds: int, scale: float) -> list[Result]:
    """Return T7: CPU a request, added by each middleware to the same FastAPI application."""
    count = max(20, int(500 * scale))
    few = max(2, int(20 * scale))
    small, large = _chat(1, 300), _chat(256, MIB // 256)
    with asyncio.Runner() as runner:
        costs = interleaved(
            {
                "none": _serving(runner, _Crowd(no_op(host()), small), count),
                "guardrail": _serving(runner, _guarded(small), count),
                "slowapi": _serving(runner, _slowapi(small), count),
                "fastapi-limiter": _serving(runner, _Crowd(with_fastapi_limiter(), small), count),
                "none, 1 MiB": _serving(runner, _Crowd(no_op(host()), large), few),
                "guardrail, 1 MiB": _serving(runner, _guarded(large, "enterprise"), few),
            },
            rounds,
        )
        pauses = interleaved(
            {
                "none": _pausing(runner, _Crowd(no_op(host()), large), few),
                "guardrail": _pausing(runner, _guarded(large, "enterprise"), few),
            },
            rounds,
        )
    return _rows(costs, pauses)


def _rows(costs: Rounds, pauses: Rounds) -> list[Result]:
    ours = _added(costs, "guardrail", "none")
    rows = [
        Result(
            target="T7",
            what="CPU the middleware adds: chat body, R5, headers, settled",
            value=ours,
            unit="µs",
            bound=ADDED_MOST,
            note=f"on {micros(costs, 'none'):.0f} µs with a no-op middleware",
        )
    ]
    for name, bound in (("slowapi", SLOWAPI_LEAST), ("fastapi-limiter", None)):
        theirs = _added(costs, name, "none")
        value = median(
            (t - n) / (g - n)
            for t, g, n in zip(costs[name], costs["guardrail"], costs["none"], strict=True)
        )
        note = f"{theirs:.0f} µs with three limits in memory"
        what = f"… what {name} adds, in what we do"
        rows.append(
            Result(target="T7", what=what, value=value, bound=bound, at_least=True, note=note)
        )
    large = _added(costs, "guardrail, 1 MiB", "none, 1 MiB")
    base = micros(costs, "none, 1 MiB")
    note = f"on {base / 1000:.1f} ms"
    rows.append(
        Result(target="T7", what="… for a body of 1 MiB", value=large / 1000, unit="ms", note=note)
    )
    held, free = (1e3 * median(pauses[name]) for name in ("guardrail", "none"))
    what = "… of it, the most in one turn of the event loop"
    note = f"{free:.1f} ms without"
    rows.append(Result(target="T7", what=what, value=held, unit="ms", note=note))
    return rows


def _added(costs: Rounds, more: str, less: str) -> float:
    """Return what one contender costs beyond another, in microseconds."""
    rows = zip(costs[more], costs[less], strict=True)
    return 1e6 * median(a - b for a, b in rows)


def _chat(messages: int, length: int) -> bytes:
    """Return a chat of so many messages of so many characters, written as the SDKs do."""
    text = ("The quick brown fox jumps over the lazy dog. " * (1 + length // 45))[:length]
    turns = [
        {"role": "assistant" if number % 2 else "user", "content": text}
        for number in range(messages)
    ]
    chat = {"messages": turns, "model": "small", "max_tokens": 30}
    return json.dumps(chat, separators=(",", ":")).encode()


def _guarded(body: bytes, tier: str | None = None) -> _Crowd:
    clock = Clock()
    app = GuardrailMiddleware(
        host(),
        policies=R5_POLICY,
        store="memory://",
        directory=Accounts(tier),
        clock=lambda: clock.now,
        environ={},
        hash_key=HASH_KEY,
    )
    return _Crowd(app, body, clock)


def _slowapi(body: bytes) -> _Crowd:
    limits = ["1000000000/minute", "1000000000/day", "1000000001/day"]
    app = host()
    limiter = SlowLimiter(key_of, default_limits=limits, headers_enabled=True)  # type: ignore[arg-type]
    app.state.limiter = limiter
    app.add_middleware(SlowAPIMiddleware)
    storage = cast(MemoryStorage, limiter._storage)
    return _Crowd(app, body, ended=lambda: quiet(storage))


class _Client:
    """Sends a request to an application, message by message, and counts what it answers."""

    def __init__(self, scope: dict[str, Any], body: bytes) -> None:
        self._scope = scope
        self._body: bytes | None = body
        self._last: dict[str, Any] = {}

    async def run(self, app: App) -> None:
        await app(dict(self._scope), self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(f"refused: {message}")


class _Crowd:
    """Requests of a thousand accounts in turn to one application; `ended` after each round."""

    def __init__(
        self,
        app: App,
        body: bytes,
        clock: Clock | None = None,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self.ended = ended
        self._app = app
        self._body = body
        self._clock = clock or Clock()
        self._scopes = cycle(scopes(len(body)))

    async def send(self, count: int) -> None:
        for _ in range(count):
            self._clock.now += self._clock.step
            await _Client(next(self._scopes), self._body).run(self._app)
            await asyncio.sleep(0)


def _serving(runner: asyncio.Runner, crowd: _Crowd, count: int) -> Contender:
    def run() -> float:
        began = process_time()
        runner.run(crowd.send(count))
        took = process_time() - began
        crowd.ended()
        return took / count

    return run


def _pausing(runner: asyncio.Runner, crowd: _Crowd, count: int) -> Contender:
    """Return a contender whose figure is the most work that the event loop does in one turn."""

    async def watched() -> float:
        longest, before = 0.0, thread_time()
        sending = asyncio.ensure_future(crowd.send(count))
        while not sending.done():
            await asyncio.sleep(0)
            now = thread_time()
            longest, before = max(longest, now - before), now
        await sending
        return longest

    return lambda: runner.run(watched())
