"""The door behind real servers: uvicorn, hypercorn and gunicorn, over real connections."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextlib import contextmanager

import httpx
import pytest
import websockets

from tests.http.servers import ASGI, POLICY, serving, until

CHAT = "/v1/chat/completions"
ASK = {"model": "small", "messages": [], "max_tokens": 100}
CLOSED = {"user-agent": "closed"}


def test_a_real_refusal_tells_its_wait(server):
    body = {"model": "small", "input": "hi"}
    with httpx.Client(base_url=server.url, headers={"authorization": "Bearer key-b"}) as client:
        answers = [client.post("/v1/embeddings", json=body) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 429, 429]
    refused = answers[-1]
    assert refused.headers["retry-after"] in ("1", "2")
    assert refused.headers["cache-control"] == "no-store"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_real_unreadable_body_is_refused(server):
    before = server.used()
    for content, headers in ((b"{", {}), (b"{}", {"content-encoding": "gzip"})):
        answer = server.client.post(CHAT, content=content, headers=headers)
        assert answer.status_code in (400, 415)
    assert server.used() == before


def test_a_real_stream_arrives_whole_and_is_metered(server):
    before = server.used()["tokens"]
    with server.client.stream("POST", CHAT, json={**ASK, "stream": True}) as answer:
        body = b"".join(answer.iter_raw())

    assert body.count(b"data: ") == 32
    assert body.endswith(b"data: [DONE]\n\n")
    assert until(lambda: server.used()["tokens"] - before == 40)


def test_a_real_client_that_leaves_is_seen_and_charged(server):
    before, seen = server.used(), server.state()["disconnects"]
    with server.client.stream(
        "POST", CHAT, json={**ASK, "stream": True, "user": "endless"}
    ) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number > 20:
                break

    until(lambda: server.state()["disconnects"] > seen)
    until(lambda: server.used()["places"] == 0)
    assert 0 < server.used()["tokens"] - before["tokens"] <= 120


def test_parallel_aborted_calls_leave_nothing_reserved(asgi):
    async def one(client, number):
        body = {**ASK, "stream": True, "user": "endless" if number % 3 == 0 else "plain"}
        async with client.stream("POST", CHAT, json=body) as answer:
            async for _ in answer.aiter_raw():
                if number % 3 == 0:
                    return

    async def run():
        headers = {"authorization": "Bearer key-a"}
        async with httpx.AsyncClient(base_url=asgi.url, headers=headers, timeout=20) as client:
            for start in range(0, 60, 6):
                await asyncio.gather(*(one(client, start + n) for n in range(6)))

    asyncio.run(run())

    until(lambda: asgi.used()["places"] == 0)


def test_a_head_that_is_refused_gets_no_100_continue(servers):
    server = servers("uvicorn")
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nUser-Agent: closed\r\n"
        b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    )

    assert server.raw(request) == 403
    assert server.raw(request.replace(b"closed", b"other")) == 100


@pytest.mark.parametrize("kind", ASGI)
def test_a_real_websocket_is_guarded(servers, kind):
    url = servers(kind).url.replace("http", "ws") + "/ws"

    async def talk(headers):
        async with websockets.connect(
            url, additional_headers=headers, user_agent_header=headers.get("user-agent")
        ) as socket:
            await socket.send("hi")
            return await socket.recv()

    assert asyncio.run(talk({"authorization": "Bearer key-a"})) == "hi"
    with pytest.raises(websockets.InvalidStatus) as caught:
        asyncio.run(talk(CLOSED))
    assert caught.value.response.status_code == 403
    # The third cannot send an answer of ours in the place of a handshake; it says 403 by itself.
    assert kind == "gunicorn-asgi" or b"closed" in caught.value.response.body


def test_a_real_preflight_is_never_limited(server):
    headers = {**CLOSED, "origin": "https://a.test", "access-control-request-method": "POST"}

    assert server.client.options(CHAT, headers=headers).status_code != 403
    assert server.client.options(CHAT, headers=CLOSED).status_code == 403


@pytest.mark.parametrize(
    "target",
    [
        "/invocations",
        "/inference/v1/generate",
        "/generate",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/V1/CHAT/completions",
        "/state/",
        "//state",
        "/./state",
        "/state/../v1/chat/completions",
        "/%73tate",
        "/state%2f",
        "/state%00",
        "/State",
        "/state;a",
        "/v1%2Fchat%2Fcompletions",
        "/\u00e9".encode().decode("latin-1"),
    ],
)
def test_real_paths_are_guarded_or_unknown(server, target):
    request = (
        f"POST {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: closed\r\n"
        "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )

    assert server.raw(request.encode("latin-1")) in (400, 403, 404)
    assert server.raw(request.replace("/state", "/other").encode("latin-1")) in (400, 403, 404)


def test_a_real_host_exception_is_the_servers_to_answer(server):
    answer = server.client.post("/crash", content=b"nonsense")

    assert answer.status_code == 500
    assert until(lambda: server.used()["places"] == 0)


@contextmanager
def anew(server):
    """Give a client that opens a connection for each request: any worker may take it."""
    with httpx.Client(
        base_url=server.url,
        headers={"authorization": "Bearer key-c"},
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=20,
    ) as client:
        yield client


def ask_often(server, times):
    with (
        anew(server) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(lambda _: client.post(CHAT, json=ASK), range(times)))


def processes_of(server):
    """Return the processes that answer one of several requests at once."""
    with anew(server) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda _: client.get("/state").json()["process"], range(40))
        return set(asked)


WORKERS = {
    "uvicorn": "--workers 2",
    "hypercorn": "--workers 2",
    "gunicorn": "--workers 2 --preload",
}


@pytest.mark.parametrize(("kind", "more"), WORKERS.items())
def test_workers_share_a_limit_through_a_store(kind, more, tmp_path):
    policy = (
        "guardrail: 1\npolicy: w\nrules:\n"
        "  - {id: r, when: always, budget: {requests: 30, per: day, key: account.id}}"
    )
    (tmp_path / "store").mkdir()
    settings = f'store = "lmdb://{tmp_path / "store"}?deadline=5s"\n'
    with serving(kind, tmp_path, policy, settings, more) as server:
        answers = ask_often(server, 80)
        # One of them may win every connection for a while.
        until(lambda: len(processes_of(server)) == 2)

    ids = {answer.headers["x-request-id"] for answer in answers}
    assert [answer.status_code for answer in answers].count(200) == 30
    assert len(ids) == len(answers)


@pytest.mark.parametrize(("kind", "more"), WORKERS.items())
def test_memory_of_several_workers_is_warned_about(kind, more, tmp_path):
    with serving(kind, tmp_path, POLICY, "", more) as server:
        ask_often(server, 2)
        until(lambda: "one of several processes" in (tmp_path / "log").read_text())


def test_a_wrong_setting_ends_the_server_with_its_name(tmp_path):
    with (
        pytest.raises(AssertionError, match=r"did you mean `max_body`\?"),
        serving("uvicorn", tmp_path, POLICY, "max_bdy = 1\n"),
    ):
        pass


def test_a_killed_worker_frees_its_places_within_the_lease(tmp_path):
    policy = (
        "guardrail: 1\npolicy: k\nrules:\n"
        "  - {id: places, when: always, concurrency: {max: 8, lease: 2s, key: account.id}}"
    )
    (tmp_path / "store").mkdir()
    settings = f'store = "lmdb://{tmp_path / "store"}?deadline=5s"\n'
    body = {**ASK, "stream": True, "user": "endless"}
    with (
        serving("uvicorn", tmp_path, policy, settings) as server,
        server.client.stream("POST", CHAT, json=body) as answer,
    ):
        stream = answer.iter_raw()
        next(stream)
        assert server.used()["places"] == 1
        server.process.kill()
        server.process.wait()
    with serving("uvicorn", tmp_path, policy, settings) as server:
        assert until(lambda: server.used()["places"] == 0)
