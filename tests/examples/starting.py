"""Starts an example by the very command that stands at its top, and reads what it logs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.http.servers import PATIENCE, free_port, until

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent

COMMAND = re.compile(r"^[# ]*((?:\w+=\S+ )*(?:uvicorn|gunicorn|sh|litellm) .+)$", re.MULTILINE)
USED = re.compile(r"used (\d+) input tokens, (\d+) output tokens")
PLACES = {"uvicorn": "--port {}", "gunicorn": "--bind 127.0.0.1:{}"}


def command_of(path):
    """Return the one command that a file states at its top."""
    (command,) = COMMAND.findall(path.read_text("utf-8").partition("\n\n\n")[0])
    return command


class Example:
    """A running example."""

    def __init__(self, port, log):
        self.url = f"http://127.0.0.1:{port}"
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
            fields = httpx.get(f"{self.url}/v1/models", headers=headers, timeout=PATIENCE).headers
            most, now = (
                re.search(rf'"in-flight";{name}=(\d+)', fields[field])[1]
                for field, name in (("ratelimit-policy", "q"), ("ratelimit", "r"))
            )
            # The request that asks is one in flight itself.
            return int(now) + 1 == int(most) and fields["x-ratelimit-remaining-tokens"]

        return int(until(settled))

    def charged(self, key, call):
        """Return what `call` returns, and the tokens that its account paid for it."""
        before = self.left(key)
        value = call()
        return value, before - self.left(key)


@contextmanager
def started(path, folder, place=None, **environ):
    """Run a file's command on a free port; `place` says how its port is given, if not as usual."""
    words = shlex.split(command_of(path))
    port = free_port()
    stated = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        stated[name] = value
    words += (place or PLACES[words[0]]).format(port).split()
    environment = {
        **os.environ,
        **stated,
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "PYTHONUNBUFFERED": "1",
        **environ,
    }
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        example = Example(port, log)
        try:
            until(lambda: _answers(example) or process.poll() is not None)
            assert process.poll() is None, example.log()
            yield example
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(example):
    try:
        return httpx.get(f"{example.url}/health", timeout=PATIENCE).status_code == 200
    except httpx.HTTPError:
        return False
