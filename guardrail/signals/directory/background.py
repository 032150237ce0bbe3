"""An event loop beside the program's own: calls on it outlive the request that began them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

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

        return asyncio.run_coroutine_threadsafe(run(), self._running())

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
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run,
                    args=(self._loop, self._ending),
                    name="guardrail-directory",
                    daemon=True,
                )
                self._thread.start()
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
