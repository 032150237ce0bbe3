"""What a body costs is bounded before it is parsed, and it is read as a small one would be."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bodies import BODIES
from guardrail.http.parsing import ReadingLimits, folding, json_body, read_request, rewritten
from guardrail.http.parsing.folding import fold, unfold
from guardrail.http.parsing.json_body import read_document
from guardrail.http.parsing.media import WORDED_LISTS, is_media, may_list_media
from guardrail.http.parsing.values import UnreadableError
from tests.effort import calls_of
from tests.http.driving import ASK, Call, Guarded, body_messages, scope_of
from tests.http.requests import KEY, asked, body_of, form
from tests.http.wsgi_driving import Hosted

MIB = 1 << 20
LIMITS = ReadingLimits(max_body=64 * MIB)
POLICY = """
guardrail: 1
policy: p
models: {large: {max_output: 200, weaker: small}, small: {max_output: 200}}
rules:
  - {id: d, when: {request.model: large}, degrade: {model: small, max_output_tokens: 64}}
  - {id: calls, when: always, budget: {requests: 500, per: day, key: account.id}}
"""

TEXTS = st.lists(
    st.sampled_from(['"', "\\", "\\\\", "\0", "\0001", "\n", "é", "一", "😀", ":", ",", "[", "}"])
    | st.sampled_from(["\ud83d", "a", "x" * 41, "data:image/png;base64,", "y" * 60]),
    max_size=6,
).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.sampled_from(["url", "data", "type"]), inner, max_size=4)
    ),
    max_leaves=12,
)
WRITTEN = st.builds(
    lambda value, ascii_only, indent: json.dumps(
        value, ensure_ascii=ascii_only, indent=indent
    ).encode("utf-8", "surrogatepass"),
    VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from([b"", b'"', b"\\", b"\\u0000", b"\xff", b",", b'"\\u00000":1,', b" " * 50]),
    ),
    max_size=2,
)


def edited(text: bytes, edits) -> bytes:
    for at, put in edits:
        text = text[:at] + put + text[at + (not put) :]
    return text


def outcome(text: bytes):
    try:
        document = read_document(text, LIMITS)
    except UnreadableError as error:
        return str(error)
    return repr(document.value), document.tokens


@settings(max_examples=150, deadline=None)
@given(WRITTEN, EDITS, st.integers(2, 40))
def test_a_large_text_is_read_as_a_small_one_is(written, edits, chunk):
    text = edited(written, edits)
    direct = outcome(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "AT_ONCE", -1)
        patch.setattr(folding, "AT_ONCE", chunk)
        folded = outcome(text)

    assert folded == direct


@settings(max_examples=100, deadline=None)
@given(TEXTS.map(lambda text: text * 5), st.booleans(), st.integers(26, 80))
def test_a_string_read_in_pieces_is_the_string(text, ascii_only, piece):
    quoted = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        whole = read_document(quoted, LIMITS).value
    except UnreadableError:
        whole = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "PIECE", piece)
        try:
            joined = "".join(folding.pieces_of(quoted, 1, len(quoted) - 1))
        except ValueError:
            joined = None

    assert joined == whole


@settings(max_examples=100, deadline=None)
@given(WRITTEN, st.integers(2, 40))
def test_what_is_folded_away_comes_back_byte_for_byte(text, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "AT_ONCE", chunk)
        folded = fold(text)

    assert unfold(folded.outline, text, folded) == text


@pytest.mark.parametrize("padding", ["x" * 100_000, "😀\\" * 30_000])
def test_a_large_body_is_degraded_and_keeps_all_else(padding):
    members = {
        "model": "large",
        "max_tokens": 500,
        "tools": [{"type": "function", "function": {"name": "f", "description": "\0001" * 20}}],
        "messages": [{"role": "user", "content": padding}, {"\0001": "b" * 50}],
    }
    request = asked("/v1/chat/completions", members)

    changed = body_of(rewritten(request, {"model": "small", "max_output_tokens": 64}))

    assert json.loads(changed) == {**members, "model": "small", "max_tokens": 64}


def read(kind: str, size: int, limits: ReadingLimits = LIMITS):
    body = BODIES[kind]
    text = b"".join(body.pieces(size))
    headers = ((b"content-type", body.kind),)
    return lambda: read_request("POST", body.path, b"", headers, text, hash_key=KEY, limits=limits)


A_QUARTER = ReadingLimits(
    max_body=LIMITS.max_body // 4,
    max_nodes=LIMITS.max_nodes // 4,
    max_keys=LIMITS.max_keys // 4,
    max_strings=LIMITS.max_strings // 4,
    max_values=LIMITS.max_values // 4,
    max_batch_lines=LIMITS.max_batch_lines // 4,
)
"""Of what is read of a body of 4 MiB: it is watched in a quarter of the time."""


@pytest.mark.parametrize("kind", BODIES)
def test_no_body_takes_more_memory_than_four_times_itself_and_some(kind, monkeypatch):
    size, body = MIB, BODIES[kind]
    monkeypatch.setitem(BODIES, kind, body._replace(most=body.most // 4 - 10))
    work = read(kind, size, A_QUARTER)
    tracemalloc.start()
    try:
        problem = work().problem
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # The body itself was made before. What is counted to its bound costs that, whatever the size.
    at_bound = any(word in kind for word in ("as many as", "as much as"))
    assert not (at_bound and problem)
    assert peak <= 3 * size + (8 if at_bound else 4) * MIB


@pytest.mark.parametrize("kind", BODIES)
def test_the_work_grows_no_faster_than_the_body(kind):
    small, large = (calls_of(read(kind, size)) for size in (MIB // 8, MIB // 2))

    assert large <= 4.4 * small + 1_500


@pytest.mark.parametrize(
    "kind", ["empty lists", "empty objects", "digits", "decimals", "form of names"]
)
def test_what_holds_too_much_is_refused_before_it_is_parsed(kind):
    work = read(kind, 8 * MIB)

    assert calls_of(work) < 15_000
    assert work().problem is not None
    assert work().status in (400, 413)


def test_too_many_keys_are_refused_before_they_are_parsed():
    def keyed(count):
        members = b",".join(b'"k%d":1' % number for number in range(count))
        return read_document(b"{%b}" % members, LIMITS)

    assert len(keyed(LIMITS.max_keys).value) == LIMITS.max_keys
    with pytest.raises(UnreadableError, match="more than 150000 keys; send less"):
        keyed(LIMITS.max_keys + 1)


@pytest.fixture
def collections():
    """The generations that are collected from here on, as often as a server does by itself."""
    found: list[int] = []
    rarely = gc.get_threshold()

    def note(phase, info):
        if phase == "start":
            found.append(info["generation"])

    gc.collect()
    gc.set_threshold(700, 10, 10)
    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.set_threshold(*rarely)


def test_what_is_decoded_is_not_taken_for_garbage_again_and_again(collections):
    read_document(b"[%b[]]" % (b'{"a":[]},' * 45_000), LIMITS)

    # Nor is the whole process gone through for it.
    assert len(collections) < 10
    assert 2 not in collections


@pytest.mark.parametrize("text", [b"[%b1]" % (b"[]," * 30_000), b"[%b" % (b"[]," * 30_000)])
def test_reading_leaves_the_garbage_collector_as_it_was(text):
    outcome(text)
    assert gc.isenabled()

    gc.disable()
    try:
        outcome(text)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_tools_of_a_batch_are_not_looked_for_one_by_one():
    def batch(count):
        tools = [[{"name": f"{half}{n}"} for n in range(count)] for half in "ab"]
        return asked(
            "/v1/messages/batches",
            {"requests": [{"params": {"model": "m", "tools": each}} for each in tools]},
        )

    assert batch(100).facts["request.tools"] == 200
    few, many = (calls_of(partial(batch, count)) for count in (2_000, 8_000))
    assert many < 5 * few


def test_a_file_of_requests_is_bounded_as_a_whole():
    line = b'{"body": {"model": "m", "a": [' + b"[]," * 999 + b"[]]}}\n"
    headers, body = form(("purpose", "batch"), ("file", line * 99))
    assert asked("/v1/files", body, headers=headers).problem is None

    headers, body = form(("purpose", "batch"), ("file", line * 110))
    assert "more than 100000 objects and lists" in str(
        asked("/v1/files", body, headers=headers).problem
    )


LONG = json.dumps({"model": "small", "messages": ["x" * 2000], "max_tokens": 9}).encode()


def test_callers_unknown_to_the_directory_may_send_less():
    guarded = Guarded(POLICY, max_unknown_body=1000)

    unknown = guarded.ask(LONG, key="sk-invented")
    assert unknown.status == 413
    assert "longer than 1000 bytes" in unknown.json["error"]["message"]
    assert unknown.received_first == 0
    assert guarded.ask(LONG, key=None, messages=body_messages(LONG)).status == 413
    assert guarded.ask(LONG, key="key-a").status == 200
    assert guarded.ask(key="sk-invented").status == 200


def test_who_cannot_be_looked_up_is_not_taken_for_unknown():
    guarded = Guarded(POLICY, max_unknown_body=1000)
    guarded.directory.down = True

    assert guarded.ask(LONG, key="key-a").status != 413


def test_without_a_directory_nobody_is_unknown():
    guarded = Guarded(POLICY, directory=None, max_unknown_body=1000)

    assert guarded.ask(LONG, key=None).status != 413


def test_over_wsgi_unknown_callers_may_send_less():
    def host(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    hosted = Hosted(host, max_unknown_body=1000)

    assert hosted.ask(body=LONG, HTTP_AUTHORIZATION="Bearer sk-invented")[0] == 413
    assert hosted.ask(body=LONG)[0] == 200


async def call(guarded, body, key):
    return await Call(scope_of(body=body, key=key), body_messages(body)).run(guarded.app)


def test_large_bodies_are_read_one_at_a_time_and_strangers_wait_for_each_other(monkeypatch):
    guarded = Guarded(POLICY)
    running = {True: 0, False: 0}
    most = dict(running)
    inside: dict[bool, asyncio.Event] = {}
    go_on: dict[bool, asyncio.Event] = {}

    async def main():
        loop = asyncio.get_running_loop()

        async def in_a_thread(work):
            known = work.func.__self__.known
            running[known] += 1
            most[known] = max(most[known], running[known])
            inside.setdefault(known, asyncio.Event()).set()
            await go_on.setdefault(known, asyncio.Event()).wait()
            running[known] -= 1
            return work()

        monkeypatch.setattr(asyncio, "to_thread", in_a_thread)
        large = ASK[:-1] + b', "x": "' + b"y" * 70_000 + b'"}'
        strangers = [loop.create_task(call(guarded, large, f"sk-{number}")) for number in range(20)]
        await asyncio.sleep(0)
        while False not in inside:
            await asyncio.sleep(0)
        known = loop.create_task(call(guarded, large, "key-a"))
        while True not in inside:
            await asyncio.sleep(0)
        go_on[True].set()
        statuses = [(await known).status]
        go_on[False].set()
        return statuses + [(await each).status for each in strangers]

    first, *rest = asyncio.run(main())

    assert first == 200
    assert most == {True: 1, False: 1}
    # One was read, sixteen waited.
    assert sorted(rest) == [200] * 17 + [503] * 3


def test_no_name_that_a_client_chose_is_kept_but_a_short_one():
    names = ["".join(map(str, range(100_000))), "x" * 100_000 + "b64"]
    before = [sys.getrefcount(name) for name in names]

    assert [may_list_media(name) for name in names] == [False, True]
    assert [is_media(name, "A" * 2_000, {}) for name in names] == [False, True]
    assert [sys.getrefcount(name) for name in names] == before


def test_members_that_are_known_to_list_words_may_not_list_media():
    assert not any(map(may_list_media, WORDED_LISTS))
