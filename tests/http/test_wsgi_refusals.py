"""Requests over WSGI that are refused while their clients are still sending."""

from __future__ import annotations

import io
from typing import Any

from tests.http.wsgi_driving import Hosted


def no_host(environ, start_response):
    """Fail: what is refused does not get here."""
    raise AssertionError


def refused_unread(expect=None, source=None):
    """Return the answer to a body that is not read, piece by piece, and where it comes from."""
    hosted = Hosted(no_host, max_body=10)
    more: dict[str, Any] = {} if expect is None else {"HTTP_EXPECT": expect}
    environ = hosted.environ(body=b"x" * 11, **more)
    environ["wsgi.input"] = source or environ["wsgi.input"]
    return iter(hosted.app(environ, hosted.start)), environ["wsgi.input"]


def test_a_client_still_sending_is_answered_before_its_body_is_taken_away():
    answer, source = refused_unread()

    assert b"request_too_large" in next(answer)
    assert source.tell() == 0
    assert list(answer) == []
    assert source.tell() == 11


def test_a_client_that_waits_to_be_asked_for_its_body_is_not():
    answer, source = refused_unread(expect="100-continue")

    assert len(list(answer)) == 1
    assert source.tell() == 0


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise ConnectionResetError


def test_a_client_that_leaves_while_it_is_refused_breaks_nothing():
    answer, _ = refused_unread(source=Broken())

    assert len(list(answer)) == 1
