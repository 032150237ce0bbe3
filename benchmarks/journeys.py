"""What a reader who follows one request through the package has to read: calls, files and moves.

`python -m benchmarks.journeys` counts them by a tracer, and beside them the steps that the
interpreter takes in the package; a count does not depend on the machine.
`--size` counts lines of code instead, without blank lines, comments and docstrings. Both print a
table, and the same as JSON on the last line.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import io
import json
import os
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import guardrail
from benchmarks.hosts import HASH_KEY, Accounts, scopes
from benchmarks.workload import R5_POLICY, START, r5_requests
from guardrail import AsyncGuard, Decision, Effect, Guard, StoreMode
from guardrail.asgi import GuardrailMiddleware
from guardrail.loading import load_text
from tests.stores.servers import Server

PACKAGE = Path(guardrail.__file__).parent
GENERATED = "<guardrail "
"""How the name of code begins that is generated for a policy set."""
WARM = 3
"""How often a journey is made before it is counted: what is made once is no part of it."""
SETTINGS: dict[str, Any] = {"environ": {}, "hash_key": HASH_KEY, "clock": lambda: START}
PATIENT = "?deadline=20s"

FACTS, ESTIMATE = r5_requests(1, tier="enterprise").stated[0]
USAGE = {"input_tokens": 31, "output_tokens": 17}
BLOCKED = FACTS | {"geo.country": "IR"}
THROTTLED = FACTS | {"account.tier": "anon"}
USED_UP = 12
"""As many requests in one moment are more than `THROTTLED` may make."""

NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)
RULE = """
guardrail: 1
policy: one
rules:
  - id: tokens-per-day
    when: {request.capability: chat}
    budget: {tokens: 200k, per: day, key: account.id}
    over: {throttle: {reason: daily_tokens}}
