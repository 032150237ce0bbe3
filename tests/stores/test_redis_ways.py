"""Ways to a server: sockets, logins, options of the URI, and servers that talk nonsense."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from guardrail import AsyncGuard, Guard
from guardrail.errors import SettingError, StoreError
from guardrail.loading import load_text
from guardrail.stores.cells import form_of, reply_of
from guardrail.stores.naming import KEY
from guardrail.stores.opening import open_store
from guardrail.stores.redis.address import read_address
from tests.cells.redis_stores import HASH_KEY, SERVERS, Shown, redis_store
from tests.stores.deciding import BINDING, NOW, S, budget, decide, used
from tests.stores.servers import Server, eventually
from tests.stores.test_redis_epochs import META, NEW, OLD, bring_forward, kinds

POLICY = load_text("""
guardrail: 1
policy: ways
rules:
  - id: day
    when: always
    budget: {requests: 100, per: day, key: account.id}
    on_store_error: deny
""")
ENVIRON = {KEY: HASH_KEY.decode()}


def modes(uri: str, kind: str, times: int = 2) -> list[str]:
    """Return how a guard of either kind decides over a store, some times."""
    facts = {"account.id": "a"}
    if kind == "sync":
        with Guard.from_policies(POLICY, store=uri, environ=ENVIRON) as guard:
            return [guard.decide(facts).mode.value for _ in range(times)]

    async def run() -> list[str]:
        async with AsyncGuard.from_policies(POLICY, store=uri, environ=ENVIRON) as guard:
            return [(await guard.decide(facts)).mode.value for _ in range(times)]

    return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def lurking():
    """Return a server that listens on a socket of this host, behind a password."""
    with TemporaryDirectory(prefix="gr") as folder:
        path = f"{folder}/s"
        with Server(unixsocket=path, requirepass="secret/word") as server:
            yield path, server


@pytest.mark.parametrize("scheme", ["unix", "redis+unix"])
def test_a_socket_of_this_host_is_a_way_to_a_server(lurking, kind, scheme):
    path, _ = lurking
    uri = f"{scheme}://:secret%2Fword@{path}?deadline=20s"
    assert modes(uri, kind) == ["normal", "normal"]


@pytest.mark.parametrize("login", ["", ":other-word@", "nobody:secret%2Fword@"])
def test_a_server_that_refuses_the_login_is_away_and_says_why_without_the_password(
    lurking, kind, login, caplog
):
    path, server = lurking
    for uri in (f"unix://{login}{path}", f"redis://{login}127.0.0.1:{server.port}"):
        assert modes(f"{uri}?deadline=20s", kind) == ["closed", "closed"]
    assert "the store is not there yet" in caplog.text
    assert "other-word" not in caplog.text
    assert "secret" not in caplog.text


def test_an_address_without_a_socket_is_explained():
    with pytest.raises(SettingError, match="names no socket"):
        open_store("unix://", [HASH_KEY])


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("evicting=maybe", "`evicting` is `maybe` in .*: it must be `yes` or `no`"),
        ("clock=mine", "`clock` is `mine` in .*: it must be `host` or `server`"),
        ("prefix=a%20b", "`prefix` is `a b` in .*: it must be 1 to 32 letters"),
        ("prefix=", "it must be 1 to 32 letters"),
        ("deadline=5", "it must be a duration"),
        ("max_unknown=many", "it must be a whole number"),
        ("evicting=yes&evicting=no", "`evicting` is given twice"),
        ("evict=yes", "did you mean `evicting`"),
    ],
)
def test_an_option_that_cannot_be_read_is_explained(option, complaint):
    with pytest.raises(SettingError, match=complaint):
        open_store(f"redis://127.0.0.1:1?{option}", [HASH_KEY])


def test_a_prefix_stands_before_the_names_of_all_records_and_sets_counters_apart(kind):
    server = SERVERS.empty("valkey 9")
    for prefix in ("one", "two.2"):
        assert modes(f"{server.uri}?deadline=20s&prefix={prefix}", kind) == ["normal"] * 2
    names = [name.decode() for name in server.client.scan_iter()]
    assert sorted({name.partition(":")[0] for name in names}) == ["one", "two.2"]
    assert sum(name.startswith("one:") for name in names) == 2


@pytest.mark.parametrize(("clock", "mode"), [("host", "normal"), ("server", "closed")])
def test_by_the_hosts_clock_a_decision_ahead_of_the_server_is_counted(clock, mode):
    server = SERVERS.empty("valkey 9")
    store = open_store(f"{server.uri}?deadline=20s&clock={clock}", [HASH_KEY])
    ahead = server.client.time()[0] + 86400
    with Guard.from_policies(POLICY, store=store, environ=ENVIRON) as guard:
        assert guard.decide({"account.id": "a"}, now=ahead).mode.value == mode


@pytest.mark.parametrize(("said", "mode"), [("yes", "normal"), ("no", None)])
def test_a_server_that_evicts_is_used_where_the_uri_accepts_it(said, mode):
    with Server(maxmemory="64mb", maxmemory_policy="volatile-lru") as server:
        uri = f"{server.uri}?deadline=20s&evicting={said}"
        if mode is None:
            with pytest.raises(SettingError, match="evicting=yes"):
                open_store(uri, [HASH_KEY])
        else:
            assert modes(uri, "sync") == [mode] * 2


@contextmanager
def answering(*answers: bytes):
    """Serve one answer after another to whatever is asked, the last for ever; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                end, _ = listener.accept()
                ends.append(end)
                threading.Thread(target=talk, args=(end,), daemon=True).start()

    def talk(end: socket.socket) -> None:
        with suppress(OSError):
            left = list(answers)
            while end.recv(65536):
                end.sendall(left.pop(0) if len(left) > 1 else left[0])
        end.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        thread.join(10)


