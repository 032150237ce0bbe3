"""A folder of their own, and real servers that the tests of a whole run share, one of a kind."""

from __future__ import annotations

import pytest

from tests.http.servers import ASGI, COMMANDS, MORE, POLICY, PROXIES, serving, started_once


@pytest.fixture(scope="session")
def nowhere(tmp_path_factory):
    """A folder without a `pyproject.toml`, below none that has one."""
    return tmp_path_factory.mktemp("nowhere")


@pytest.fixture(autouse=True)
def _own_folder(nowhere, monkeypatch):
    """Keep the project's own `pyproject.toml` out: each middleware that is made would read it."""
    monkeypatch.chdir(nowhere)


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Return a function that gives each kind of server, started when it is first asked for."""

    def start(kind):
        return serving(kind, tmp_path_factory.mktemp(kind), POLICY, PROXIES, MORE.get(kind, ""))

    with started_once(start) as get:
        yield get


@pytest.fixture(params=COMMANDS)
def server(request, servers):
    return servers(request.param)


@pytest.fixture(params=ASGI)
def asgi(request, servers):
    return servers(request.param)
