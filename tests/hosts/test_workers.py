"""Servers with four worker processes: a limit of 100 admits 100, on every store they can share."""

from __future__ import annotations

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
from tests.hosts.served import POLICIES, STORE
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
def serving(folder: Path, host: str, store: str):
    """Run a server with four workers, and give what answers a query: effect, mode, worker."""
    (folder / "policy.yaml").write_text(POLICY)
    port = free_port()
    settings = {POLICIES: str(folder), STORE: store, "GUARDRAIL_HASH_KEY": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-m", *HOSTS[host].format(port=port).split()],
        cwd=ROOT,
        env={**os.environ, **settings},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(account: str) -> list[str]:
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", f"/?{account}")
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
        return len({worker for _, _, worker in clients.map(ask, ["warm"] * 40)}) == 4
    except (OSError, HTTPException):
        return False


@pytest.fixture
def store_uri(request, tmp_path):
    if request.param == "lmdb":
        (tmp_path / "counters").mkdir()
        return f"lmdb://{tmp_path}/counters?deadline=10s"
    if request.param == "memory":
        return "memory://"
    return f"{SERVERS.empty('valkey 9').uri}?deadline=10s"


@pytest.mark.parametrize("store_uri", ["lmdb", "redis"], indirect=True)
@pytest.mark.parametrize("host", HOSTS)
def test_three_hundred_requests_at_once_are_admitted_a_hundred_times(host, store_uri, tmp_path):
    with serving(tmp_path, host, store_uri) as (clients, ask):
        answers = list(clients.map(ask, ["account"] * 300))

    assert {mode for _, mode, _ in answers} == {"normal"}
    assert sum(effect == "allow" for effect, _, _ in answers) == 100
    assert len({worker for _, _, worker in answers}) > 1


@pytest.mark.parametrize("store_uri", ["memory"], indirect=True)
def test_workers_that_count_each_for_themselves_admit_more(store_uri, tmp_path):
    with serving(tmp_path, "uvicorn", store_uri) as (clients, ask):
        answers = list(clients.map(ask, ["account"] * 300))

    assert sum(effect == "allow" for effect, _, _ in answers) > 100
