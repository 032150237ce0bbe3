"""Which tests run which lines of the package, and a run of some of them: for `scripts.mutants`.

A plugin of pytest. With `--note-lines FOLDER` it writes a JSON line for each test that passes: its
name, the seconds it takes, and the lines of each module whose statements it runs in this process.
With `--chosen FILE` it runs the tests that the file names, in its order, and no others.
"""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import CodeType, ModuleType

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options; the notes have to be there before the package is imported."""
    parser.addoption("--note-lines", type=Path)
    parser.addoption("--chosen", type=Path)
    if any(word.startswith("--note-lines") for word in sys.argv) or os.environ.get("NOTE_LINES"):
        os.environ["NOTE_LINES"] = "1"  # for the workers of xdist
        sys.meta_path.insert(0, _Finding())


def pytest_configure(config: pytest.Config) -> None:
    """Start what the options ask for."""
    notes, chosen = config.getoption("--note-lines"), config.getoption("--chosen")
    shared_out = config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    if notes is not None and not shared_out:
        config.pluginmanager.register(Notes(notes))
    if chosen is not None:
        names = chosen.read_text(encoding="utf-8").splitlines()
        config.pluginmanager.register(Chosen(names))