"""
CHAT = json.dumps(
    {
        "model": "small",
        "messages": [{"role": "user", "content": "Is it so?"}],
        "max_tokens": 30,
        "stream": True,
    }
).encode()
EVENTS = [
    {"id": "c", "model": "small", "choices": [{"index": 0, "delta": {"content": "Quite. "}}]},
    {"id": "c", "model": "small", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {
        "id": "c",
        "model": "small",
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    },
]
CHUNKS = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS]
CHUNKS.append(b"data: [DONE]\n\n")


@dataclass(frozen=True, slots=True)
class Journey:
    """What some work takes: calls of the package's functions, files entered, moves between files.

    A coroutine that goes on is called again. A move is a call in another file than the call before
    it; code generated for a policy set is a file of its own. `steps` are those of the interpreter
    in these functions, one for each instruction of its bytecode.
    """

    name: str
    calls: int
    files: int
    moves: int
    steps: int


def counted(name: str, work: Callable[[], object]) -> Journey:
    """Return what some work takes in the package, on this thread."""
    paths: list[str] = []
    steps = 0
    starts = (GENERATED, f"{PACKAGE}{os.sep}")

    def enter(code: CodeType) -> bool:
        if not code.co_filename.startswith(starts):
            return False
        paths.append(code.co_filename)
        return True

    def step() -> None:
        nonlocal steps
        steps += 1

    gc.disable()
    try:
        with watched(enter, step):
            work()
    finally:
        gc.enable()
    moves = sum(one != following for one, following in pairwise(paths))
    return Journey(name, len(paths), len(set(paths)), moves, steps)


Enter = Callable[[CodeType], bool]
"""Called where a function is entered, and tells whether to watch it."""
Step = Callable[[], None]
"""Called at each step of one that is watched."""

if sys.version_info >= (3, 12):

    @contextmanager
    def watched(enter: Enter, step: Step) -> Iterator[None]:
        """Call `enter` for each function called on this thread, `step` for each of their steps."""
        monitoring, here = sys.monitoring, get_ident()
        tool, events = monitoring.PROFILER_ID, monitoring.events
        entered: dict[CodeType, bool] = {}

        def enters(code: CodeType, *_: object) -> None:
            if get_ident() == here:
                entered[code] = enter(code)

        def steps(code: CodeType, _: int) -> object:
            if not entered.get(code):
                return monitoring.DISABLE
            if get_ident() == here:
                step()
            return None

        monitoring.use_tool_id(tool, "journeys")
        for event in (events.PY_START, events.PY_RESUME, events.PY_THROW):
            monitoring.register_callback(tool, event, enters)
        monitoring.register_callback(tool, events.INSTRUCTION, steps)
        monitoring.restart_events()
        entries = events.PY_START | events.PY_RESUME | events.PY_THROW
        monitoring.set_events(tool, entries | events.INSTRUCTION)
        try:
            yield
        finally:
            monitoring.set_events(tool, events.NO_EVENTS)
            monitoring.free_tool_id(tool)

else:

    @contextmanager
    def watched(enter: Enter, step: Step) -> Iterator[None]:
        """Call `enter` for each function called on this thread, `step` for each of their steps."""

        def enters(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
            if event != "call" or not enter(frame.f_code):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return steps

        def steps(_: FrameType, event: str, __: object) -> Callable[..., Any]:
            if event == "opcode":
                step()
            return steps

        before = sys.gettrace()
        sys.settrace(enters)
        try:
            yield
        finally:
            sys.settrace(before)


def journeys() -> Iterator[Journey]:
    """Yield what each journey takes."""
    yield _streamed_chat()
    with Server() as server:
        yield from _on_a_server(server.uri + PATIENT)
    with Server() as server:
        yield from _on_a_server_async(server.uri + PATIENT)
    yield from _loaded()
    yield from _in_memory()


def _streamed_chat() -> Journey:
    """Count a streamed chat completion through the ASGI middleware, R5 in memory."""
    app = GuardrailMiddleware(
        _streaming,
        policies=R5_POLICY,
        directory=Accounts(None),
        store="memory://",
        **SETTINGS,
    )
    scope = scopes(len(CHAT))[0]
    with asyncio.Runner() as runner:
        for _ in range(WARM):
            runner.run(_call(app, scope))
        return counted("ASGI, a streamed chat completion", lambda: runner.run(_call(app, scope)))


async def _streaming(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for chunk in CHUNKS:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _call(app: Any, scope: dict[str, Any]) -> None:
    messages = [{"type": "http.request", "body": CHAT, "more_body": False}]
    body = b""

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: dict[str, Any]) -> None:
        nonlocal body
        if message.get("status", 200) != 200:
            raise RuntimeError(f"refused: {message}")
        body += message.get("body", b"")

    await app(dict(scope), receive, send)
    if not body.endswith(CHUNKS[-1]):
        raise RuntimeError(f"cut short: {body!r}")


def _on_a_server(uri: str) -> Iterator[Journey]:
    """Count a decision on a server and its settlement, by the guard for threads."""
    guard = Guard.load(R5_POLICY, store=uri, **SETTINGS)
    for _ in range(WARM):
        guard.settle(_admitted(guard.decide(FACTS, ESTIMATE)), USAGE)
    made: list[Decision] = []
    yield counted("Redis, decide", lambda: made.append(guard.decide(FACTS, ESTIMATE)))
    decision = _admitted(made[0])
    yield counted("Redis, settle", lambda: guard.settle(decision, USAGE))
    guard.close()


def _on_a_server_async(uri: str) -> Iterator[Journey]:
    """Count the same by the guard for coroutines."""
    with asyncio.Runner() as runner:
        # Run by the loop itself: the runner's watch for Ctrl-C prints what the task returned.
        run = runner.get_loop().run_until_complete
        guard = AsyncGuard.load(R5_POLICY, store=uri, **SETTINGS)
        for _ in range(WARM):
            run(guard.settle(_admitted(run(guard.decide(FACTS, ESTIMATE))), USAGE))
        made: list[Decision] = []
        yield counted(
            "Redis, decide, async", lambda: made.append(run(guard.decide(FACTS, ESTIMATE)))
        )
        decision = _admitted(made[0])
        yield counted("Redis, settle, async", lambda: run(guard.settle(decision, USAGE)))
        run(guard.close())


def _admitted(decision: Decision) -> Decision:
    if not decision.allowed or decision.mode is not StoreMode.NORMAL:
        raise RuntimeError(f"refused or not counted: {decision.errors}")
    return decision


def _loaded() -> Iterator[Journey]:
    """Count the way of one rule from YAML to a guard."""
    policies = load_text(RULE)
    Guard.from_policies(policies, **SETTINGS).close()
    yield counted("one YAML rule, loaded", lambda: load_text(RULE))
    yield counted("… and a guard made of it", lambda: Guard.from_policies(policies, **SETTINGS))


def _in_memory() -> Iterator[Journey]:
    """Count a decision in memory that is read: allowed, refused by a rule, refused by a limit."""
    for name, facts, effect in (
        ("memory, decide, allowed", FACTS, Effect.ALLOW),
        ("memory, decide, blocked by a static rule", BLOCKED, Effect.BLOCK),
        ("memory, decide, throttled by a limit", THROTTLED, Effect.THROTTLE),
    ):
        guard = Guard.load(R5_POLICY, store="memory://", **SETTINGS)
        for _ in range(USED_UP):
            _read(guard.decide(facts, ESTIMATE))
        read: list[Effect] = []
        yield counted(name, lambda: read.append(_read(guard.decide(facts, ESTIMATE))))  # noqa: B023
        if read != [effect]:
            raise RuntimeError(f"{name}: decided as {read}")


def _read(decision: Decision) -> Effect:
    effect, _, _ = decision.effect, decision.rule, decision.retry_after
    return effect


def lines_of_code(source: str) -> int:
    """Return how many lines of a source have code: not blank, nor a comment, nor a docstring.

    A string below an assignment documents what is assigned.
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files and lines of code of each room of a folder, by name."""
    rooms: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.rglob("*.py")):
        room = path.relative_to(folder).parts[0]
        files, lines = rooms.get(room, (0, 0))
        rooms[room] = files + 1, lines + lines_of_code(path.read_text("utf-8"))
    return rooms


def _table(header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    cells = [header] + [
        tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the command line asks for, and return the exit code: 0, whatever the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journeys")
    counted_instead = "count lines of code instead, of the package or of a folder"
    parser.add_argument("--size", nargs="?", const=PACKAGE, type=Path, help=counted_instead)
    rows: list[tuple[object, ...]]
    told: object
    if (folder := parser.parse_args(arguments).size) is not None:
        rooms = sizes(folder)
        total = tuple(map(sum, zip(*rooms.values(), strict=True)))
        rows = [(room, *counts) for room, counts in rooms.items()] + [("together", *total)]
        header: tuple[str, ...] = ("", "files", "lines of code")
    else:
        rows = [astuple(journey) for journey in journeys()]
        header = ("", "calls", "files", "moves", "steps")
    print(_table(header, rows))
    told = {str(name): dict(zip(header[1:], counts, strict=True)) for name, *counts in rows}
    print(json.dumps(told, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
