"""Change the package in one small place at a time, and see whether a test fails.

Run by hand, in two steps: note once which tests run which lines (`build/mutants_lines`), with
folders of tests that run the package in their own process; then draw, change and test:

    .venv/bin/python -m pytest -p scripts.mutants_tests --note-lines build/mutants_lines FOLDERS
    .venv/bin/python -m scripts.mutants --draw 400
    .venv/bin/python -m scripts.mutants --draw 60 --only engine stores guard
    .venv/bin/python -m scripts.mutants --report

The draw is the same for the same seed, and hardly another where the code has changed elsewhere.
What was found goes to a file of JSON lines, and a second run goes on from there. Each worker has a
copy of the tree in the temporary folder. A mutant is tested by the tests that ran its statement,
half by time of its own room, and of each test function the cheapest first, for at most `ENOUGH`
seconds of what they took when they were noted. It is killed by a test that fails, by an error, or
by time: its tests take far longer than they should. Those that change nothing that anyone could
see are listed with the reason in `mutants_equivalent.txt`: the mutant's name, a colon, why.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.txt")
COPIED = (
    "benchmarks", "docs", "examples", "guardrail", "policies", "scripts", "tests",
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "NOTICE", "README.md",
    "pyproject.toml",
)  # fmt: skip
ENOUGH = 75.0
"""Seconds that a mutant's tests may have taken when they were noted, all together."""

AT_ONCE = 8.0
"""Seconds of tests that are run first, of as few files as `FILES`: most mutants go no further."""

FILES = 4


def longest(seconds: float) -> float:
    """Return after how many seconds tests that took so many have killed a mutant by time."""
    return 4 * seconds + 30


WEIGHTS = {
    "engine": 3.0,
    "stores": 3.0,
    "guard": 3.0,
    "http/delays": 3.0,
    "http/enforcer": 3.0,
    "http/flow": 3.0,
    "http/leases": 3.0,
    "http/recorder": 3.0,
    "http/request": 3.0,
    "http/response": 3.0,
    "http/meter": 3.0,
}
"""How much more often a room's mutants are drawn than those of others."""


class Mutant(NamedTuple):
    """One change: the text between two offsets of a file is another one."""

    name: str
    path: str
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str


_SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt,
    ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
_SUMS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_ENDS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    text = path.read_text(encoding="utf-8")
    where = path.relative_to(ROOT / "guardrail").as_posix()
    starts = [0]
    for row in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(row.encode()))
    data = text.encode()
    seen: Counter[str] = Counter()
    for scope, node in _nodes(ast.parse(text), ""):
        start = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        old = data[start:end].decode()
        for kind, new in _changes(node):
            brief = f"{scope or 'module'} {kind} {' '.join(old.split())} -> {' '.join(new.split())}"
            seen[brief] += 1
            name = f"{where} {hashlib.sha256(f'{brief} {seen[brief]}'.encode()).hexdigest()[:10]}"
            yield Mutant(name, where, node.lineno, kind, start, end, old, new)  # type: ignore[attr-defined]


