"""Who may import whom: layers, purity, and the one room each third party lives in."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "guardrail"

# Rooms from the bottom up: a module imports from its own room and from lower layers only.
# Top-level private modules (`_name`) belong to the guard.
LAYERS = (
    ("errors",),
    ("model",),
    ("stores", "signals", "decisionlog"),
    ("engine", "loading"),
    ("links", "analysis"),
    ("guard",),
    ("testing", "traffic", "pages"),
    ("replay", "scenarios", "simulate", "http"),
    ("asgi", "wsgi", "cli"),
    ("hosts",),
    ("__init__", "__main__"),
)
HOSTS = frozenset({"http.litellm"})
"""Modules that put the middleware into a host: they stand above it, wherever their file is."""
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

PURE = frozenset({"model", "errors", "engine", "analysis"})
IMPURE_MODULES = frozenset(
    "asyncio builtins concurrent ctypes fcntl glob http importlib io locale logging mmap "
    "multiprocessing os pathlib platform queue random secrets select shutil signal socket sqlite3 "
    "ssl subprocess sys tempfile threading time urllib uuid warnings weakref".split()
)
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint", "__import__"})
CLOCKS = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
    }
)

# The modules (with all below them) that may import a third party.
HOMES: Mapping[str, tuple[str, ...]] = {
    "cachetools": ("signals",),
    "fastapi": ("http.fastapi", "http.litellm"),
    "hiredis": ("stores",),
    "httpx": ("signals",),
    "jwt": ("signals",),
    "limits": ("loading", "stores"),
    "litellm": ("http.litellm",),
    "lmdb": ("stores",),
    "maxminddb": ("signals.geo",),
    "msgspec": ("http", "replay", "stores", "traffic"),
    "pydantic": ("loading",),
    "pydantic_core": ("loading",),
    "python_multipart": ("http.parsing.forms",),
    "redis": ("stores",),
    "rich": ("cli",),
    "typer": ("cli",),
    "vl_convert": ("pages",),
    "yaml": ("loading",),
    "zstandard": ("replay", "traffic"),
}


class Module(NamedTuple):
    """One parsed module: its name below the package (`engine.plan`; `__init__` for the root)."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str:
        top = self.name.partition(".")[0]
        if self.name in HOSTS:
            return "hosts"
        return "guard" if top.startswith("_") and not top.startswith("__") else top


def parsed(package: Path) -> dict[str, Module]:
    """Return every module of a package by its name below it."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts) or "__init__"
        found[name] = Module(name, is_package, ast.parse(path.read_text("utf-8"), str(path)))
    return found


def imports(module: Module, modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield what a module imports, anywhere in it, as full dotted names of modules."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                depth = node.level - module.is_package
                parts = ["guardrail", *module.name.split(".")]
                base = ".".join([*parts[: len(parts) - depth], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner.removeprefix("guardrail.") in modules else base


def internal(module: Module, modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield the names, below the package, of the project's own modules that a module imports."""
    for name in imports(module, modules):
        if name == "guardrail":
            yield "__init__"
        elif name.startswith("guardrail."):
            yield name.removeprefix("guardrail.")


def upward_imports(modules: Mapping[str, Module]) -> Iterator[str]:
    """Find imports that do not go down, and rooms that stand in no layer."""
    for module in modules.values():
        if module.room not in RANKS:
            yield f"{module.name} is in no layer"
            continue
        for name in sorted(set(internal(module, modules))):
            target = modules.get(name)
            if target is None:
                yield f"{module.name} imports {name}, which does not exist"
            elif target.room != module.room and RANKS.get(target.room, -1) >= RANKS[module.room]:
                yield f"{module.name} imports {name}, which is not below it"