NONSENSE = {
    "an error": b"-ERR nonsense\r\n",
    "a number": b":5\r\n",
    "an empty array": b"*0\r\n",
    "nothing there": b"$-1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "bytes": b"\x00\xff\x00\xff" * 50,
    "half a reply": b"$100\r\nabc",
    "no version": b"$9\r\nredis:\r\nx\r\n",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_server_that_talks_nonsense_is_away(nonsense, kind, caplog):
    with answering(b"+OK\r\n", NONSENSE[nonsense]) as port:
        uri = f"redis://127.0.0.1:{port}?deadline=200ms&connect=200ms"
        assert modes(uri, kind, 1) == ["closed"]
    assert "the store is not there yet" in caplog.text


class Asked:
    """A store of either kind, asked in numbers."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.store: Any = shown.store

    def ask(self, *cells: Any) -> list[int]:
        question = form_of(BINDING, list(cells))
        if hasattr(self.store, "runner"):
            return list(self.store.runner.run(self.store.store.ask(question, NOW)))
        return list(self.store.ask(question, NOW))


@kinds
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_question_under_outdated_names_is_put_again_under_the_new_ones(kind, is_async):
    server = SERVERS.empty(kind)
    shown = Shown(server, is_async=is_async)
    asked = Asked(shown)
    asked.ask(budget(3))
    context = shown.state.context()
    whole, _ = server.client.time()
    outdated = context._replace(preconditions=context.preconditions._replace(before=whole * S))
    shown.state._context = outdated

    assert asked.ask(budget(4))[:3] == [1, 0, 3]
    assert shown.state.context() is not outdated
    assert shown.slots("budget__=a") == {0: 7}
    shown.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_while_two_hash_keys_overlap_questions_count_on_what_stood_under_the_former(is_async):
    server = SERVERS.empty("valkey 9")
    old = Shown(server, is_async=is_async, keys=(OLD,))
    Asked(old).ask(budget(60))
    old.close()
    rolled = Shown(server, is_async=is_async, keys=(NEW, OLD))
    asked = Asked(rolled)
    assert asked.ask(budget(30))[:3] == [1, 0, 60]
    bring_forward(server, 0.0)
    rolled.state.invalidate()

    assert asked.ask(budget(11))[:3] == [0, 1, 90]
    assert rolled.state.context().former is not None
    assert asked.ask(budget(10))[:3] == [1, 0, 90]
    assert asked.ask(budget(1))[:3] == [0, 1, 100]
    assert rolled.slots("budget__=a") == {0: 100}
    assert server.client.exists(META)
    rolled.close()


def test_a_question_and_a_plan_are_answered_alike():
    server = SERVERS.empty("valkey 9")
    store = redis_store(server.uri)
    store.open()
    first = reply_of(decide(store, budget(5)))
    assert store.ask(form_of(BINDING, [budget(5)]), NOW)[:2] == first[:2]
    assert used(store) == 10
    store.close()


def test_a_store_that_is_not_there_at_the_start_is_found_later():
    with Server() as server:
        server.kill()
        store = open_store(f"{server.uri}?deadline=20s", [HASH_KEY])
        with pytest.raises(StoreError):
            store.acquire(BINDING, [budget()], NOW)
        server.restart()
        with Guard.from_policies(POLICY, store=store, environ=ENVIRON) as guard:

            def normal() -> bool:
                return guard.decide({"account.id": "a"}).mode.value == "normal"

            eventually(normal)


TLS = {
    "redis": False,
    "rediss": True,
    "valkey": False,
    "valkeys": True,
    "redis+cluster": False,
    "rediss+cluster": True,
    "valkey+cluster": False,
}


@pytest.mark.parametrize(("scheme", "encrypted"), TLS.items())
def test_a_scheme_says_whether_its_servers_are_spoken_to_by_tls(scheme, encrypted):
    assert read_address(f"{scheme}://h:6379").tls is encrypted
