"""Asking an HTTP service for a JSON document, on an event loop beside the program's own.

The HTTP client is imported by who makes a `Fetcher`: few servers do, and it brings along what its
own command line prints with.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from guardrail.errors import SettingError
from guardrail.signals.directory.identity import Secret, SourceError

if TYPE_CHECKING:
    import httpx

Question = Mapping[str, object] | None
"""What is POSTed as JSON; None for a GET."""

_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "guardrail"}


class Fetcher:
    """Asks one URL for JSON; proxies, netrc and cookies of the environment are not used.

    Its connections belong to the event loop that first used them; on another, new ones are made.
    """

    __slots__ = ("_authorization", "_client", "_loop", "_most_bytes", "_timeout", "place", "url")

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        most_bytes: int,
        authorization: Secret | None = None,
        plain_http: bool = False,
    ) -> None:
        self.url, self.place = _checked(url, plain_http)
        self._timeout = timeout
        self._most_bytes = most_bytes
        self._authorization = authorization
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def fetch(
        self, question: Mapping[str, object] | None, statuses: frozenset[int]
    ) -> object:
        """Return the JSON document answered to a GET, or to a question POSTed as JSON.

        Raises:
            SourceError: there was none in time, or it is too large, or of another status.
        """
        import httpx

        try:
            async with asyncio.timeout(self._timeout):
                return _parsed(await self._body(question, statuses))
        except TimeoutError:
            raise SourceError(f"no answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as problem:
            raise SourceError(f"no answer ({type(problem).__name__})") from None

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _body(self, question: Question, statuses: frozenset[int]) -> bytes:
        headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        if self._authorization is not None:
            headers.append((b"authorization", self._authorization.reveal()))
        method = "GET" if question is None else "POST"
        client = self._connected()
        async with client.stream(method, self.url, headers=headers, json=question) as answer:
            if answer.status_code not in statuses:
                raise SourceError(f"status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise SourceError("a compressed answer")
            body = bytearray()
            async with aclosing(cast(AsyncGenerator[bytes], answer.aiter_raw())) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > self._most_bytes:
                        raise SourceError(f"an answer of over {self._most_bytes} bytes")
            return bytes(body)

    def _connected(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                timeout=self._timeout,
                follow_redirects=False,
                trust_env=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body, object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise SourceError("an answer that is not JSON") from None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _checked(url: str, plain_http: bool) -> tuple[str, str]:
    """Return a URL, and how messages name it: without path, query or user."""
    import httpx

    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parts = httpx.URL("")
    place = f"{parts.scheme}://{parts.netloc.decode('ascii', 'replace')}"
    if parts.userinfo:
        raise SettingError(
            "the URL of a directory holds a password: send it as `Authorization`, from the "
            "variable that `authorization_from` names"
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise SettingError("the URL of a directory starts with `https://` and names a host")
    if parts.scheme == "http" and not plain_http and not _is_local(parts.host):
        raise SettingError(
            f"`{place}` is not encrypted: whoever is on the way could make anyone a customer; "
            "use `https://`, or say `plain_http=True` where the network itself is trusted"
        )
    return url, place


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


T = TypeVar("T")

_STOPPING = 5.0


class Background:
    """An event loop in a thread, started when it is first needed, and anew after a fork."""

    __slots__ = ("_ending", "_lock", "_loop", "_process", "_thread")

    def __init__(self, ending: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take what is to be done on the loop before it stops, connections closed say."""
        self._ending = ending
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def submit(self, call: Callable[[], Awaitable[T]]) -> Future[T]:
        """Run what `call` returns on the loop, and return a future for what becomes of it."""

        async def run() -> T:
            return await call()

        loop = self._running()
        return asyncio.run_coroutine_threadsafe(run(), loop)

    def close(self) -> None:
        """Cancel what is under way and stop the loop, if this process has started it."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or self._process != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(_STOPPING)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_run, args=(loop, self._ending), name="guardrail-directory", daemon=True
                )
                try:
                    thread.start()
                except BaseException:
                    # The system has no thread to give now; the next call asks it again.
                    loop.close()
                    raise
                self._process, self._loop, self._thread = os.getpid(), loop, thread
            return self._loop


def _run(loop: asyncio.AbstractEventLoop, ending: Callable[[], Awaitable[None]] | None) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end(asyncio.all_tasks(loop), ending))
        loop.run_until_complete(loop.shutdown_asyncgens())
        # Generators of the HTTP client that nobody held any more are closed by tasks of their own.
        while tasks := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()


async def _end(
    tasks: set[asyncio.Task[object]], ending: Callable[[], Awaitable[None]] | None
) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if ending is not None:
        await ending()
