"""What every test shares: settings that keep it repeatable, and where private data is."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.rewriting import rewrite_ahead
from tests.silence import (
    Scratch,
    _no_task_is_lost,
    _no_task_was_lost,
    _nothing_watches_on,
    tasks_lost_since,
)

__all__ = ["_no_task_is_lost", "_no_task_was_lost", "_nothing_watches_on"]

SCRATCH = Scratch()
LEFT: list[str] = []

LONG = (
    "test_docs.py http/test_readers.py signals/test_failing_service.py http/test_hostile.py "
    "http/test_parsing_hostile.py pages/test_in_a_browser.py http/test_metrics.py "
    "hosts/test_workers.py analysis/test_comparing.py examples/test_ci.py http/test_leaks.py "
    "examples/test_fuzzing.py loading/test_language_mutations.py test_benchmarks.py "
    "http/test_body_cost.py stores/test_redis_sentinel.py hosts/test_starting.py "
    "loading/test_yaml_hostile.py replay/test_traces.py"
).split()
"""Files with the longest tests: they come first, for none to be left to one worker at the end."""

RARELY = 10_000, 20, 50
"""How much is made between two searches for garbage."""

# What tests start, as servers and commands, takes a warning for an error as they do themselves.
os.environ.setdefault("PYTHONWARNINGS", "error")

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


def pytest_configure(config: pytest.Config) -> None:
    """Compile the tests before workers are started."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        rewrite_ahead(config, processors())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what is collected, which lives to the end, out of every search for garbage.

    What tests make is searched less often than usual, which would take a twelfth of their time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*RARELY)
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return one worker more than there are processors: a quarter of the time tests only wait."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 1 + processors()


def processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the longest tests first, those with the longest of all before others."""
    here = Path(__file__).parent
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves anything behind in the temporary folder, or a task nobody awaits."""
    left = SCRATCH.left() + tasks_lost_since()
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["left"] = left
    LEFT.extend(left)
    if LEFT and told is None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take note of what a worker has left behind."""
    LEFT.extend(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what was left behind."""
    if LEFT:
        terminalreporter.section("left behind: files in the temporary folder, or tasks", red=True)
        terminalreporter.line(", ".join(sorted(LEFT)))