def cycles(modules: Mapping[str, Module]) -> Iterator[str]:
    """Find a cycle of imports, those inside functions and those for types alone included."""
    graph = {name: set(internal(module, modules)) for name, module in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "imports form a cycle: " + " < ".join(error.args[1])


def impurities(modules: Mapping[str, Module]) -> Iterator[str]:
    """Find, in the pure rooms, imports and calls that reach beyond their arguments."""
    for module in modules.values():
        if module.room not in PURE:
            continue
        for name in sorted(set(imports(module, modules))):
            top, _, rest = name.partition(".")
            if top == "guardrail":
                target = modules.get(rest)
                if target is not None and target.room not in PURE:
                    yield f"{module.name} is pure, {rest} is not"
            elif top in IMPURE_MODULES or top not in sys.stdlib_module_names:
                yield f"{module.name} is pure and imports {name}"
        yield from (f"{module.name} is pure and uses {name}" for name in impure_uses(module.tree))


def impure_uses(tree: ast.Module) -> Iterator[str]:
    """Yield the clocks and the doors to the outside that code uses, under whatever name."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            aliases |= {alias.asname or alias.name: prefix + alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            name = aliases.get(first, first) + dot + rest
            if name in CLOCKS:
                yield name
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in IMPURE_CALLS:
                yield f"{called}()"


def strangers(modules: Mapping[str, Module]) -> Iterator[str]:
    """Find third parties outside their home, or without one."""
    for module in modules.values():
        for name in sorted({name.partition(".")[0] for name in imports(module, modules)}):
            if name == "guardrail" or name in sys.stdlib_module_names:
                continue
            if not any(f"{module.name}.".startswith(f"{home}.") for home in HOMES.get(name, ())):
                yield f"{module.name} imports {name}, which lives elsewhere"


CHECKS = (upward_imports, cycles, impurities, strangers)


@pytest.fixture(scope="module")
def package():
    return parsed(PACKAGE)


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_to_its_layers(check, package):
    assert {"model.rules", "signals", "errors", "__init__"} <= package.keys()
    assert list(check(package)) == []


VIOLATIONS = {
    "model/a.py: import guardrail.engine": "model.a imports engine, which is not below it",
    "model/a.py: from guardrail import engine": "model.a imports engine, which is not below it",
    "model/a.py: from ..engine import E": "model.a imports engine, which is not below it",
    "model/__init__.py: from ..engine import E": "model imports engine, which is not below it",
    "errors.py: from guardrail.model import a": "errors imports model.a, which is not below it",
    "stores/a.py: from guardrail.signals import S": "stores.a imports signals, which is not below",
    "guard.py: def f():\n    from guardrail import cli": "guard imports cli, which is not below it",
    "_guards.py: from guardrail import cli": "_guards imports cli, which is not below it",
    "errors.py: import guardrail": "errors imports __init__, which is not below it",
    "errors.py: import guardrail.lost": "errors imports lost, which does not exist",
    "oddments.py: X = 1": "oddments is in no layer",
    "model/a.py: from guardrail.model.b import B": "imports form a cycle: model.",
    "model/a.py: def f():\n    from .b import B": "imports form a cycle: model.",
    "model/a.py: if TYPE_CHECKING:\n    from .b import B": "imports form a cycle: model.",
    "engine/a.py: import time": "engine.a is pure and imports time",
    "engine/a.py: from os.path import join": "engine.a is pure and imports os.path",
    "engine/a.py: from guardrail.stores import S": "engine.a is pure, stores is not",
    "model/c.py: import yaml": "model.c is pure and imports yaml",
    "model/c.py: from datetime import datetime as D\nD.now()": "uses datetime.datetime.now",
    "model/c.py: import datetime\nf = datetime.date.today": "uses datetime.date.today",
    "model/c.py: from datetime import datetime\ndatetime.utcnow()": "datetime.datetime.utcnow",
    "model/a.py: open('x')": "model.a is pure and uses open()",
    "engine/a.py: import pydantic": "engine.a imports pydantic, which lives elsewhere",
    "signals/kyc.py: import maxminddb": "signals.kyc imports maxminddb, which lives elsewhere",
    "signals/geodesy.py: import maxminddb": "signals.geodesy imports maxminddb, which lives else",
    "replay.py: def f():\n    import rich.table": "replay imports rich, which lives elsewhere",
    "cli/a.py: import requests": "cli.a imports requests, which lives elsewhere",
}


def tree_with(folder: Path, path: str, source: str) -> dict[str, Module]:
    """Return a small tree that breaks no rule, with one module in it added or replaced."""
    files = {
        "__init__.py": "from guardrail.guard import Guard",
        "model/__init__.py": "",
        "model/a.py": "from guardrail.errors import E",
        "model/b.py": "from ..model.a import A",
        "errors.py": "import enum",
        "stores/__init__.py": "import time\nimport redis.asyncio",
        "signals/__init__.py": "",
        "signals/geo.py": "from maxminddb import open_database\nfrom . import __name__",
        "engine/__init__.py": "",
        "engine/a.py": "from datetime import datetime\nthen = datetime.min",
        "guard.py": "from guardrail._guards import G\nfrom guardrail import stores, engine",
        "_guards.py": "from guardrail.engine.a import then",
        "cli/__init__.py": "import typer\nfrom guardrail.guard import Guard",
    }
    for name, text in (files | {path: source}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return parsed(folder)


def test_a_tree_that_keeps_the_rules_passes(tmp_path):
    modules = tree_with(tmp_path, "errors.py", "import enum")

    assert [finding for check in CHECKS for finding in check(modules)] == []


@pytest.mark.parametrize(("violation", "finding"), VIOLATIONS.items())
def test_each_violation_is_found(tmp_path, violation, finding):
    path, _, source = violation.partition(": ")

    modules = tree_with(tmp_path, path, source)

    assert finding in "\n".join(found for check in CHECKS for found in check(modules))
