"""Requests over WSGI: what is read, passed on, metered and settled, also when a client leaves."""

from __future__ import annotations

import io
import json
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from guardrail.http.flow import TooSlowError
from guardrail.http.request import head_of_environ
from guardrail.wsgi.http import read_body
from tests.http.driving import ASK, chat_stream, completion
from tests.http.wsgi_driving import JSON, POLICY, SSE, STREAM, Hosted, Response, answering


def test_a_response_is_passed_metered_and_closed_once():
    response = Response([completion()])
    seen: list[bytes] = []
    hosted = Hosted(answering(response, seen=seen))
    status, headers, body = hosted.ask()

    assert status == 200
    assert body == completion()
    assert seen == [ASK]
    assert headers["ratelimit"]
    assert response.closed == 1
    assert (hosted.used("calls"), hosted.used("tokens"), hosted.used("places")) == (1, 30, 0)


def test_a_response_is_settled_once_however_often_it_ends():
    hosted = Hosted(answering(Response([completion()])))
    settled = []
    settle = hosted.guard.settle

    def counted(*given, **more):
        settled.append(given)
        settle(*given, **more)

    hosted.guard.settle = counted  # type: ignore[method-assign]
    served = hosted.app(hosted.environ(), hosted.start)
    list(served)
    served.close()

    assert len(settled) == 1


@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_client_that_leaves_closes_and_pays(read):
    response = Response(chat_stream(10, usage=False))
    hosted = Hosted(answering(response, SSE))
    served = hosted.app(hosted.environ(body=STREAM), hosted.start)
    for _ in range(read):
        next(iter(served))
    served.close()
    served.close()

    assert response.closed == 1
    assert hosted.used("places") == 0
    assert hosted.used("calls") == 1
    assert 0 < hosted.used("tokens") <= 150


def test_a_response_may_start_at_its_first_piece():
    def app(environ, start_response):
        start_response("200 OK", list(JSON))
        yield completion()

    hosted = Hosted(app)
    status, headers, _ = hosted.ask()

    assert status == 200
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert hosted.used("tokens") == 30


def test_what_is_written_is_metered():
    def app(environ, start_response):
        write = start_response("200 OK", list(JSON))
        write(completion()[:20])
        write(completion()[20:])
        return []

    hosted = Hosted(app)
    hosted.written = []
    hosted.ask()

    assert b"".join(hosted.written) == completion()
    assert hosted.used("tokens") == 30


def test_a_response_may_be_started_again_with_an_error():
    def app(environ, start_response):
        start_response("200 OK", list(JSON))
        try:
            raise ValueError("late")
        except ValueError:
            import sys

            start_response("500 Internal Server Error", [], sys.exc_info())
        return [b"sorry"]

    hosted = Hosted(app)

    assert hosted.ask()[0] == 500
    assert hosted.used("calls") == 0


@pytest.mark.parametrize("when", ["called", "first", "later"])
def test_what_the_host_raises_goes_through(when):
    def app(environ, start_response):
        if when == "called":
            raise RuntimeError("no model")
        start_response("200 OK", list(SSE))
        return pieces()

    def pieces():
        if when == "later":
            yield chat_stream(1)[0]
        raise RuntimeError("no model")

    hosted = Hosted(app)
    with pytest.raises(RuntimeError, match="no model"):
        hosted.ask(body=STREAM)

    assert hosted.used("places") == 0
    assert hosted.used("calls") == (1 if when == "later" else 0)


def test_a_refusal_is_answered_without_the_host():
    hosted = Hosted(answering([completion()]))
    results = [hosted.ask() for _ in range(6)]
    _, headers, body = results[-1]

    assert [status for status, _, _ in results] == [200] * 5 + [429]
    assert json.loads(body)["error"]["code"] == "insufficient_quota"
    assert headers["retry-after"] == "43200"


def test_both_sides_keep_to_the_protocol():
    hosted = Hosted(validator(answering([completion()])))
    hosted.app = validator(hosted.app)
    for _ in range(6):
        assert hosted.ask()[0] in (200, 429)


