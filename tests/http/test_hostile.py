"""Hostile requests to real servers: none crashes us, passes uncounted, or as somebody else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from tests.http.hostile import PATH, account_of, request_of, stages
from tests.http.servers import serving, started_once, until

POLICY = """
guardrail: 1
policy: hostile
rules:
  - {id: calls, when: always, budget: {requests: 1M, per: day, key: global}}
  - {id: places, when: always, concurrency: {max: 1000, key: global}}
"""
SETTINGS = "body_timeout = 0.5\nmax_body = 100_000\n"
AT_ONCE = 12
PATIENCE = 20.0
REFUSED = {400, 405, 408, 413, 415}
"""How requests are refused, by the server or by us; only a tunnel by the host."""


@pytest.fixture(scope="module")
def requests(test_data):
    return list(stages(test_data))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    def start(kind):
        return serving(kind, tmp_path_factory.mktemp(kind), POLICY, SETTINGS, host="witness")

    with started_once(start) as get:
        yield get


async def exchange(port, request):
    """Send one request; return the status of the first answer, and its body if that is JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await head_from(reader)
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            if request.startswith(b"HEAD "):
                length = b"0"
            body = await (reader.readexactly(int(length)) if length else reader.read())
    finally:
        writer.close()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return int(head.split()[1]), document


async def head_from(reader):
    """Read up to the empty line; a lone LF ends one as well (RFC 9112, 2.2), as gunicorn sends."""
    head = b""
    while not head.endswith((b"\r\n\r\n", b"\r\n\n")):
        line = await reader.readline()
        assert line, f"cut short: {head!r}"
        head += line
    return head


async def send_all(port, requests):
    """Send requests, some at once; return each one's number with its answer."""
    answers = []
    left = iter(requests)

    async def keep_sending():
        for number, request in left:
            answers.append((number, *await exchange(port, request)))

    await asyncio.gather(*(keep_sending() for _ in range(AT_ONCE)))
    return answers


@pytest.mark.parametrize(
    ("kind", "path", "every"),
    [("uvicorn", None, 1), ("uvicorn", PATH, 5), ("gunicorn", None, 5), ("gunicorn", PATH, 11)],
)
def test_hostile_requests_are_counted_or_refused_as_whoever_sent_them(
    servers, requests, kind, path, every
):
    server = servers(kind)
    before, counted = server.state(), server.used()["calls"]
    chosen = [
        (number, request_of(stage, number, path))
        for number, stage in enumerate(requests)
        if number % every == 0
    ]
    answers = asyncio.run(send_all(server.port, chosen))

    statuses = Counter(status for _, status, _ in answers)
    served = [(number, told) for number, status, told in answers if status == 200 and told]
    for number, told in served:
        account = account_of(number)
        assert told["account.id"] == (account and f"acct-{account}"), requests[number]
        assert told["credential.id"]
        assert told["client.ip"] is None
    until(lambda: server.used()["places"] == 0)
    after = server.state()
    visits = after["visits"] - before["visits"]
    assert after["unguarded"] == 0
    assert server.used()["calls"] - counted == visits
    assert len(served) <= visits
    assert statuses[200] > len(chosen) // 3
    assert not statuses.keys() - REFUSED - {200}
    assert "Traceback" not in server.log.read_text()
