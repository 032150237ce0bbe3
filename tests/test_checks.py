"""The 64 numbered checks of an HTTP door: each is a test, or several, and none is missing.

`pytest --collect-only -q | grep check_` lists them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
NAME = re.compile(r"test_check((?:_[0-9]{2})+)_[a-z]")

ON_REAL_SERVERS = {2, 6, 8, 11, 19, 23, 29, 30, 34, 35, 41, 43, 49, 51, 52}
"""Those that are most often got wrong: they also run against uvicorn, gunicorn and hypercorn."""


def checks() -> Iterator[tuple[int, str]]:
    """Yield the number of each check, and the module it is tested in."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found = NAME.match(node.name) if isinstance(node, ast.FunctionDef) else None
            if found is not None:
                yield from ((int(number), path.stem) for number in found[1].split("_")[1:])


def test_no_check_is_missing():
    assert {number for number, _ in checks()} == set(range(1, 65))


def test_what_is_most_often_got_wrong_runs_on_real_servers():
    real = {
        number for number, module in checks() if module in ("test_servers", "test_real_clients")
    }

    assert real >= ON_REAL_SERVERS
