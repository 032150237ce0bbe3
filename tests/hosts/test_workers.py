"""Servers with four worker processes: a limit of 100 admits 100, on every store they can share."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.cells.redis_stores import SERVERS
from tests.hosts.served import POLICIES, STORES
from tests.stores.servers import eventually, free_port

ROOT = Path(__file__).parent.parent.parent
POLICY = """
guardrail: 1
policy: served
rules:
  - id: hundred
    when: always
    budget: {requests: 100, per: lifetime, key: account.id}
"""
GUNICORN = "gunicorn --workers 4 --threads 4 --bind 127.0.0.1:{port} tests.hosts.served:wsgi()"
HOSTS = {
    "gunicorn, preloaded": f"{GUNICORN} --preload",
    "gunicorn": GUNICORN,
    "uvicorn": "uvicorn --workers 4 --port {port} --log-level warning --factory "
    "tests.hosts.served:asgi",
}


@contextmanager
def serving(folder: Path, host: str, stores: dict[str, str]):
    """Run a server with four workers, and give what answers a query: effect, mode, worker."""
    (folder / "policy.yaml").write_text(POLICY)
    port = free_port()
    key = secrets.token_hex(32)
    settings = {POLICIES: str(folder), STORES: json.dumps(stores), "GUARDRAIL_HASH_KEY": key}
    process = subprocess.Popen(
        [sys.executable, "-m", *HOSTS[host].format(port=port).split()],
        cwd=ROOT,
        env={**os.environ, **settings},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(query: str) -> list[str]:
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", f"/?{query}")
            return connection.getresponse().read().decode().split()

    try:
        with ThreadPoolExecutor(16) as clients:
            eventually(lambda: process.poll() is not None or four_answer(clients, ask), 60)
            yield clients, ask
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def four_answer(clients: ThreadPoolExecutor, ask) -> bool:
    """Tell whether all four workers take requests."""
    try:
        return len({worker for _, _, worker in clients.map(ask, ["memory/warm"] * 40)}) == 4
    except (OSError, HTTPException):
        return False


@pytest.mark.parametrize("host", HOSTS)
def test_of_three_hundred_requests_at_once_workers_admit_the_hundred_that_they_share(
    host, tmp_path
):
    (tmp_path / "counters").mkdir()
    stores = {
        "lmdb": f"lmdb://{tmp_path}/counters?deadline=10s",
        "redis": f"{SERVERS.empty('valkey 9').uri}?deadline=10s",
        "memory": "memory://",
    }
    with serving(tmp_path, host, stores) as (clients, ask):
        found = {name: list(clients.map(ask, [f"{name}/account"] * 300)) for name in stores}

    admitted = {
        name: sum(effect == "allow" for effect, _, _ in answers) for name, answers in found.items()
    }
    assert admitted["lmdb"] == admitted["redis"] == 100
    # Workers that count each for themselves admit more.
    assert admitted["memory"] > 100
    for answers in found.values():
        assert {mode for _, mode, _ in answers} == {"normal"}
        assert len({worker for _, _, worker in answers}) > 1
