"""What a store does when the way to its server fails; sync and awaited."""

from __future__ import annotations

import socket

from tests.cells.redis_stores import SERVERS
from tests.stores.deciding import (
    DEADLINE,
    NOW,
    budget,
    decide,
    failing,
    fails,
    inner,
    lease,
    pace,
    used,
    warm,
)
from tests.stores.proxies import Proxy
from tests.stores.servers import Server, eventually


def test_a_server_that_is_gone_fails_at_once_and_is_found_again(opened):
    with Server() as server:
        store = opened(server.uri)
        server.kill()
        with failing():
            decide(store)
        with failing(unsure=False):
            decide(store)
        server.restart()
        eventually(lambda: warm(store))
        assert decide(store).admitted


def test_a_server_that_stalls_fails_within_the_deadline_and_what_it_did_late_is_undone(opened):
    with Server() as server:
        store = opened(server.uri, deadline=DEADLINE)
        server.pause()
        with failing("did not answer within 250 ms", unsure=True):
            decide(store)
        server.resume()
        eventually(lambda: warm(store) and used(store) == 0)


def test_a_reply_that_comes_late_is_undone_in_every_kind_of_cell(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri, deadline=DEADLINE)
        proxy.delay = 1.2 * DEADLINE
        cells = [budget(), pace(), lease("x")]
        with failing(unsure=True):
            decide(store, *cells)
        proxy.delay = 0.0
        eventually(lambda: warm(store) and all(used(store, cell) in (0, NOW) for cell in cells))
        assert inner(store).lost == 0


def test_a_late_refusal_is_not_undone(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri, deadline=DEADLINE)
        decide(store, budget(100))
        proxy.delay = 1.2 * DEADLINE
        with failing():
            decide(store, budget(1))
        proxy.delay = 0.0
        eventually(lambda: warm(store))
        assert used(store) == 100


def test_one_late_reply_does_not_cost_the_connection_and_silence_does(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri, deadline=DEADLINE)
        before = proxy.accepted
        proxy.delay = 1.5 * DEADLINE
        with failing():
            decide(store)
        proxy.delay = 0.0
        eventually(lambda: warm(store) and used(store) == 0)
        assert proxy.accepted == before

        proxy.silent = True
        with failing(unsure=True):
            decide(store)
        eventually(lambda: fails(store) and proxy.accepted > before)
        proxy.silent = False
        eventually(lambda: warm(store))
        assert inner(store).lost >= 1


def test_a_lost_reply_leaves_the_estimate_charged_and_is_counted(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri, deadline=DEADLINE)
        proxy.silent = True
        with failing(unsure=True):
            decide(store, budget(7))
        proxy.reset()
        proxy.silent = False
        eventually(lambda: warm(store))
        assert used(store) == 7
        assert inner(store).lost >= 1


def test_a_reply_cut_in_half_is_an_unsure_failure(opened):
    server = SERVERS.empty("valkey 9")
    with Proxy(server.port) as proxy:
        store = opened(proxy.uri)
        proxy.cut_after = 0
        with failing(unsure=True):
            decide(store)
        proxy.cut_after = None
        eventually(lambda: warm(store))


def test_a_server_that_takes_no_connection_makes_nobody_wait_longer_than_the_deadline(opened):
    with Server() as server:
        store = opened(server.uri, deadline=DEADLINE)
        server.kill()
        # A full backlog: the kernel drops what asks for a connection, as a black hole does.
        with socket.create_server(("127.0.0.1", server.port), backlog=0) as hole:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
            for _ in range(8):
                with failing():
                    decide(store)
            for filler in fillers:
                filler.close()
