"""Which tests run which lines of the package, and a run of some of them: for `scripts.mutants`.

A plugin of pytest. With `--note-lines FOLDER` it writes a JSON line for each test that passes: its
name, the seconds it takes, and the lines of each module whose statements it runs in this process.
With `--chosen FILE` it runs the tests that the file names, in its order, and no others. With
`--serve IN,OUT` (descriptors) it imports all tests once and then, for each line of JSON that comes
in, runs some in a child of its own, in which the functions that a changed module has otherwise are
changed; this takes a tenth of the time of a new process.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import importlib.machinery
import inspect
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RAN: dict[str, bytearray] = {}
"""For each module the lines whose statements have run since the test began."""


class _Noting(importlib.machinery.SourceFileLoader):
    """Loads a module in whose functions each statement notes first that it runs."""

    def get_code(self, fullname: str) -> CodeType:
        text = Path(self.path).read_bytes()
        ran = bytearray(text.count(b"\n") + 2)
        name = "_ran_" + fullname.replace(".", "_")
        setattr(builtins, name, ran)
        RAN[Path(self.path).relative_to(ROOT / "guardrail").as_posix()] = ran
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                _note(node, name)
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


def _note(tree: ast.AST, name: str) -> None:
    """Put a note before each statement of a function that has none yet."""
    for field, value in ast.iter_fields(tree):
        if not isinstance(value, list) or not value:
            continue
        if isinstance(value[0], ast.stmt):
            body: list[ast.stmt] = []
            for at, row in enumerate(value):
                if isinstance(row, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    pass  # its own statements are noted where it is walked to
                else:
                    _note(row, name)
                told = at == 0 and isinstance(row, ast.Expr) and isinstance(row.value, ast.Constant)
                if not told and not isinstance(row, ast.Global | ast.Nonlocal):
                    line = ast.parse(f"{name}[{row.lineno}] = 1").body[0]
                    for part in ast.walk(line):
                        ast.copy_location(part, row)
                    body.append(line)
                body.append(row)
            setattr(tree, field, body)
        else:
            for part in value:
                if isinstance(part, ast.ExceptHandler | ast.match_case):
                    _note(part, name)


class _Finding:
    """Finds the package's modules, to be loaded with notes."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "guardrail":
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        if found is not None and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            found.loader = _Noting(found.loader.name, found.loader.path)
        return found


class Notes:
    """Writes what each test ran and how long it took."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        self._out = (folder / f"{worker}.{os.getpid()}.jsonl").open("w", encoding="utf-8")
        self._passed = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note what a test runs, with what sets it up and takes it down."""
        for ran in RAN.values():
            ran[:] = bytes(len(ran))
        self._passed = True
        began = time.monotonic()
        result = yield
        seconds = round(time.monotonic() - began, 4)
        if self._passed:
            lines = {
                path: [line for line, is_run in enumerate(ran) if is_run]
                for path, ran in RAN.items()
                if any(ran)
            }
            row = {"test": item.nodeid, "seconds": seconds, "ran": lines}
            self._out.write(json.dumps(row, separators=(",", ":")) + "\n")
            self._out.flush()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take note of a test that does not pass."""
        report = yield
        self._passed = self._passed and report.passed
        return report


class Chosen:
    """Runs some tests in an order of their own."""

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: at for at, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests, in order."""
        items[:] = [item for item in items if item.nodeid in self._place]
        items.sort(key=lambda item: self._place[item.nodeid])


