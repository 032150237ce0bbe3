"""What becomes of connections that nobody waits for any more."""

from __future__ import annotations

import threading
import time

import pytest

from guardrail.errors import StoreError
from guardrail.stores.redis.blocking import Pool
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