def test_a_changed_body_has_its_own_length():
    policy = POLICY + "  - {id: less, when: always, degrade: {max_output_tokens: 9}}"
    lengths = []

    def app(environ, start_response):
        lengths.append((environ["CONTENT_LENGTH"], environ["wsgi.input"].read()))
        return answering([completion()])(environ, start_response)

    hosted = Hosted(app, policy)
    environ = hosted.environ()
    before = dict(environ)
    b"".join(hosted.app(environ, hosted.start))

    assert environ == before
    assert lengths[0][0] == str(len(lengths[0][1]))
    assert json.loads(lengths[0][1])["max_tokens"] == 9


def test_a_file_that_is_not_metered_stays_the_servers_to_send(tmp_path):
    (tmp_path / "f").write_bytes(b"data")

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(tmp_path / "f", "rb"))

    hosted = Hosted(app)
    environ = hosted.environ(
        body=b"", path="/files/x", method="GET", **{"wsgi.file_wrapper": FileWrapper}
    )
    response = hosted.app(environ, hosted.start)

    assert isinstance(response, FileWrapper)
    assert b"".join(response) == b"data"
    assert hosted.used("calls") == 1
    response.close()


def test_a_body_over_the_bound_is_refused():
    hosted = Hosted(answering([b""]), max_body=10)

    assert hosted.ask(body=b"x" * 11)[0] == 413
    chunked = {
        "CONTENT_LENGTH": "",
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    assert hosted.ask(body=b"x" * 11, **chunked)[0] == 413


def test_a_chunked_body_is_read_to_its_end():
    seen: list[bytes] = []
    hosted = Hosted(answering([completion()], seen=seen))
    environ = {
        "CONTENT_LENGTH": "",
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": io.BytesIO(ASK),
    }

    assert hosted.ask(**environ)[0] == 200
    assert seen == [ASK]


def test_a_slow_body_times_out():
    ticks = iter(range(0, 1000, 20))
    environ = {"CONTENT_LENGTH": "200000", "wsgi.input": io.BytesIO(b"x" * 200000)}
    with pytest.raises(TooSlowError):
        read_body(environ, 1 << 20, 30.0, clock=lambda: next(ticks))


def test_a_stream_of_half_an_hour_keeps_its_lease():
    counts: list[float] = []

    def app(environ, start_response):
        start_response("200 OK", list(SSE))
        for chunk in chat_stream(30):
            hosted.clock.advance(60)
            yield chunk
            counts.append(hosted.used("places"))

    hosted = Hosted(app)
    hosted.ask(body=STREAM)

    assert set(counts) == {1}
    assert hosted.used("places") == 0


def test_usage_asked_for_by_us_alone_is_taken_out_again():
    hosted = Hosted(answering(chat_stream(3), SSE), stream_usage=True)
    _, _, body = hosted.ask(body=STREAM)

    assert body == b"".join(chat_stream(3, usage=False))
    assert hosted.used("tokens") == 13


def test_a_short_throttle_is_held():
    rule = "  - {id: r, when: always, rate: {requests: 1/second, burst: 1, key: account.id}}"
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        hosted.clock.advance(seconds)

    hosted = Hosted(answering([completion()]), POLICY + rule, max_delay=2, sleep=sleep, threads=2)

    assert [hosted.ask()[0] for _ in range(3)] == [200] * 3
    assert slept == [pytest.approx(1)] * 2


def test_exempt_paths_and_preflights_pass_untouched():
    hosted = Hosted(answering([b"ok"]), exempt=["/health"])
    cross = {"HTTP_ORIGIN": "https://a.test", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    for _ in range(9):
        assert "ratelimit" not in hosted.ask(path="/health", method="GET", body=b"")[1]
        assert "ratelimit" not in hosted.ask(method="OPTIONS", body=b"", **cross)[1]
    assert hosted.used("calls") == 0


def test_our_own_failure_is_a_503(monkeypatch):
    hosted = Hosted(answering([b"ok"]))
    monkeypatch.setattr(hosted.guard, "decide", None)

    assert hosted.ask()[0] == 503


@pytest.mark.parametrize("address", [{}, {"REMOTE_ADDR": ""}, {"REMOTE_ADDR": "localhost"}])
def test_the_peer_of_a_unix_socket_has_no_address(address):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **address}

    assert head_of_environ(environ).peer is None
