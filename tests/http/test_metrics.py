"""The counts of decisions as a scrape sees them: one path, over all workers of a host."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException

import pytest

from guardrail.asgi import GuardrailMiddleware
from guardrail.errors import SettingError
from guardrail.http import counts
from guardrail.http.counts import Counts, SharedCounts
from guardrail.http.settings.build import configure
from guardrail.wsgi import GuardrailMiddleware as WsgiMiddleware
from tests.http.documented import DOCUMENT
from tests.http.driving import JSON, Guarded, Host, ask, completion
from tests.stores.servers import eventually, free_port

POLICY = """
guardrail: 1
policy: counted
rules:
  - {id: closed, when: {request.model: closed}, unknown: skip, block: {reason: closed}}
  - {id: calls, when: always, rate: {requests: 1000/day, key: global}}
"""
TOKEN = "t" * 32
SETTINGS = {"metrics": "/metrics", "environ": {"GUARDRAIL_METRICS_TOKEN": TOKEN}}
BEARER = [(b"authorization", f"Bearer {TOKEN}".encode())]
COUNTS_IN_A_CHILD = """
import sys
from pathlib import Path
from guardrail.http.counts import SharedCounts
counts = SharedCounts(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    counts.counter("a_total", "a_total")()
counts.put({"b": 7})
print("counted", flush=True)
sys.stdin.read()
"""


def test_a_scrape_with_the_token_is_told_the_counts_and_not_counted_itself():
    door = Guarded(POLICY, **SETTINGS)
    door.ask()
    call = door.ask(path="/metrics", method="GET", body=b"", key=None, headers=BEARER)

    assert call.status == 200
    assert b'guardrail_decisions_total{decision="allow"' in call.body
    assert (
        door.ask(path="/metrics", method="GET", body=b"", key=None, headers=BEARER).body
        == call.body
    )


def test_the_document_has_every_series_and_no_other(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    door = GuardrailMiddleware(
        Host([completion()], headers=JSON),
        policies=tmp_path / "policy.yaml",
        store="memory://",
        environ={},
    )
    ask(door)
    ask(door, b"{")
    told = set(re.findall(r"`(guardrail_[a-z_]+)`", DOCUMENT.read_text("utf-8")))

    assert told == set(re.findall(r"^# TYPE (\w+)", door.metrics(), re.MULTILINE))


@pytest.mark.parametrize(
    "headers", [[], [(b"authorization", b"Bearer wrong")], BEARER * 2, [(b"authorization", b"")]]
)
def test_without_the_token_the_path_is_the_hosts_and_guarded_like_any_other(headers):
    door = Guarded(POLICY, **SETTINGS)
    call = door.ask(path="/metrics", method="GET", body=b"", key=None, headers=headers)

    assert b"guardrail_decisions_total" not in call.body


def test_a_path_for_scrapes_needs_a_token(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    with pytest.raises(SettingError, match="set `GUARDRAIL_METRICS_TOKEN` to the bearer token"):
        configure({"policies": tmp_path, "metrics": "/metrics", "environ": {}})


def test_a_folder_that_cannot_be_written_to_fails_the_start(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="`metrics_dir` is"):
        configure({"policies": tmp_path, "metrics_dir": tmp_path / "file", "environ": {}})


@contextmanager
def child(folder, events):
    """Count in another process until the block ends."""
    command = [sys.executable, "-c", COUNTS_IN_A_CHILD, str(folder), str(events)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def own(tmp_path):
    """Counts in a folder that other processes share."""
    with closing(SharedCounts(tmp_path)) as counted:
        yield counted


def test_any_process_tells_the_sum_over_all_and_an_ended_one_is_not_forgotten(own, tmp_path):
    own.counter("a_total", "a_total")()
    own.put({"b": 3, "c_total": 2})
    with child(tmp_path, 5), child(tmp_path, 20):
        assert own.totals() == {"a_total": 26, "b": 7, "c_total": 2}

    # What went up stays when a process is killed; what goes up and down goes with it.
    for _ in range(2):
        assert own.totals() == {"a_total": 26, "b": 3, "c_total": 2}
    assert len(list(tmp_path.glob("*.counts"))) == 1
    with child(tmp_path, 4):
        assert own.totals()["a_total"] == 30


def test_after_a_fork_a_process_counts_into_a_file_of_its_own(own):
    own.counter("a_total", "a_total")()
    forked = os.fork()
    if not forked:
        own.counter("a_total", "a_total")()
        os._exit(0)
    os.waitpid(forked, 0)
    own.counter("a_total", "a_total")()

    assert own.totals() == {"a_total": 3}


@pytest.mark.parametrize("kind", ["cut short", "gone"])
def test_a_folder_that_cannot_be_used_any_more_stops_no_request_and_is_told_once(
    own, tmp_path, caplog, kind
):
    own.counter("a_total", "a_total")()
    if kind == "gone":
        shutil.rmtree(tmp_path)
    else:
        (file,) = tmp_path.glob("*.counts")
        os.truncate(file, 0)
    for _ in range(2):
        own.counter("a_total", "a_total")()
        own.put({"b": 4})

    for _ in range(2):
        assert own.totals() == {"a_total": 3, "b": 4}
    assert caplog.text.count("cannot be shared") == (kind == "gone")


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_of_too_many_series_the_coarser_ones_count(kind, own, monkeypatch):
    monkeypatch.setattr(counts, "MOST_SERIES", 3)
    counted = Counts() if kind == "alone" else own
    for number in range(5):
        counted.counter(f'a_total{{n="{number}"}}', "a_total")()
    counted.counter('a_total{n="0"}', "a_total")()

    found = counted.totals()
    assert found["a_total"] == 2
    assert sum(found.values()) == 6


def test_counts_are_not_raised_by_those_who_look_at_them():
    counted = Counts()
    one = counted.counter("a_total", "a_total")
    for _ in range(3):
        one()
        counted.totals()
    other = counted.counter("b_total", "b_total")
    other()
    counted.counter("a_total", "a_total")()
    counted.counter("c_total", "c_total")

    for _ in range(2):
        assert counted.totals() == {"a_total": 4, "b_total": 1}


ASGI = """
import os
from fastapi import FastAPI
from guardrail.asgi import GuardrailMiddleware
app = FastAPI()
app.add_middleware(GuardrailMiddleware, policies="p.yaml", metrics="/metrics", metrics_dir="counts")
@app.get("/v1/models")
def models(): return {"process": os.getpid()}
"""
WSGI = """
import os
from flask import Flask
from guardrail.wsgi import GuardrailMiddleware
app = Flask("host")
app.wsgi_app = GuardrailMiddleware(
    app.wsgi_app, policies="p.yaml", metrics="/metrics", metrics_dir="counts")
@app.get("/v1/models")
def models(): return {"process": os.getpid()}
"""
LOST = "lost"
SERVERS = {
    "uvicorn": (ASGI, "uvicorn host:app --port {port} --workers 3 --log-level error"),
    "gunicorn": (WSGI, "gunicorn host:app --workers 3 --bind 127.0.0.1:{port}"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_whichever_worker_is_scraped_the_counts_are_those_of_all(tmp_path, server):
    text, command = SERVERS[server]
    (tmp_path / "host.py").write_text(text)
    (tmp_path / "p.yaml").write_text(POLICY)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *command.format(port=port).split()],
        cwd=tmp_path,
        env={**os.environ, "GUARDRAIL_METRICS_TOKEN": TOKEN, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def get(path, **headers):
        try:
            with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
                connection.request("GET", path, headers=headers)
                return connection.getresponse().read().decode()
        except ConnectionRefusedError:
            return ""
        except (OSError, HTTPException):
            return LOST  # it may have been served all the same

    try:
        seen: list[str] = []

        def two_workers_served():
            seen.append(get("/v1/models"))
            return len({*seen} - {"", LOST}) > 1

        eventually(two_workers_served, 60)
        answered = sum(answer not in ("", LOST) for answer in seen)
        counted = re.compile(r'guardrail_decisions_total\{decision="allow".* (\d+)')
        found = [
            int(counted.findall(get("/metrics", Authorization=f"Bearer {TOKEN}"))[0])
            for _ in range(12)
        ]
    finally:
        process.terminate()
        process.wait()

    assert found == [found[0]] * 12
    assert answered <= found[0] <= answered + seen.count(LOST)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_how_reloads_went_is_told_by_whichever_worker_is_scraped(kind, tmp_path):
    policies = tmp_path / "p.yaml"
    policies.write_text(POLICY)
    door = {"asgi": GuardrailMiddleware, "wsgi": WsgiMiddleware}[kind]
    settings = {"policies": policies, "metrics_dir": tmp_path / "counts", "store": "memory://"}
    worker, scraped = (door(Host(), environ={}, **settings) for _ in range(2))
    worker.door.guard.warnings(now=0.0)

    def done(outcome):
        return asyncio.run(outcome) if kind == "asgi" else outcome

    def told():
        figures = dict(line.rsplit(" ", 1) for line in scraped.metrics().splitlines())
        names = ('reloads_total{result="loaded"}', 'reloads_total{result="failed"}', "stale")
        return [int(figures[f"guardrail_policy_{name}"]) for name in names]

    policies.write_text("no policies")
    done(worker.reload())
    assert told() == [0, 1, 1]
    policies.write_text(POLICY)
    done(worker.reload())
    assert told() == [1, 1, 0]
    done(worker.door.close())
    assert told() == [1, 1, 0]
    done(scraped.door.close())