def _nodes(tree: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes that run, with the function or class they stand in; no annotations."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.JoinedStr):
                continue  # messages
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            inner = f"{scope}.{child.name}".strip(".") if named else scope  # type: ignore[attr-defined]
            if hasattr(child, "lineno"):
                yield inner, child
            yield from _nodes(child, inner)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what may stand for a node instead."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for kind, table in (("comparison", _SWAPS), ("boundary", _BOUNDARIES)):
            other = table.get(type(node.ops[0]))
            if other is not None:
                yield kind, f"({ast.unparse(ast.Compare(node.left, [other()], node.comparators))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", f"(bool({ast.unparse(node.operand)}))"
    elif isinstance(node, ast.BoolOp):
        op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", f"({ast.unparse(ast.BoolOp(op, node.values))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        if not any(
            isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node)
        ):
            yield (
                "sum",
                f"({ast.unparse(ast.BinOp(node.left, _SUMS[type(node.op)](), node.right))})",
            )
    elif isinstance(node, ast.AugAssign) and type(node.op) in _SUMS:
        new = ast.AugAssign(node.target, _SUMS[type(node.op)](), node.value)
        yield "sum", ast.unparse(new)
        yield "statement", "pass"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "constant", repr(not node.value)
        elif isinstance(node.value, int):
            yield "constant", f"({node.value + 1})"
            if node.value:
                yield "constant", f"({node.value - 1})"
        elif isinstance(node.value, float):
            yield "constant", repr(node.value * 2 + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ENDS:
        name = ast.Name(_ENDS[node.func.id])
        yield "min/max", ast.unparse(ast.Call(name, node.args, node.keywords))
    elif isinstance(node, ast.IfExp):
        yield "branch", f"({ast.unparse(node.body)})"
        yield "branch", f"({ast.unparse(node.orelse)})"
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "returned", "return None"
    elif _is_left_out(node):
        yield "statement", "pass"


def _is_left_out(node: ast.AST) -> bool:
    """Tell whether a statement may be missing without a name being missing."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    return isinstance(node, ast.Raise | ast.Continue | ast.Break | ast.Delete)


def drawn(seed: int, many: int, only: Sequence[str]) -> list[Mutant]:
    """Return so many mutants, by weight; each one's luck depends on its name and the seed alone."""
    found: list[tuple[float, Mutant]] = []
    for path in sorted((ROOT / "guardrail").rglob("*.py")):
        for mutant in mutants_of(path):
            if only and not any(mutant.path.startswith(room) for room in only):
                continue
            digest = hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()
            chance = (int.from_bytes(digest[:8], "big") + 1) / 2**64
            weight = max(
                (w for room, w in WEIGHTS.items() if mutant.path.startswith(room)), default=1
            )
            found.append((chance ** (1 / weight), mutant))
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [mutant for _, mutant in found[:many]]


class Test(NamedTuple):
    """A test that passes, and the seconds it took when it was noted."""

    name: str
    seconds: float

    @property
    def function(self) -> str:
        """Return its name without its parameters."""
        return self.name.partition("[")[0]

    @property
    def file(self) -> str:
        """Return the file it stands in."""
        return self.name.partition("::")[0]


class Lines:
    """Which tests ran which statements of the package."""

    def __init__(self, folder: Path) -> None:
        self._tests: list[Test] = []
        self._ran: dict[str, dict[int, list[int]]] = {}
        noted: set[str] = set()
        # What was noted last holds.
        for path in sorted(folder.rglob("*.jsonl"), key=os.path.getmtime, reverse=True):
            for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
                if row["test"] in noted:
                    continue
                noted.add(row["test"])
                for module, lines in row["ran"].items():
                    by_line = self._ran.setdefault(module, {})
                    for line in lines:
                        by_line.setdefault(line, []).append(len(self._tests))
                self._tests.append(Test(row["test"], row["seconds"]))
        self._texts = {
            module: (ROOT / "guardrail" / module).read_text(encoding="utf-8")
            for module in self._ran
        }

    @property
    def files(self) -> set[str]:
        """Return the files that the tests stand in."""
        return {test.file for test in self._tests}

    def tests_of(self, mutant: Mutant) -> list[Test]:
        """Return the tests that a mutant has to fail, in the order in which they are run."""
        found: set[int] = set()
        for module, lines in self._reached(mutant):
            by_line = self._ran.get(module, {})
            found.update(*(by_line.get(line, ()) for line in lines))
        if not found:  # any test of the module
            found.update(*self._ran.get(mutant.path, {}).values())
        seen: Counter[str] = Counter()
        room = mutant.path.partition("/")[0].removesuffix(".py")
        ranked: list[tuple[int, float, Test]] = []
        for test in sorted(map(self._tests.__getitem__, found), key=lambda t: (t.seconds, t.name)):
            ranked.append((seen[test.function], test.seconds, test))
            seen[test.function] += 1
        tests = [test for *_, test in sorted(ranked)]
        taken: dict[Test, None] = {}
        for part in ([test for test in tests if room in test.file], tests):
            left = ENOUGH / 2
            for test in part:
                if test not in taken and test.seconds <= left:
                    taken[test] = None
                    left -= test.seconds
        return list(taken)

    def _reached(self, mutant: Mutant) -> Iterator[tuple[str, Sequence[int]]]:
        """Yield the lines whose tests tell of a mutant, each module's with its name."""
        path = ROOT / "guardrail" / mutant.path
        within: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
        function: ast.AST | None = None
        names: set[str] = set()
        while True:
            inner = next((n for n in _statements(within) if _spans(n, mutant.line)), None)
            if inner is None:
                break
            within = inner
            if isinstance(within, ast.FunctionDef | ast.AsyncFunctionDef):
                function = within
            if function is None:
                names |= set(_bound(within))
        if function is within:  # its defaults
            yield mutant.path, range(within.lineno, (within.end_lineno or 0) + 1)  # type: ignore[attr-defined]
        elif function is not None:
            yield mutant.path, [within.lineno]  # type: ignore[attr-defined]
        elif names:
            words = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
            for module, text in self._texts.items():
                rows = enumerate(text.splitlines(), 1)
                yield module, [at for at, row in rows if words.search(row)]


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements right within a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from _statements(child)


def _spans(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement of a module or a class binds."""
    if isinstance(node, ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


class Tree:
    """A copy of the tree, in which one file at a time is another."""

    def __init__(self, folder: Path, lines: Lines) -> None:
        self.folder = folder
        self._lines = lines
        self._moment = time.time()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / name)
        asked, ask = os.pipe()
        answer, told = os.pipe()
        self._ask, self._answer = os.fdopen(ask, "w"), os.fdopen(answer)
        self._serving = self._run_pytest(
            "--serve",
            f"{asked},{told}",
            *sorted(lines.files),
            out=(folder / "served.txt").open("wb"),
            scratch="served",
            pass_fds=(asked, told),
        )
        os.close(asked)
        os.close(told)
        self._answer.readline()

    def close(self) -> None:
        """End the server."""
        self._ask.close()
        self._serving.wait()

    def run(self, mutant: Mutant) -> dict[str, object]:
        """Run the tests that a mutant has to fail; return what came of it."""
        path = self.folder / "guardrail" / mutant.path
        data = path.read_bytes()
        changed = data[: mutant.start] + mutant.new.encode() + data[mutant.end :]
        tests = self._lines.tests_of(mutant)
        began = time.monotonic()
        status, told = self._served(path, data, changed, tests)
        if status == "cannot":
            self._write(path, changed)
            try:
                status, told = self._tested(tests)
            finally:
                self._write(path, data)
        return {
            **mutant._asdict(),
            "status": status,
            "by": told,
            "seconds": round(time.monotonic() - began, 1),
        }

    def _write(self, path: Path, data: bytes) -> None:
        # Compiled modules are told apart by whole seconds and sizes.
        self._moment += 2
        path.write_bytes(data)
        os.utime(path, (self._moment, self._moment))

    def _tested(self, tests: Sequence[Test]) -> tuple[str, str]:
        """Run a few of the tests, then the others."""
        first: list[Test] = []
        for test in tests:
            files = {each.file for each in [*first, test]}
            if len(files) <= FILES and sum(each.seconds for each in [*first, test]) <= AT_ONCE:
                first.append(test)
        status, told = "survived", "no test runs it"
        for part in (first, [test for test in tests if test not in set(first)]):
            if part and status == "survived":
                status, told = self._test(part)
        return status, told

    def _served(self, path: Path, old: bytes, new: bytes, tests: Sequence[Test]) -> tuple[str, str]:
        """Run tests in a child of the server; `cannot` where the change is not in a function."""
        asked = {
            "path": str(path),
            "old": old.decode(),
            "new": new.decode(),
            "tests": [test.name for test in tests],
            "limit": longest(sum(test.seconds for test in tests)),
        }
        if not tests:
            return "survived", "no test runs it"
        self._ask.write(json.dumps(asked) + "\n")
        self._ask.flush()
        told = str(json.loads(self._answer.readline()))
        if told == "cannot":
            return told, ""
        return ("survived" if told.startswith("passed") else "killed"), told[:200]

    def _run_pytest(
        self, *more: str, out: BinaryIO, scratch: str, **others: Any
    ) -> subprocess.Popen[bytes]:
        shutil.rmtree(self.folder / scratch, ignore_errors=True)
        (self.folder / scratch).mkdir()
        around = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "TMPDIR": str(self.folder / scratch),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take four times as long to start
        }
        start = (sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=line")
        plugins = ("-p", "scripts.mutants_tests", "-p", "no:cacheprovider")
        return subprocess.Popen(
            [*start, *plugins, *more],
            cwd=self.folder,
            env=around,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **others,
        )

    def _test(self, tests: Sequence[Test]) -> tuple[str, str]:
        """Run tests in a process of their own."""
        chosen = self.folder / "chosen.txt"
        chosen.write_text("\n".join(test.name for test in tests), encoding="utf-8")
        out = (self.folder / "out.txt").open("w+b")
        limit = longest(sum(test.seconds for test in tests))
        files = dict.fromkeys(test.file for test in tests)
        running = self._run_pytest("--chosen", str(chosen), *files, out=out, scratch="tmp")
        try:
            code: int | None = running.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        out.seek(0)
        lines = out.read().decode("utf-8", "replace").splitlines()
        out.close()
        if code is None:
            return "killed", f"time ({limit:.0f} s)"
        failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        if code == 0:
            return "survived", lines[-1] if lines else ""
        return "killed", (failed or lines or [str(code)])[-1][:200]


def equivalents() -> dict[str, str]:
    """Return the mutants that change nothing, each with the reason."""
    found = {}
    rows = EQUIVALENT.read_text(encoding="utf-8").splitlines() if EQUIVALENT.exists() else []
    for row in rows:
        name, sign, why = row.partition(": ")
        if sign and not row.startswith("#"):
            found[name] = why
    return found


def report(rows: Sequence[dict[str, object]]) -> None:
    """Print how many were killed, by room, and what survived."""
    same = equivalents()
    by_room: dict[str, Counter[str]] = {}
    for row in rows:
        status = str(row["status"])
        if status == "survived" and str(row["name"]) in same:
            status = "equivalent"
        parts = str(row["path"]).split("/")
        room = "/".join(parts[:2]) if parts[0] in ("http", "stores") else parts[0]
        by_room.setdefault(room.removesuffix(".py"), Counter())[status] += 1
        if status == "survived":
            print(row["name"], "line", row["line"], row["kind"])
            print(f"    {row['old']}  ->  {row['new']}")
    total: Counter[str] = Counter()
    for room, counts in sorted(by_room.items()):
        total += counts
        print(f"{room:20} {dict(counts)}")
    counted = total["killed"] + total["survived"]
    share = 100 * total["killed"] / counted if counted else 0.0
    print(f"all: {dict(total)}; killed without equivalents: {share:.1f} %")


def main() -> None:
    """Draw mutants and run their tests, or report what was found."""
    words = argparse.ArgumentParser(description="Change the code; see whether tests fail.")
    words.add_argument("--draw", type=int, default=400)
    words.add_argument("--seed", type=int, default=20261129)
    words.add_argument("--only", nargs="*", default=[], help="rooms, as `engine` or `stores/redis`")
    words.add_argument("--lines", type=Path, default=ROOT / "build" / "mutants_lines")
    words.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.jsonl")
    words.add_argument("--jobs", type=int, default=2)
    words.add_argument("--again", action="store_true", help="run again what survived before")
    words.add_argument("--report", action="store_true")
    given = words.parse_args()
    rows = _read(given.out)
    if not given.report:
        known = {
            name for name, row in rows.items() if not (given.again and row["status"] == "survived")
        }
        known |= set(equivalents())
        waiting = [m for m in drawn(given.seed, given.draw, given.only) if m.name not in known]
        _run_all(waiting, Lines(given.lines), given.out, given.jobs)
    report(list(_read(given.out).values()))


def _read(path: Path) -> dict[str, dict[str, object]]:
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {str(row["name"]): row for row in map(json.loads, rows)}


def _run_all(waiting: list[Mutant], lines: Lines, path: Path, jobs: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    waiting.reverse()

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as name:
            tree = Tree(Path(name).resolve(), lines)
            while True:
                with lock:
                    if not waiting:
                        break
                    mutant = waiting.pop()
                row = tree.run(mutant)
                with lock, path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")
                    print(
                        f"{row['status']:9} {row['seconds']:6} s  {row['name']}  {row['by']}",
                        flush=True,
                    )
            tree.close()

    workers = [threading.Thread(target=work) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
