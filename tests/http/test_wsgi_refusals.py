"""Requests over WSGI that are refused while their clients are still sending."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from typing import Any

import pytest

from guardrail.wsgi.http import discard_body, read_body
from tests.http.wsgi_driving import Hosted

LENGTH = 11


def no_host(environ, start_response):
    """Fail: what is refused does not get here."""
    raise AssertionError


@pytest.fixture
def connection():
    """Two ends of a connection: the server's, and the client's."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def refused_unread(connection, source=None, **more):
    """Return the answer to a body that is not read, piece by piece, and where it comes from."""
    hosted = Hosted(no_host, max_body=LENGTH - 1)
    environ: dict[str, Any] = hosted.environ(body=b"x" * LENGTH)
    environ |= {"gunicorn.socket": connection[0], "wsgi.multithread": True, **more}
    environ["wsgi.input"] = source or environ["wsgi.input"]
    return iter(hosted.app(environ, hosted.start)), environ["wsgi.input"]


def test_a_client_still_sending_is_answered_before_its_body_is_taken_away(connection):
    answer, source = refused_unread(connection)

    assert b"request_too_large" in next(answer)
    assert source.tell() == 0
    assert list(answer) == []
    assert source.tell() == LENGTH


def test_a_client_that_waits_to_be_asked_for_its_body_is_not(connection):
    answer, source = refused_unread(connection, HTTP_EXPECT="100-continue")

    assert len(list(answer)) == 1
    assert source.tell() == 0


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise ConnectionResetError


def test_a_client_that_leaves_while_it_is_refused_breaks_nothing(connection):
    answer, _ = refused_unread(connection, Broken())

    assert len(list(answer)) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"wsgi.multithread": False},
        {"gunicorn.socket": None},
        {"gunicorn.socket": ssl.SSLSocket.__new__(ssl.SSLSocket)},
    ],
    ids=["one request at a time", "no socket", "TLS"],
)
def test_a_worker_that_could_be_held_takes_nothing_after_its_answer(connection, more):
    answer, source = refused_unread(connection, **more)

    assert len(list(answer)) == 1
    assert source.tell() == 0


@pytest.mark.parametrize("sent", [b"", b"x"], ids=["silent", "stopped"])
@pytest.mark.parametrize("server", ["gunicorn", "werkzeug"])
def test_a_client_that_stops_sending_holds_its_thread_no_longer_than_it_may(
    connection, server, sent
):
    served, client = connection
    client.sendall(sent)
    with served.makefile("rb") as source:
        environ = {
            "CONTENT_LENGTH": str(LENGTH),
            "wsgi.input": source,
            "wsgi.multithread": True,
            f"{server}.socket": served,
        }
        thread = threading.Thread(target=discard_body, args=(environ, 0.05), daemon=True)
        thread.start()
        thread.join(30)
        held = thread.is_alive()
        client.close()
        thread.join(30)

    assert not held


@pytest.mark.parametrize("stated", ["\u00b2", "-1", "1_0", "9" * 5000, "x", ""])
def test_a_length_that_is_no_number_is_no_body(stated):
    source = io.BytesIO(b"the next request")

    assert read_body({"CONTENT_LENGTH": stated, "wsgi.input": source}, 10, 1.0) == b""
    assert source.tell() == 0
