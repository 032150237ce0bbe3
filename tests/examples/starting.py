"""Starts an example by the very command that stands at its top, and reads what it logs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.http.servers import PATIENCE, ROOT, free_port, running, until

EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent

COMMAND = re.compile(r"^[# ]*((?:\w+=\S+ )*(?:uvicorn|gunicorn|sh|litellm) .+)$", re.MULTILINE)
USED = re.compile(r"used (\d+) input tokens, (\d+) output tokens")
PLACES = {"uvicorn": "--port {}", "gunicorn": "--bind 127.0.0.1:{}"}


def command_of(path):
    """Return the one command that a file states at its top."""
    head = "".join(path.read_text("utf-8").splitlines(keepends=True)[:10])
    (command,) = COMMAND.findall(head)
    return command


class Example:
    """A running example."""

    def __init__(self, port, log):
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE, verify=False)
        self._log = log

    def log(self):
        """Return what it has logged so far."""
        return self._log.read_text("utf-8")

    def attempts(self):
        """Return how many requests to generate have reached the server."""
        return len(re.findall(r'"POST [^"]*" \d', self.log()))

    def generated(self):
        """Return the input and output tokens that the model says it used, by request."""
        return [tuple(map(int, pair)) for pair in USED.findall(self.log())]

    def left(self, key):
        """Return how many tokens an account has left today, once none of its calls is open.

        A response may end for its client a moment before it is settled.
        """
        headers = {"authorization": f"Bearer {key}"}

        def settled():
            fields = self.client.get("/v1/models", headers=headers).headers
            most = re.findall(r'"in-flight";q=(\d+)', fields["ratelimit-policy"])
            now = re.findall(r'"in-flight";r=(\d+)', fields["ratelimit"])
            # The request that asks is one in flight itself.
            return int(*now) + 1 == int(*most) and fields["x-ratelimit-remaining-tokens"]

        return int(until(settled))

    def charged(self, key, call):
        """Return what `call` returns, and the tokens that its account paid for it."""
        before = self.left(key)
        value = call()
        return value, before - self.left(key)


@contextmanager
def started(path, folder, place=None, health="/health", path_first=BIN, **environ):
    """Run a file's command on a free port, and wait until it answers on `health`.

    `place` says how its port is given, if not as usual; commands are looked for in `path_first`.
    """
    words = shlex.split(command_of(path))
    port = free_port()
    shell = {name: os.environ[name] for name in os.environ if not name.startswith("GUARDRAIL_")}
    environment = {**shell, "PYTHONUNBUFFERED": "1", **environ}
    environment["PATH"] = os.pathsep.join([str(path_first), str(BIN), os.environ["PATH"]])
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    words += (place or PLACES[words[0]]).format(port).split()
    example = Example(port, folder / "log")
    with running(words, environment, folder / "log", example.client, health):
        yield example
