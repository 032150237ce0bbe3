"""What the worst bodies cost: memory, CPU, and how long a neighbour's request waits meanwhile.

`python -m benchmarks.bodies` sends each through the ASGI middleware in a process of its own and
prints a table; `python -m benchmarks.bodies KIND BYTES` measures one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from guardrail.asgi import GuardrailMiddleware
from guardrail.guard import AsyncGuard
from guardrail.loading import load_text

SIZES = {"64 KiB": 1 << 16, "256 KiB": 1 << 18, "1 MiB": 1 << 20, "32 MiB": (32 << 20) - 1024}
# The longest form that is URL-encoded; other bodies are not measured in that size.
LONGEST_FORM = "256 KiB"
RUNS = 3
PIECE = 1 << 16
_PAUSE = 0.002
_FORK = multiprocessing.get_context("fork")
POLICY = """
guardrail: 1
policy: bodies
models: {large: {max_output: 4096, weaker: small}, small: {max_output: 1024}}
rules:
  - {id: large, when: {request.model: large}, degrade: {model: small, max_output_tokens: 100}}
  - {id: calls, when: always, budget: {requests: 1000000, per: day, key: client.ip}}
"""
CHAT, BATCH, FILES, IMAGES = (
    "/v1/chat/completions",
    "/v1/messages/batches",
    "/v1/files",
    "/v1/images/edits",
)
JSON = b"application/json"
ENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=xYz"
LARGE = b'{"model":"large","max_tokens":200,"messages":[{"role":"user","content":'
PART = b'--xYz\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'
FILE = b'--xYz\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
LINES = PART % b"purpose" + b"batch\r\n" + FILE
END = b"\r\n--xYz--\r\n"


class Body(NamedTuple):
    """A body: a head, a unit that is repeated (`%d` counts), and a tail.

    At most so many units stand in it; what is left of its size is then a text, begun by `text`.
    """

    path: str
    kind: bytes
    head: bytes
    unit: bytes
    tail: bytes
    most: int = 1 << 40
    text: bytes = b',"'

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body, at most `size` bytes, in pieces as servers give them out."""
        rest = self.head
        for part in self._middle(size - len(self.head) - len(self.tail)):
            rest += part
            while len(rest) > PIECE:
                yield rest[:PIECE]
                rest = rest[PIECE:]
        yield rest + self.tail

    def _middle(self, left: int) -> Iterator[bytes]:
        """Yield what stands between head and tail, as much of it as is `left`."""
        counts, number = b"%d" in self.unit, 0
        while number < self.most:
            longest = len(self.unit) + 6 * counts
            more = min(max(min(left, PIECE) // longest, 1), self.most - number)
            if counts:
                units = b"".join(self.unit % each for each in range(number, number + more))
            else:
                units = self.unit * more
            left, number = left - len(units), number + more
            if left < 0:
                return
            yield units
        yield self.text
        left -= len(self.text) + 1
        for at in range(0, left, PIECE):
            yield b"a" * min(PIECE, left - at)
        yield b'"'


def messages(head: bytes, unit: bytes, tail: bytes) -> Body:
    """Return a chat whose messages are of some form."""
    return Body(CHAT, JSON, b'{"model":"m","messages":[' + head, unit, tail + b"]}")


EMOJI = "\U0001f600".encode()
BODIES = {
    "form of names": Body("/form", ENCODED, b"a", b"&a", b""),
    "form of fields": Body("/form", ENCODED, b"a=1", b"&b%d=1", b""),
    "form of escapes": Body("/form", ENCODED, b"a=", b"%%41".replace(b"%%", b"%"), b""),
    "multipart of fields": Body(IMAGES, MULTIPART, b"", PART % b"a%d" + b"x\r\n", b"--xYz--\r\n"),
    "multipart, almost boundaries": Body(IMAGES, MULTIPART, FILE, b"\r\n--xY", END),
    "multipart of line ends": Body(IMAGES, MULTIPART, FILE, b"\r", END),
    "empty lists": messages(b"[]", b",[]", b""),
    "empty objects": messages(b"{}", b",{}", b""),
    "small objects": messages(b"{}", b',{"a":1}', b""),
    "digits": messages(b"1", b",1", b""),
    "decimals": messages(b"1", b",1.5", b""),
    "long decimals": messages(b"1", b",0.12345678901234567890123456789", b""),
    "one number": messages(b"0.", b"1", b""),
    "white space": messages(b"1", b" ", b""),
    "short strings": messages(b'""', b',"ab"', b""),
    "strings of emoji": messages(b'""', b',"' + EMOJI + b"a" * 124 + b'"', b""),
    "many keys": Body(CHAT, JSON, b'{"model":"m"', b',"k%d":1', b"}"),
    "one text": messages(b'"', b"a", b'"'),
    "one text, one emoji": messages(b'"' + EMOJI, b"a", b'"'),
    "escaped characters": messages(b'"', b"\\u4e00", b'"'),
    "escaped quotes": messages(b'"', b'\\"', b'"'),
    "escaped backslashes": messages(b'"', b"\\\\", b'"'),
    "open lists": messages(b"", b"[", b""),
    "long system texts": messages(
        b"1", b',{"role":"system","content":"' + b"a1 " * 3000 + b'"}', b""
    ),
    "tools with long descriptions": Body(
        CHAT,
        JSON,
        b'{"model":"m","messages":[],"tools":[1',
        b',{"type":"function","function":{"name":"f%d","description":"'
        + b"a1 " * 3000
        + b'"}}',
        b"]}",
    ),
    "a batch of tools that are numbers": Body(
        BATCH,
        JSON,
        b'{"requests":[{"params":{"model":"m","tools":['
        + b",".join(b"-%d" % number for number in range(1, 256))
        + b']}},{"params":{"model":"m","tools":[1',
        b",%d",
        b"]}}]}",
    ),
    "keys, as many as are read": messages(b'{"a":0', b',"k%d":1', b"}")._replace(
        most=149_990, text=b',"text":"'
    ),
    "lists in objects, as many as are read": messages(b"1", b',{"k%d":["v"]}', b"")._replace(
        most=49_990
    ),
    "all that is counted, as much as is read": messages(
        b"1", b',{"k%d":"v","n":[1,2],"s":"' + b"0" * 36 + b'"}', b""
    )._replace(most=49_990),
    "system texts, as many as are read": messages(
        b"1", b',{"role":"system","content":[{"text":"a%d"}]}', b""
    )._replace(most=33_300),
    "tools, as many as are read": Body(
        CHAT,
        JSON,
        b'{"model":"m","messages":[],"tools":[1',
        b',{"type":"function","function":{"name":"f%d"}}',
        b"]}",
        most=49_990,
    ),
    "a batch of requests, as many as are read": Body(
        BATCH,
        JSON,
        b'{"requests":[{"params":{"model":"m"}}',
        b',{"params":{"model":"m","max_tokens":1,"tools":[{"name":"t%d"}]}}',
        b"]}",
        most=24_990,
    ),
    "a batch of requests": Body(
        BATCH,
        JSON,
        b'{"requests":[{"params":{"model":"m"}}',
        b',{"params":{"model":"m","max_tokens":1,"tools":[{"name":"t%d"}]}}',
        b"]}",
    ),
    "a file of empty lines": Body(FILES, MULTIPART, LINES, b"\n", END),
    "a file of lists": Body(
        FILES, MULTIPART, LINES, b'{"body":{"a":[' + b"[]," * 999 + b"[]]}}\n", END
    ),
    "a text, degraded": Body(CHAT, JSON, LARGE + b'"', b"a", b'"}]}'),
    "texts, degraded": Body(CHAT, JSON, LARGE + b'["a"', b',"' + b"\\u4e00" * 10 + b'"', b"]}]}"),
}  # fmt: skip


async def served(app: Any, body: Body, pieces: Iterator[bytes]) -> int:
    """Send one request through the middleware and return its status."""
    status = 0
    piece = next(pieces)

    async def receive() -> dict[str, Any]:
        nonlocal piece
        await asyncio.sleep(0)
        after = next(pieces, None)
        given, piece = piece, after or b""
        return {"type": "http.request", "body": given, "more_body": after is not None}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "method": "POST",
        "path": body.path,
        "query_string": b"",
        "http_version": "1.1",
        "client": ("192.0.2.1", 1),
        "headers": [(b"content-type", body.kind), (b"transfer-encoding", b"chunked")],
    }
    await app(scope, receive, send)
    return status


async def host(scope: Any, receive: Any, send: Any) -> None:
    """Take the body and answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def measured(name: str, size: int) -> dict[str, Any]:
    """Return what one body costs: MiB of memory, seconds of CPU, and the longest wait in ms."""
    app = GuardrailMiddleware(
        host, guard=AsyncGuard.from_policies(load_text(POLICY), environ={}), environ={}
    )
    small = messages(b'"hello"', b"", b"")._replace(tail=b"]}")

    longest = 0.0

    async def neighbour() -> float:
        # By the processor's clock, which no other process delays: while this one waits for its
        # turn, it is its own threads that work.
        begun = time.process_time()
        await asyncio.sleep(_PAUSE)
        await served(app, small, iter([small.head + small.tail]))
        return time.process_time() - begun - _PAUSE

    async def waits() -> None:
        nonlocal longest
        while True:
            longest = max(longest, await neighbour())

    for _ in range(20):
        await neighbour()
    body = BODIES[name]
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before, cpu = _peak(), time.process_time()
    waiting = asyncio.ensure_future(waits())
    await asyncio.sleep(0.01)
    status = await served(app, body, body.pieces(size))
    waiting.cancel()
    spent = time.process_time() - cpu
    return {"status": status, "mib": _peak() - before, "cpu": spent, "wait": longest * 1000}


def _peak() -> float:
    """Return the highest resident size of this process since it was last reset, in MiB."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure one body, or all of them."""
    if len(sys.argv) == 3:
        print(json.dumps(asyncio.run(measured(sys.argv[1], int(sys.argv[2])))))
        return
    logging.disable()
    for label, size in SIZES.items():
        print(f"\n| {label} | status | peak MiB | CPU s | wait ms |\n|---|---|---|---|---|")
        for name, body in BODIES.items():
            if label == LONGEST_FORM and body.kind != ENCODED:
                continue
            found = [_alone(name, size) for _ in range(RUNS)]
            # The machine has other things to do: the least disturbed of the runs counts.
            best = {key: min(run[key] for run in found) for key in found[0]}
            shown = f"{best['mib']:.0f} | {best['cpu']:.3f} | {best['wait']:.1f}"
            print(f"| {name} | {best['status']} | {shown} |", flush=True)


def _alone(name: str, size: int) -> dict[str, Any]:
    """Measure a body in a process of its own, forked from this one, which has imported all."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    worker = _FORK.Process(target=_told, args=(sending, name, size))
    worker.start()
    sending.close()
    try:
        found: dict[str, Any] = receiving.recv()
    except EOFError:
        found = dict.fromkeys(("mib", "cpu", "wait"), float("inf")) | {"status": 0}
    worker.join()
    return found


def _told(sending: Connection, name: str, size: int) -> None:
    sending.send(asyncio.run(measured(name, size)))


if __name__ == "__main__":
    main()
