"""One admitted request with a WSGI host: its response passes, and at its end it is settled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from types import TracebackType
from typing import Any

from guardrail.http.asked import UsageFormat
from guardrail.http.exchange.before import Exchange, Pass
from guardrail.http.exchange.passage import PASSAGE, Passage
from guardrail.http.exchange.serving import Renewal, Serving, Settlement
from guardrail.http.meter import readable
from guardrail.wsgi.door import SyncDoor

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class Served:
    """A request with the host.

    It is the iterable that the server gets: the host's own is iterated as the server asks, and
    closed once. The host may start the response when it is called or at its first piece.
    """

    def __init__(
        self, door: SyncDoor, exchange: Exchange, outcome: Pass, start_response: StartResponse
    ) -> None:
        self._door = door
        self._exchange = exchange
        self._decision = self._holding = outcome.decision
        self._lock = threading.Lock()
        self._format = exchange.asked.usage_format
        self._start_response = start_response
        self._serving = Serving(
            outcome.decision,
            exchange.asked,
            exchange.addressee,
            door.settings.style,
            strips_usage=outcome.strips_usage,
            lease=door.configured.lease(door.guard.policies),
            now=door.clock(),
            later=door.later,
        )
        self._response: Iterable[bytes] = ()
        self._pieces: Iterator[bytes] = iter(())
        self._closed = False
        every = self._serving.renews_every
        if every is not None:
            door.renewals.watch(self, every)

    def begin(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call the host, and return what the server is to send."""
        try:
            self._response = app(environ, self._start)
            self._pieces = iter(self._response)
        except BaseException:
            self._end(failed=True)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        unmetered = self._format is UsageFormat.NONE
        if unmetered and isinstance(wrapper, type) and isinstance(self._response, wrapper):
            # The server sends a file by itself, faster than piece by piece.
            self._end(failed=False)
            return self._response
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            rest = self._serving.sent(b"", last=True)
            if rest:
                self._pieces = iter(())
                return rest
            self._end(failed=False)
            raise
        except BaseException:
            self._end(failed=True)
            raise
        self.renew_if_due()
        return self._serving.sent(piece, last=False)

    def close(self) -> None:
        """Close the host's response, as the server does at its end or when the client left."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._response, "close", None)
            if close is not None:
                close()
        finally:
            self._end(failed=False)

    def _start(self, status: str, headers: Headers, exc_info: ExcInfo | None = None) -> Write:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        passed = self._serving.started(int(status[:3]), fields)
        decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in passed]
        arguments = () if exc_info is None else (exc_info,)
        write = self._start_response(status, decoded, *arguments)

        def metered(piece: bytes) -> object:
            self.renew_if_due()
            return write(self._serving.sent(piece, last=False))

        return metered

    def renew_if_due(self) -> None:
        """Extend the leases if they are due, or take anew the places of those that ran out.

        Also called from a thread beside the server's own.
        """
        with self._lock:
            renewal = self._serving.renewal_due(self._door.clock())
            if renewal is Renewal.EXTEND:
                self._door.renew(self._holding)
            elif renewal is Renewal.REGAIN:
                again = self._door.regain(self._exchange)
                if again is not None:
                    self._serving.regained()
                    self._holding = again

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            try:
                over_now = self._door.finish(self._serving, failed=failed)
            finally:
                if self._holding is not self._decision:
                    self._door.settle(self._holding, Settlement(None), recorded=False)
                    self._holding = self._decision
            if not over_now:
                return
        if self._serving.renews_every is not None:
            self._door.renewals.drop(self)


def changed_environ(
    environ: Mapping[str, Any], body: bytes | None, outcome: Pass, passage: Passage
) -> Environ:
    """Return the host's own copy of the environ, with the body that was read, or its successor."""
    changed = {**environ, PASSAGE: passage}
    if outcome.path is not None:
        changed["PATH_INFO"] = outcome.path.encode("utf-8").decode("latin-1")
    if outcome.body is not None:
        body = outcome.body
        changed["CONTENT_LENGTH"] = str(len(body))
        for name in ("HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING"):
            changed.pop(name, None)
    accepted = environ.get("HTTP_ACCEPT_ENCODING")
    if isinstance(accepted, str) and (kept := readable(accepted.encode("latin-1", "replace"))):
        changed["HTTP_ACCEPT_ENCODING"] = kept.decode("latin-1")
    if outcome.strips_usage:
        # The usage we asked for cannot be taken out of a compressed stream.
        changed.pop("HTTP_ACCEPT_ENCODING", None)
    if body is not None:
        changed["wsgi.input"] = BytesIO(body)
    return changed
