"""What a host reads in a request is never more than what the guard counted, or it was refused.

Requests are drawn by a seed and read by the guard and by Starlette, Flask and Django: 20,000 as
a rule; `GUARDRAIL_READERS=100000` draws so many.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from guardrail.http.dialects import Dialect
from guardrail.http.parsing import (
    ParsedRequest,
    batches,
    caps,
    json_body,
    members,
    reading,
    shape,
)
from guardrail.http.parsing.endpoints import Endpoint, endpoint_of
from guardrail.http.parsing.members import RANKS
from guardrail.http.request import head_of_scope, is_let_through
from tests.http.reading_hosts import Hosts, Sent, Served, served
from tests.http.reading_requests import drawn
from tests.http.requests import KEY

HOW_MANY = int(os.environ.get("GUARDRAIL_READERS", "20000"))
SEED = 20261129


@pytest.fixture(scope="module")
def hosts():
    every = Hosts()
    yield every
    every.close()


def asked_of(sent: Sent) -> ParsedRequest:
    return reading.read_request(sent.method, sent.path, b"", sent.headers, sent.body, hash_key=KEY)


def is_refused(asked: ParsedRequest) -> bool:
    """Whether the door answers 4xx: what nobody reads may pass to an API that is not known."""
    known = asked.dialect is not Dialect.OTHER
    return asked.problem is not None and (asked.status == 413 or asked.ambiguous or known)


def more_than(asked: ParsedRequest, host: Served) -> str | None:
    """Return in what a host serves more than was counted, None if in nothing."""
    facts, estimate = asked.facts, asked.estimate
    if host.requests > estimate["requests"]:
        return "requests"
    output = estimate.get("output_tokens")
    if output is not None and (host.output is None or host.output > output):
        return "tokens"
    known = facts.get("request.tools")
    if isinstance(known, int) and host.tools > known:
        return "tools"
    if host.acts and RANKS[str(facts["request.capability"])] < RANKS["agentic"]:
        return "capability"
    model = facts.get("request.model")
    if model is not None and any(name != model for name in host.models):
        return "model"
    return None


def differences(hosts: Hosts, count: int, *, first: bool = False) -> tuple[list, Counter[str]]:
    """Return where hosts serve more than the guard counted, and what became of the requests."""
    random = Random(SEED)
    found, became = [], Counter[str]()
    for _ in range(count):
        sent = drawn(random)
        asked = asked_of(sent)
        if is_refused(asked):
            became[f"refused {asked.status}"] += 1
            continue
        became["unread" if asked.problem else "read"] += 1
        for seen in hosts.readings(sent):
            for host in served(sent, seen):
                if (what := more_than(asked, host)) is not None:
                    found.append((what, sent, asked, host))
        if found and first:
            break
    return found, became


def test_no_host_serves_more_than_was_counted(hosts):
    found, became = differences(hosts, HOW_MANY)

    print(dict(became))
    assert found[:3] == []
    # Both ways out are taken often: neither is all refused, nor all plain.
    assert became["read"] > HOW_MANY / 4
    assert became["refused 400"] > HOW_MANY / 20
    assert became["refused 415"] > HOW_MANY / 40


def test_what_clients_send_is_read():
    """A third of the requests are as the clients of each API send them."""
    random, plain = Random(1), {"files": 0}
    for _ in range(300):
        sent = drawn(random)
        if sent.headers != ((b"content-type", b"application/json"),) or sent.method != "POST":
            continue
        asked = asked_of(sent)
        plain[sent.api] = plain.get(sent.api, 0) + (asked.problem is None)

    assert all(plain[api] for api in plain if api != "files")


def _first_of_batch(document):
    inner = document.get("batch", document)
    requests = inner.get("requests") if isinstance(inner, dict) else None
    return [one.get("params", {}) for one in requests or [] if isinstance(one, dict)], False


def _last_segment(segments, lowered, original=endpoint_of.__globals__["_method_of"]):
    found = original(segments, lowered)
    named = segments[-1].rpartition(":")[0]
    return None if found is None else found.__class__(**{**_fields(found), "model": named})


def _fields(endpoint: Endpoint) -> dict:
    return {name: getattr(endpoint, name) for name in endpoint._fields}


def _take_all(facts, endpoint, query):
    if endpoint.model:
        facts["request.model"] = endpoint.model


def _whole(value):
    return value if value.__class__ is int else None


# A weaker reader each: what is replaced, and by what.
WEAKER: dict[str, tuple[Any, str, Any]] = {
    "any media type is taken": (
        reading,
        "_media_type",
        lambda stated, endpoint: "application/json",
    ),
    "keys may stand twice": (json_body, "_is_canonical", lambda text, value: True),
    "names in other cases are passed over": (shape, "check_spelling", lambda every: None),
    "nothing is looked for within a body": (
        shape,
        "members_in",
        lambda document, names=None: [members.Members("", document, settles=True)],
    ),
    "a tool is what its type says": (members, "_CALLED", frozenset()),
    "a batch is where it is first found": (batches, "_requests_in", _first_of_batch),
    "a name ends at a slash": (endpoint_of, "_method_of", _last_segment),
    "path and body may disagree": (reading, "_take_address", _take_all),
    "methods that nobody documents are harmless": (
        reading,
        "_asked_of",
        lambda endpoint, method, body: endpoint,
    ),
    "several prompts are one": (caps, "_prompts", lambda document: 1),
    "completions are not multiplied": (caps, "MULTIPLIERS", frozenset()),
    "functions of Gemini are one tool": (members, "_SEVERAL", ()),
    "what is stored holds no tools": (shape, "_unseen", lambda every: (0, False)),
    "a cap is any number": (
        caps,
        "whole",
        lambda value, name: value if value.__class__ is int else None,
    ),
    "files of requests are free": (reading, "NO_BATCH", frozenset({"batch"})),
}


@pytest.mark.parametrize("weaker", WEAKER)
def test_a_weaker_reader_is_found(hosts, monkeypatch, weaker):
    where, name, instead = WEAKER[weaker]
    if callable(where):
        monkeypatch.setitem(where.__globals__, name, instead)
    else:
        monkeypatch.setattr(where, name, instead)

    found, _ = differences(hosts, 2_000, first=True)

    assert found


def test_a_preflight_with_a_body_is_a_request():
    open_to_all: Any = SimpleNamespace(exempt=())

    def let_through(*more, version="1.1"):
        scope = {
            "type": "http",
            "http_version": version,
            "method": "OPTIONS",
            "path": "/v1/chat/completions",
            "headers": [
                (b"origin", b"https://page.test"),
                (b"access-control-request-method", b"POST"),
                *more,
            ],
        }
        return is_let_through(head_of_scope(scope), open_to_all)

    assert let_through()
    assert let_through((b"content-length", b"0"))
    assert not let_through((b"content-length", b"2"))
    assert not let_through((b"transfer-encoding", b"chunked"))
    # Some servers of WSGI invent a content type; over HTTP/2 a body need not be announced.
    assert let_through((b"content-type", b"text/plain"))
    assert not let_through((b"content-type", b"application/json"), version="2")
    assert let_through(version="2")
