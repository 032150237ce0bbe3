"""Databases in MaxMind's file layout, written for a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import maxminddb
import pytest

from guardrail.signals import geo
from guardrail.signals.directory import Identity

BUILT = 1_780_000_000

WriteDatabase = Callable[..., Path]


@pytest.fixture
def write_database(tmp_path: Path) -> WriteDatabase:
    """Return a function that writes networks and their records to a file, dated `built`."""
    writer = pytest.importorskip("mmdb_writer")
    netaddr = pytest.importorskip("netaddr")

    def write(
        networks: Mapping[str, object],
        *,
        built: int = BUILT,
        name: str = "test.mmdb",
        ip_version: int = 6,
    ) -> Path:
        tree = writer.MMDBWriter(
            ip_version, "Test", ["en"], "a test", ipv4_compatible=ip_version == 6
        )
        for network, record in networks.items():
            tree.insert_network(netaddr.IPSet([network]), record)
        metadata = tree._build_meta() | {"build_epoch": built}
        path = tmp_path / name
        writer.TreeWriter(tree.tree, metadata).write(str(path))
        return path

    return write


@pytest.fixture(params=["extension", "pure python"])
def either_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with maxminddb's C extension, and as if it were not installed."""
    geo._opened.cache_clear()
    if request.param == "pure python":
        monkeypatch.setattr(maxminddb, "_extension", None)
    elif maxminddb._extension is None:
        pytest.skip("maxminddb has no C extension here")
    yield str(request.param)
    geo._opened.cache_clear()


@pytest.fixture(params=["threads", "tasks"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Identity]:
    """Return a way to ask a directory about a credential: as a thread does, and as a task."""
    if request.param == "threads":
        return lambda found, who, now: found.look_up(who, now)
    return lambda found, who, now: asyncio.run(found.find(who, now))
