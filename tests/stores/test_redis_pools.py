"""What becomes of connections that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import pytest

from guardrail.errors import StoreError
from guardrail.stores.redis.blocking import Pool
from guardrail.stores.redis.pipelined import PipelinedConnection
from tests.stores.servers import eventually


class Slow:
    """A connection that takes its time to open, and notes that it was closed."""

    owed = ()

    def __init__(self):
        self.may_open = threading.Event()
        self.closed = False

    def opened(self):
        self.may_open.wait(10)
        return self

    def close(self):
        self.closed = True

    def usable(self):
        return not self.closed


@pytest.mark.parametrize("again", [False, True])
def test_a_connection_that_opens_after_the_pool_was_closed_is_closed_unless_wanted(again):
    connection = Slow()
    pool = Pool(connection.opened, "a server", 0.05, print)
    with pytest.raises(StoreError):
        pool.take(time.monotonic() + 0.01)
    pool.close()
    if again:
        with pytest.raises(StoreError):
            pool.take(time.monotonic() + 0.01)
    connection.may_open.set()

    eventually(lambda: not pool._connecting)
    if again:
        assert pool.take(time.monotonic() + 1).usable()
    else:
        eventually(lambda: connection.closed)


def test_a_pool_opens_one_connection_at_a_time_however_many_wait():
    connection, opened = Slow(), []

    def opener():
        opened.append(threading.current_thread())
        return connection.opened()

    pool = Pool(opener, "a server", 0.05, print)
    for _ in range(5):
        with pytest.raises(StoreError):
            pool.take(time.monotonic() + 0.001)

    assert len(opened) == 1
    connection.may_open.set()
    taken: object = pool.take(time.monotonic() + 10)
    assert taken is connection
    pool.close()


class Failing(Slow):
    """A connection that cannot be opened, which takes its time to turn out."""

    def opened(self):
        super().opened()
        raise ConnectionRefusedError("the certificate has expired")

    async def awaited(self):
        await asyncio.to_thread(self.opened)


def test_who_cannot_wait_for_a_failure_hears_what_the_attempt_before_failed_of():
    failing = Failing()
    pool = Pool(failing.opened, "a server", 0.05, print)
    for why in ("not connected within 50 ms$", "50 ms; before that, .* certificate has expired"):
        failing.may_open.clear()
        with pytest.raises(StoreError, match=why):
            pool.take(time.monotonic() + 0.01)
        failing.may_open.set()
        eventually(lambda: not pool._connecting)
    pool.close()


def test_so_does_a_task():
    failing, call = Failing(), cast(Any, None)

    async def ask_twice():
        connection = PipelinedConnection(failing.awaited, "a server", 0.05, print)
        told = []
        for _ in range(2):
            failing.may_open.clear()
            with pytest.raises(StoreError) as caught:
                await connection.ask((), call, asyncio.get_running_loop().time() + 0.01)
            told.append(str(caught.value))
            failing.may_open.set()
            while connection._opening is not None:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        return told

    first, second = asyncio.run(ask_twice())
    assert first == "a server was not connected within 50 ms"
    assert "before that, a server cannot be reached: the certificate has expired" in second


def test_a_pool_that_is_closed_closes_the_connections_that_nobody_uses():
    connection = Slow()
    pool = Pool(connection.opened, "a server", 0.05, print)
    with pytest.raises(StoreError):
        pool.take(time.monotonic() + 0.01)
    connection.may_open.set()
    eventually(lambda: not pool._connecting)
    assert not connection.closed
    pool.close()

    assert connection.closed
