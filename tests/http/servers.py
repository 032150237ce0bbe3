"""Real servers for tests: each serves a host of `tests.http` in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
"""How many seconds a condition has: a busy machine starts servers slowly."""

COMMANDS = {
    "uvicorn": "uvicorn tests.http.hosted:app --host 127.0.0.1 --port {port} --log-level warning",
    "hypercorn": "hypercorn tests.http.hosted:app --bind 127.0.0.1:{port}",
    "granian": "granian tests.http.hosted:app --interface asgi --host 127.0.0.1 --port {port}",
    "gunicorn-asgi": "gunicorn tests.http.hosted:app -k asgi --bind 127.0.0.1:{port}",
    "gunicorn": "gunicorn tests.http.hosted:application --threads 4 --bind 127.0.0.1:{port}",
}
ASGI = ("uvicorn", "hypercorn", "granian", "gunicorn-asgi")
# This server would read the header of proxies by itself, from any program on its own machine.
MORE = {"uvicorn": "--no-proxy-headers"}

POLICY = """
guardrail: 1
policy: servers
models: {small: {max_output: 200}}
rules:
  - {id: tokens, when: always, budget: {tokens: 100k, per: day, key: account.id}}
  - {id: places, when: always, concurrency: {max: 8, key: account.id}}
  - id: calls
    when: {request.endpoint: {not: /v1/embeddings}}
    rate: {requests: 1000/day, key: account.id}
  - id: few
    when: {request.endpoint: /v1/embeddings}
    rate: {requests: 40/minute, burst: 1, key: account.id}
  - {id: closed, when: {client.agent: {in: [closed]}}, unknown: skip, block: {reason: closed}}
  - id: gone
    when: {request.model: gone}
    unknown: skip
    block: {reason: closed_model, message: "This model is closed to you."}
  - id: hours
    when: {request.model: hourly}
    unknown: skip
    budget: {requests: 1, per: 3h, key: account.id}
  - id: pace
    when: {request.model: paced}
    unknown: skip
    rate: {requests: 4/second, burst: 1, key: account.id}
  - id: outgoing
    when: {request.model: capped}
    unknown: skip
    budget: {output_tokens: 150, per: 3h, key: account.id}
"""
PROXIES = 'proxies = ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]\n'


class Server:
    """A running server, its log, and a client for it."""

    process: subprocess.Popen

    def __init__(self, port, log):
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(
            base_url=self.url,
            headers={"authorization": "Bearer key-a"},
            timeout=PATIENCE,
        )

    def used(self):
        """Return what each limit of `acct-a` has counted."""
        return self.client.get("/used").json()

    def state(self):
        """Return what the host saw."""
        return self.client.get("/state").json()

    def raw(self, request):
        """Send bytes over a connection of their own; return the status of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as reader:
                answer = reader.readline()
        return int(answer.split()[1]) if answer else None


def until(condition):
    """Wait until a condition holds, and return its value; it must within some seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            assert value
            return value
        time.sleep(0.02)


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command, environment, log, client, path):
    """Run a server's command until the block ends; wait until it answers a client on a path."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            until(lambda: _answers(client, path) or process.poll() is not None)
            assert process.poll() is None, log.read_text("utf-8")
            yield process
        finally:
            client.close()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def serving(kind, folder, policy, settings="", more="", host="hosted", **environ):
    """Serve a host with a policy; `settings` are lines of TOML, `more` further arguments."""
    (folder / "policy.yaml").write_text(policy)
    config = folder / "gr.toml"
    config.write_text(f'policies = "policy.yaml"\nexempt = ["/state", "/used"]\n{settings}')
    port = free_port()
    words = f"{COMMANDS[kind].format(port=port)} {more}".replace("hosted", host).split()
    key = "a key for tests only, of 32 byte"
    environment = {**os.environ, "GUARDRAIL_CONFIG": str(config), "GUARDRAIL_HASH_KEY": key}
    server = Server(port, folder / "log")
    command = [sys.executable, "-m", *words]
    with running(command, {**environment, **environ}, server.log, server.client, "/state") as made:
        server.process = made
        yield server


@contextmanager
def started_once(start):
    """Give a function that returns the server of a kind, which `start` starts when first asked."""
    with ExitStack() as stack:
        found = {}

        def get(kind):
            if kind not in found:
                found[kind] = stack.enter_context(start(kind))
            return found[kind]

        yield get


def _answers(client, path):
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False
