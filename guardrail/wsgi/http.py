"""HTTP over WSGI: a request's body, its response, and how it is settled (PEP 3333)."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from types import TracebackType
from typing import Any

from guardrail.http.enforcer import SyncEnforcer
from guardrail.http.flow import STATE_KEY, Served, TooLargeError, TooSlowError
from guardrail.http.metering import readable
from guardrail.http.parsing import UsageFormat
from guardrail.http.request import Forward, Request

_NONE = UsageFormat.NONE
CHUNK = 1 << 16


def read_body(
    environ: Mapping[str, Any],
    most: int,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """Return the whole body: at most `most` bytes, no more than `Content-Length` states.

    The time is looked at between two pieces of 64 KiB: a client that sends nothing at all holds
    its thread until the server's own timeout, where it has one.

    Raises:
        TooLargeError: there is more.
        TooSlowError: it takes longer than `timeout` seconds.
    """
    chunks: list[bytes] = []
    length = 0
    for chunk in _pieces(environ, timeout, clock):
        length += len(chunk)
        if length > most:
            raise TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


def discard_body(
    environ: Mapping[str, Any], timeout: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Take what a client still sends until it ends, fails, or `timeout` seconds are over.

    A read over WSGI waits as long as the client likes: the socket is closed for reading when
    the time is over, which ends it. Nothing is taken where that cannot be done, and none from a
    worker that serves one request at a time: to be held by a client is worse than an answer lost.
    """
    connection = _connection_of(environ)
    if connection is None:
        return
    end = threading.Timer(timeout, _end_reading, (connection,))
    end.daemon = True
    # It was answered: whatever goes wrong now changes nothing.
    with suppress(Exception):
        end.start()
        try:
            for _ in _pieces(environ, timeout, clock):
                pass
        finally:
            end.cancel()


def _connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of a request if it can be closed for reading while a thread reads it."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    # TLS is torn down by half a close, with the answer that may still be on its way.
    usable = isinstance(found, socket.socket) and not isinstance(found, ssl.SSLSocket)
    return found if usable and environ.get("wsgi.multithread") else None


def _end_reading(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _pieces(
    environ: Mapping[str, Any], timeout: float, clock: Callable[[], float]
) -> Iterator[bytes]:
    stated = str(environ.get("CONTENT_LENGTH") or "")
    readable = stated.isascii() and stated.isdigit() and len(stated) < 20
    left = int(stated) if readable else None
    if left is None and not environ.get("wsgi.input_terminated"):
        return
    source = environ["wsgi.input"]
    deadline = clock() + timeout
    while left is None or left > 0:
        piece = source.read(CHUNK if left is None else min(CHUNK, left))
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece
        if clock() > deadline:
            raise TooSlowError


Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class ServedIterable(Served):
    """A request with the host.

    It is the iterable that the server gets: the host's own is iterated as the server asks, and
    closed once. The host may start the response when it is called or at its first piece.
    """

    def __init__(
        self,
        enforcer: SyncEnforcer,
        request: Request,
        forward: Forward,
        start_response: StartResponse,
    ) -> None:
        super().__init__(enforcer, request, forward)
        self._enforcer = enforcer
        self._forward = forward
        self._lock = threading.Lock()
        self._start_response = start_response
        self._body: Iterable[bytes] = ()
        self._pieces: Iterator[bytes] = iter(())
        self._closed = False
        every = self.reservation.renews_every
        if every is not None:
            enforcer.leases.watch(self, every)

    def begin(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call the host, and return what the server is to send."""
        try:
            self._body = app(self._changed(environ), self._start)
            self._pieces = iter(self._body)
        except BaseException:
            self._end(failed=True)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        unmetered = self._request.asked.usage_format is _NONE
        if unmetered and isinstance(wrapper, type) and isinstance(self._body, wrapper):
            # The server sends a file by itself, faster than piece by piece.
            self._end(failed=False)
            return self._body
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            rest = self.response.sent(b"", last=True)
            if rest:
                self._pieces = iter(())
                return rest
            self._end(failed=False)
            raise
        except BaseException:
            self._end(failed=True)
            raise
        self.renew_if_due()
        return self.response.sent(piece, last=False)

    def close(self) -> None:
        """Close the host's response, as the server does at its end or when the client left."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end(failed=False)

    def _start(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Write:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        passed = self.response.started(int(status[:3]), fields)
        decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in passed]
        arguments = () if exc_info is None else (exc_info,)
        write = self._start_response(status, decoded, *arguments)

        def metered(piece: bytes) -> object:
            self.renew_if_due()
            return write(self.response.sent(piece, last=False))

        return metered

    def renew_if_due(self) -> None:
        """Extend the leases if they are due, or take anew the places of those that ran out.

        Also called from a thread beside the server's own.
        """
        with self._lock:
            renewal = self.reservation.renewal(self._enforcer.clock())
            if renewal is not None:
                self._enforcer.run(renewal)

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            if not self.reservation.held:
                return
            try:
                self._enforcer.run(self.finish(failed=failed))
            finally:
                if self.reservation.renews_every is not None:
                    self._enforcer.leases.drop(self)

    def _changed(self, environ: Mapping[str, Any]) -> Environ:
        """Return the host's own copy of the environ, with what was changed in the request."""
        forward, body = self._forward, self._request.body
        changed = {**environ, STATE_KEY: self.state()}
        if forward.path is not None:
            changed["PATH_INFO"] = forward.path.encode("utf-8").decode("latin-1")
        if forward.body is not None:
            body = forward.body
            changed["CONTENT_LENGTH"] = str(len(body))
            for name in ("HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING"):
                changed.pop(name, None)
        accepted = environ.get("HTTP_ACCEPT_ENCODING")
        if isinstance(accepted, str) and (kept := readable(accepted.encode("latin-1", "replace"))):
            changed["HTTP_ACCEPT_ENCODING"] = kept.decode("latin-1")
        if forward.strips_usage:
            # The usage we asked for cannot be taken out of a compressed stream.
            changed.pop("HTTP_ACCEPT_ENCODING", None)
        if body is not None:
            changed["wsgi.input"] = BytesIO(body)
        return changed
