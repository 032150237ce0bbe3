"""A system that has no thread to give for a moment costs that moment, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrail.errors import StoreError
from guardrail.signals.directory.fetching import Background
from guardrail.stores.lmdb import LmdbStore
from guardrail.stores.redis.blocking import Pool
from tests.stores.workers import NOW, S, charge


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let no thread start until it is undone."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        yield patched


class Opened:
    """A connection that is there at once."""

    owed = ()
    opened = 0.0

    def usable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_a_server_is_connected_to_once_there_are_threads_again(scarce: pytest.MonkeyPatch) -> None:
    connection = Opened()
    pool = Pool(lambda: connection, "a server", 0.05, print)  # type: ignore[arg-type, return-value]
    with pytest.raises(StoreError, match="a server cannot be reached: can't start new thread"):
        pool.take(time.monotonic() + 5)
    scarce.undo()

    assert pool.take(time.monotonic() + 5) is connection  # type: ignore[comparison-overlap]


def test_a_file_is_counted_in_and_closed_where_no_copy_of_it_can_begin(
    scarce: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LmdbStore(tmp_path, copy_every=S)
    for second in range(0, 6, 2):
        assert charge(store, "counter_=a", now=NOW + second * S)
    assert "no copy of" in caplog.text
    assert store.slots("counter_=a") == {0: 3}
    store.close()


def test_a_directory_is_asked_once_there_are_threads_again(scarce: pytest.MonkeyPatch) -> None:
    background = Background()

    async def found() -> str:
        return "found"

    with pytest.raises(RuntimeError, match="can't start new thread"):
        background.submit(found)
    scarce.undo()

    assert background.submit(found).result(timeout=30) == "found"
    background.close()
