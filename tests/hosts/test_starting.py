"""What is wrong ends a server at its start, under every server's defaults, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.servers import free_port

APPS = {
    "asgi": """
from fastapi import FastAPI
from guardrail.asgi import GuardrailMiddleware
app = FastAPI()
app.add_middleware(GuardrailMiddleware, **OPTIONS)
""",
    "wsgi": """
from flask import Flask
from guardrail.wsgi import GuardrailMiddleware
app = Flask(__name__)
app.wsgi_app = GuardrailMiddleware(app.wsgi_app, **OPTIONS)
""",
}
SERVERS = {
    "uvicorn": ("asgi", "uvicorn host:app --port {port}"),
    "uvicorn, workers": ("asgi", "uvicorn host:app --port {port} --workers 2"),
    "hypercorn": ("asgi", "hypercorn host:app --bind 127.0.0.1:{port}"),
    "granian": ("asgi", "granian host:app --interface asgi --host 127.0.0.1 --port {port}"),
    "gunicorn, asgi": ("asgi", "gunicorn host:app -k asgi --bind 127.0.0.1:{port}"),
    "gunicorn": ("wsgi", "gunicorn host:app --bind 127.0.0.1:{port}"),
    "gunicorn, preloaded": ("wsgi", "gunicorn host:app --preload --bind 127.0.0.1:{port}"),
    "flask": ("wsgi", "flask --app host run --port {port}"),
}
# Hypercorn tells every failed start by a traceback of its own, and forgets it in its exit code, as
# uvicorn's supervisor of workers does.
OWN_TRACEBACK = {"hypercorn"}
OWN_CODE = {"hypercorn", "uvicorn, workers"}
POLICY = (
    "guardrail: 1\npolicy: p\nrules: [{id: a, when: always, rate: {requests: 9/day, key: global}}]"
)
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "policy": ({"policies": "broken"}, "unknown key `rulez`"),
    "setting": ({"policies": "policies", "store": "reddis://here"}, "did you mean `redis://"),
    "key": ({"policies": "policies", "hash_key": b"short"}, "the hash key has 5 bytes"),
    "directory": ({"policies": "policies", "directory": "lost.yaml"}, "lost.yaml"),
}


def ended(folder: Path, server: str, options: dict[str, object]) -> tuple[int, str]:
    """Start a server, and return its exit code and all that it printed."""
    kind, command = SERVERS[server]
    (folder / "host.py").write_text(f"OPTIONS = {options!r}\n{APPS[kind]}")
    done = subprocess.run(
        [sys.executable, "-m", *command.format(port=free_port()).split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.fixture
def folder(tmp_path):
    for name, text in (("policies", POLICY), ("broken", POLICY.replace("rules", "rulez"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("server", SERVERS)
def test_a_wrong_policy_ends_the_server_with_our_message_alone(folder, server):
    code, printed = ended(folder, server, WRONG["policy"][0])

    assert code != 0 or server in OWN_CODE
    assert WRONG["policy"][1] in printed
    assert "Traceback" not in printed or server in OWN_TRACEBACK


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
@pytest.mark.parametrize("wrong", ["setting", "key", "directory"])
def test_so_does_whatever_else_is_wrong(folder, server, wrong):
    options, message = WRONG[wrong]
    code, printed = ended(folder, server, options)

    assert code != 0
    assert message in printed
    assert "Traceback" not in printed
