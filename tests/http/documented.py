"""The exchanges that `docs/http.md` shows, sent again through the real middleware.

An `http` block holds a request and its answer: a request line, fields, a blank line and a body;
then a status line, fields, a blank line and what was answered. JSON is broken into lines,
streams are shown as they were sent. Over a WebSocket, lines after `> ` are the client's frames
and lines after `< ` those it gets. What the block's first line adds says what came before:
`after=2` the same request twice, `others=lee` one of another's, `down=store` or `down=identity`
what failed, `host=breaks` what the host does, `from=…` the client's address.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from guardrail.errors import StoreError
from guardrail.signals.directory import credential_id
from tests.http.accounts import HASH_KEY, Accounts
from tests.http.driving import SSE, Call, Guarded, Host, body_messages, chat_stream, scope_of
from tests.http.test_asgi_websockets import CONNECT, socket_scope

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "http.md"
BLOCK = re.compile(r"^```http *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
POLICY = re.compile(r"^```yaml\n(guardrail: 1\npolicy: shown\n.*?)^```$", re.MULTILINE | re.DOTALL)
WIDTH = 90
SETTINGS = {"remedies": {"verify": "https://api.example/verify"}, "proxies": ["10.0.0.1"]}
ELSEWHERE = "10.0.0.1"


class Exchange(NamedTuple):
    """One block: what came before, the request, and what is shown to be answered."""

    before: dict[str, str]
    request: str
    shown: str


def exchanges() -> list[Exchange]:
    """Return every exchange of the document, in order."""
    found = []
    for told, text in BLOCK.findall(DOCUMENT.read_text("utf-8")):
        before = dict(part.partition("=")[::2] for part in told.split())
        mark = re.search(r"^(?=HTTP/1.1 |< )", text, re.MULTILINE)
        assert mark is not None, f"no answer is shown: {text[:60]}"
        found.append(Exchange(before, text[: mark.start()], text[mark.start() :]))
    return found


class People(Accounts):
    """The accounts of the document."""

    provides = Accounts.provides | {"payment.fingerprint"}

    def __init__(self):
        super().__init__(())
        for name, facts in PEOPLE.items():
            account = {"account.id": name, "account.org": f"org-{name}", **facts}
            self.known[credential_id(f"sk-{name}", HASH_KEY)] = account


PEOPLE: dict[str, dict[str, str]] = {
    "tom": {"account.tier": "email"},
    "ada": {"account.tier": "verified"},
    "eve": {"account.tier": "verified", "enforcement.status": "banned"},
    "kim": {"account.tier": "verified", "payment.fingerprint": "card-1"},
    "lee": {"account.tier": "verified", "payment.fingerprint": "card-1"},
}


class Dead:
    """A store that does not answer."""

    def acquire(self, charges, cells, now):
        raise StoreError("connection refused")

    def settle(self, corrections, now):
        raise StoreError("connection refused")

    def close(self):
        pass


def completion() -> bytes:
    """Return what the model of the document answers."""
    usage = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}}
    return json.dumps({"id": "c1", "model": "MODEL", "choices": [choice], "usage": usage}).encode()


class Model(Host):
    """Answers as the model that it is asked for; streams if asked to, and may break off."""

    def __init__(self, breaks):
        super().__init__()
        self._breaks = breaks

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await speak(receive, send)
            return
        message = await receive()
        asked = json.loads(message["body"] or b"{}")
        self.headers, self.chunks = [(b"content-type", b"application/json")], (b"",)
        if asked.get("stream"):
            whole = not self._breaks
            self.headers = list(SSE)
            self.chunks = tuple(chat_stream(2, usage=whole, done=whole))
            self.fails = None if whole else "after"
        else:
            self.chunks = (completion().replace(b"MODEL", str(asked.get("model")).encode()),)

        async def again():
            return message

        await super().__call__(scope, again, send)


async def speak(receive, send):
    """Hold a realtime session: a turn is answered at once."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        usage = {"input_tokens": 12, "output_tokens": 8, "total_tokens": 20}
        done = {"type": "response.done", "response": {"status": "completed", "usage": usage}}
        for event in ({"type": "response.created"}, done):
            await send({"type": "websocket.send", "text": json.dumps(event)})


def guarded(before: dict[str, str]) -> Guarded:
    """Return the door of the document, with what a block says failed."""
    found = POLICY.search(DOCUMENT.read_text("utf-8"))
    assert found is not None, "the document shows no policy"
    directory = People()
    directory.down = before.get("down") == "identity"
    store = Dead() if before.get("down") == "store" else None
    host = Model(before.get("host") == "breaks")
    return Guarded(found[1], host, store, directory=directory, **SETTINGS)


def replayed(exchange: Exchange) -> str:
    """Return what is answered to the request of a block, written as the document writes it."""
    door = guarded(exchange.before)
    head, _, body = exchange.request.strip().partition("\n\n")
    line, *lines = head.splitlines()
    method, target = line.split()[:2]
    path, _, query = target.partition("?")
    fields = [tuple(field.split(": ", 1)) for field in lines]
    asked: dict[str, Any] = {
        "path": path,
        "key": None,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields],
    }
    if "from" in exchange.before:
        asked["headers"].append((b"x-forwarded-for", exchange.before["from"].encode()))
        asked["client"] = (ELSEWHERE, 1)
    if ("upgrade", "websocket") in fields:
        return _spoken(door, asked, body)
    sent = body.strip().encode()
    for _ in range(int(exchange.before.get("after", 0))):
        _asked(door, method, asked, sent)
    for other in filter(None, exchange.before.get("others", "").split(",")):
        headers = [(b"authorization", f"Bearer sk-{other}".encode())]
        _asked(door, method, {**asked, "headers": headers}, sent)
    return _written(_asked(door, method, asked, sent))


def _asked(door: Guarded, method: str, asked: dict[str, Any], body: bytes) -> Call:
    call = Call(scope_of(method=method, body=body or None, **asked), body_messages(body))

    async def run() -> Call:
        with suppress(RuntimeError):  # the host may break, as it is told to
            await call.run(door.app)
        return call

    return asyncio.run(run())


def pretty(value: object, indent: int = 0) -> str:
    """Return JSON that is broken into lines only where it is too long for one."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent + len(flat) <= WIDTH or not isinstance(value, (dict, list)):
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, list):
        inner = [pad + pretty(each, indent + 2) for each in value]
        return "[\n" + ",\n".join(inner) + "\n" + " " * indent + "]"
    inner = [f"{pad}{json.dumps(name)}: {pretty(each, indent + 2)}" for name, each in value.items()]
    return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"


def _written(call: Call) -> str:
    lines = [f"HTTP/1.1 {call.status} {_phrase(call.status)}"]
    lines += [
        f"{name}: {value}" for name, value in call.headers.items() if name != "content-length"
    ]
    text = call.body.decode()
    if "json" in call.headers.get("content-type", ""):
        text = pretty(json.loads(text))
    return "\n".join([*lines, "", text.strip()])


def _spoken(door: Guarded, asked: dict[str, Any], frames: str) -> str:
    sent = [
        {"type": "websocket.receive", "text": line[2:]}
        for line in frames.splitlines()
        if line.startswith("> ")
    ]
    scope = socket_scope({"websocket.http.response": {}}, **asked)
    end = {"type": "websocket.disconnect", "code": 1000}
    call = asyncio.run(Call(scope, [CONNECT, *sent, end]).run(door.app))
    if not any(message["type"] == "websocket.accept" for message in call.sent):
        return _written(call)
    return "\n".join(f"< {m['text']}" for m in call.sent if m["type"] == "websocket.send")


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