class Serving:
    """Runs some of the tests for each module that is handed in changed."""

    def __init__(self, descriptors: str) -> None:
        asked, told = map(int, descriptors.split(","))
        self._asked, self._told = os.fdopen(asked), os.fdopen(told, "w")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer until nothing more is asked."""
        items = {item.nodeid: item for item in session.items}
        live: dict[CodeType, list[FunctionType]] = {}
        for each in gc.get_objects():
            # By its type alone: what stands for another object may fail to be looked at.
            if type(each) is FunctionType and "guardrail" in each.__code__.co_filename:
                live.setdefault(each.__code__, []).append(each)
        gc.collect()
        gc.freeze()
        context = multiprocessing.get_context("fork")
        self._tell("ready")
        for line in self._asked:
            asked = json.loads(line)
            receive, send = context.Pipe(duplex=False)
            chosen = [items[name] for name in asked["tests"] if name in items]
            child = context.Process(target=_serve, args=(asked, chosen, live, send))
            child.start()
            send.close()
            child.join(asked["limit"])
            if child.is_alive():
                told = f"time ({asked['limit']:.0f} s)"
            else:
                try:
                    told = receive.recv()
                except EOFError:
                    told = f"an end by {child.exitcode}"
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.killpg(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
            child.join()
            self._tell(told)
        return True

    def _tell(self, told: str) -> None:
        self._told.write(json.dumps(told) + "\n")
        self._told.flush()


class _First:
    """Remembers the first failure."""

    told = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.told:
            self.told = f"FAILED {report.nodeid}"


def _serve(
    asked: dict[str, Any],
    items: list[pytest.Item],
    live: dict[CodeType, list[FunctionType]],
    send: Connection,
) -> None:
    """Change the module and run the tests; send what came of it: `cannot`, `passed` or why not."""
    os.setsid()
    if not _changed(asked["path"], asked["old"], asked["new"], live):
        send.send("cannot")
        return
    first = _First()
    session = items[0].session
    session.config.pluginmanager.register(first)
    try:
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if first.told:
                break
    except BaseException as problem:  # what ends pytest
        send.send(f"{problem!r}")
        raise
    send.send(first.told or f"passed {len(items)}")
    session._setupstate.teardown_exact(None)


def _changed(path: str, old: str, new: str, live: dict[CodeType, list[FunctionType]]) -> bool:
    """Change the functions that differ between two texts of a module; False if that cannot be."""
    module = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", "") == path), 0)
    if not module:
        return False
    before, after = (compile(text, path, "exec", dont_inherit=True) for text in (old, new))
    pairs = list(zip(_outermost(before), _outermost(after), strict=True))
    changed = [pair for pair in pairs if _differ(*pair)]
    if len(changed) != 1:
        return False
    was, now = changed[0]
    if was not in live or any(inner in live for inner in _within(was)):
        return False
    try:
        for function in live[was]:
            function.__code__ = now
    except ValueError:  # it closes over other names
        return False
    return True


def _outermost(code: CodeType) -> Iterator[CodeType]:
    """Yield the functions of a module and its classes, not those within functions."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & inspect.CO_OPTIMIZED:
                yield inner
            else:
                yield from _outermost(inner)


def _within(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from _within(inner)


def _differ(one: CodeType, other: CodeType) -> bool:
    """Tell whether two functions do other things, wherever they stand."""
    if (one.co_code, one.co_names, one.co_varnames) != (
        other.co_code, other.co_names, other.co_varnames,
    ):  # fmt: skip
        return True
    if len(one.co_consts) != len(other.co_consts):
        return True
    for a, b in zip(one.co_consts, other.co_consts, strict=True):
        codes = isinstance(a, CodeType) and isinstance(b, CodeType)
        if _differ(a, b) if codes else (type(a), repr(a)) != (type(b), repr(b)):
            return True
    return False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; the notes have to be there before the package is imported."""
    parser.addoption("--note-lines", type=Path)
    parser.addoption("--chosen", type=Path)
    parser.addoption("--serve")
    if any(word.startswith("--note-lines") for word in sys.argv) or os.environ.get("NOTE_LINES"):
        os.environ["NOTE_LINES"] = "1"  # for the workers of xdist
        sys.meta_path.insert(0, _Finding())


def pytest_configure(config: pytest.Config) -> None:
    """Start what the options ask for."""
    notes, chosen = config.getoption("--note-lines"), config.getoption("--chosen")
    shared_out = config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    if notes is not None and not shared_out:
        config.pluginmanager.register(Notes(notes))
    if serve := config.getoption("--serve"):
        config.pluginmanager.register(Serving(serve))
    if chosen is not None:
        names = chosen.read_text(encoding="utf-8").splitlines()
        config.pluginmanager.register(Chosen(names))
