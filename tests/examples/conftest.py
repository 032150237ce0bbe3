"""The FastAPI example, running."""

from __future__ import annotations

import pytest

from tests.examples.starting import EXAMPLES, started


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The FastAPI example on uvicorn, started as its file says."""
    folder = tmp_path_factory.mktemp("fastapi")
    with started(EXAMPLES / "server" / "fastapi_app.py", folder) as running:
        yield running
