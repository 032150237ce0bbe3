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
    threads_busy_since,
)

__all__ = ["_no_task_is_lost", "_no_task_was_lost", "_nothing_watches_on"]

SCRATCH = Scratch()
LEFT: list[str] = []

LONG = {
    "test_docs.py": 95,
    "http/test_hostile.py": 50,
    "pages/test_in_a_browser.py": 43,
    "hosts/test_workers.py": 28,
    "examples/test_fuzzing.py": 28,
    "http/test_parsing_hostile.py": 27,
    "engine/test_inline.py": 26,
    "stores/test_redis_epochs.py": 25,
    "test_benchmarks.py": 25,
    "cli/test_scale.py": 24,
    "loading/test_language_mutations.py": 23,
    "analysis/test_comparing.py": 22,
    "engine/test_goldens.py": 19,
    "loading/test_yaml_hostile.py": 19,
    "examples/test_ci.py": 17,
    "test_examples.py": 15,
    "stores/test_redis_processes.py": 14,
    "http/test_leaks.py": 14,
    "engine/test_rows.py": 14,
    "test_house.py": 14,
    "analysis/test_bound.py": 13,
    "cli/test_streams.py": 13,
    "stores/test_redis_sentinel.py": 12,
    "hosts/test_starting.py": 12,
    "http/test_readers.py": 11,
    "test_site.py": 11,
    "http/test_metrics.py": 10,
    "stores/test_redis_cluster_failures.py": 10,
    "replay/test_traces.py": 10,
    "test_policies.py": 9,
}
"""Files with the longest tests, and how many seconds those take, the longest first."""

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


@pytest.fixture(scope="session")
def anthropic() -> Any:
    """The SDK: its import takes seconds, which only those who run its tests shall wait for."""
    import anthropic

    return anthropic


@pytest.fixture(scope="session")
def openai() -> Any:
    """The other SDK, for the same reason."""
    import openai

    return openai


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files with the longest tests first in what each worker is given to start with.

    A worker gets the next part of the list, as many tests as each other, and one that has no more
    takes tests from the end of another's: none is to be left with a long one then.
    """
    here = Path(__file__).parent
    by_file: dict[str, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path.relative_to(here).as_posix(), []).append(item)
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    taken = [0] * workers
    for name, seconds in LONG.items():
        least = taken.index(min(taken))
        taken[least] += seconds
        parts[least] += by_file.pop(name, [])
    rest = [item for those in by_file.values() for item in those]
    for number, part in enumerate(parts):
        size = len(items) * (number + 1) // workers - len(items) * number // workers
        more = max(0, size - len(part)) if number + 1 < workers else len(rest)
        part += rest[:more]
        del rest[:more]
    items[:] = [item for part in parts for item in part]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves anything behind: files, a task nobody awaits, a thread at work."""
    left = SCRATCH.left() + tasks_lost_since() + threads_busy_since()
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
        terminalreporter.section(
            "left behind: files in the temporary folder, tasks, or threads", red=True
        )
        terminalreporter.line(", ".join(sorted(LEFT)))
