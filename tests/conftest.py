"""What every test shares: settings that keep it repeatable, and where private data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of recorded traces and conformance suites, which is not part of the project."""
    folder = os.environ.get("GUARDRAIL_TEST_DATA")
    if not folder:
        pytest.skip("GUARDRAIL_TEST_DATA does not name the folder of private test data")
    return Path(folder)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the caller's shell says to guardrail out of the tests."""
    for name in os.environ:
        if name.startswith("GUARDRAIL_") and name != "GUARDRAIL_TEST_DATA":
            monkeypatch.delenv(name)
