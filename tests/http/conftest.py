"""Real servers that the tests of a whole run share: each kind is started once a process."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.http.servers import ASGI, COMMANDS, MORE, POLICY, PROXIES, serving


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Return a function that gives each kind of server, started when it is first asked for."""
    with ExitStack() as stack:
        running = {}

        def get(kind):
            if kind not in running:
                folder = tmp_path_factory.mktemp(kind)
                started = serving(kind, folder, POLICY, PROXIES, MORE.get(kind, ""))
                running[kind] = stack.enter_context(started)
            return running[kind]

        yield get


@pytest.fixture(params=COMMANDS)
def server(request, servers):
    return servers(request.param)


@pytest.fixture(params=ASGI)
def asgi(request, servers):
    return servers(request.param)
