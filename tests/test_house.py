"""House rules for the whole tree: what its files speak of, and what it declares."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from re import _parser as parser
from typing import Any

import pytest

import guardrail

ROOT = Path(__file__).parent.parent

LARGEST_TEXT = 1 << 20

# What does not belong in a project that speaks of itself alone; written so as not to match itself.
FOREIGN = re.compile(
    r"""
    /wor[k]/ | /far[m]/ | /roo[t]/ | /tmp/bas[h]_jobs
    | \b(?: issue | session ) [ ] [#]? [0-9]+ \b | \b this [ ] sessio[n] \b
    | \b as [ ] an [ ] A[I] \b | \b sub-?agen[t]s? \b | \b CE[O] \b | \b closing [ ] not[e]
    | \b(?: TOD[O] | FIXM[E] | XX[X] | HAC[K] )\b
    """,
    re.VERBOSE,
)
NEIGHBOUR = re.compile(r"[.][.]/share[d]\b")

# Modules that come in a distribution of another name.
DISTRIBUTIONS = {
    "http_sf": "http-sf",
    "jwt": "pyjwt",
    "pydantic_core": "pydantic",
    "pydantic_sarif": "pydantic-sarif",
    "python_multipart": "python-multipart",
    "yaml": "pyyaml",
    "vl_convert": "vl-convert-python",
}


def files(pattern: str = "*") -> list[Path]:
    """Return the project's own files; but for two, what starts with a dot is a tool's."""
    found = [*ROOT.glob(".gitignore"), *ROOT.glob(".ci/*"), *ROOT.glob("[!.]*")]
    for folder in ROOT.glob("[!.]*/"):
        if folder.name not in {"build", "dist"}:
            found += folder.rglob("*")
    leftovers = re.compile(r"/(?:[.](?!ci/|gitignore$)|__pycache__/)")
    return sorted(
        path
        for path in found
        if path.match(pattern) and path.is_file() and not leftovers.search(f"/{named(path)}")
    )


def named(path: Path) -> str:
    """Return a file's path as a test's name."""
    return path.relative_to(ROOT).as_posix()


def foreign_words(path: str, text: str) -> Iterator[str]:
    """Yield what a file says about anything but the project."""
    for number, line in enumerate(text.splitlines(), 1):
        if FOREIGN.search(line) or (path != ".ci/run" and NEIGHBOUR.search(line)):
            yield f"{path}:{number}: {line.strip()}"


def third_parties(source: str) -> set[str]:
    """Return the third parties a source imports, those it would skip without included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            found.add(ast.literal_eval(node.args[0]))
    tops = {name.partition(".")[0] for name in found}
    outside = tops - sys.stdlib_module_names - {"benchmarks", "guardrail", "scripts", "tests"}
    return {DISTRIBUTIONS.get(name, name) for name in outside}


HOSTED = "tests/litellm"
"""What `make test-hosts` runs, in an environment of its own."""


def undeclared(folder: str, declared: set[str]) -> dict[str, set[str]]:
    """Return, by file, the third parties that a folder imports and nothing installs."""
    missing = {
        named(path): third_parties(path.read_text("utf-8")) - declared
        for path in files("*.py")
        if path.is_relative_to(ROOT / folder)
    }
    return {name: parties for name, parties in missing.items() if parties}


def distributions(requirements: list[str | dict[str, str]]) -> set[str]:
    """Return the names in a list of requirements, groups it includes left out."""
    return {re.split(r"[^\w-]", line)[0].lower() for line in requirements if isinstance(line, str)}


@pytest.fixture(scope="module")
def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_project_speaks_of_itself_alone():
    found: list[str] = []
    for path in files():
        if path.stat().st_size <= LARGEST_TEXT:
            found += foreign_words(named(path), path.read_bytes().decode("utf-8", "ignore"))

    assert found == []


def test_what_the_package_imports_is_installed_with_it(settings):
    extras = settings["project"].get("optional-dependencies", {}).values()
    declared = distributions(sum(extras, settings["project"]["dependencies"]))

    assert undeclared("guardrail", declared) == {}


def test_no_test_is_skipped_for_want_of_what_make_test_installs(settings):
    groups = settings["dependency-groups"]
    included = [groups[line["include-group"]] for line in groups["test"] if isinstance(line, dict)]
    declared = distributions(sum(included, groups["test"] + settings["project"]["dependencies"]))

    hosted = distributions(groups["hosts"] + settings["project"]["dependencies"])
    missing = undeclared("tests", declared)

    assert {path: names for path, names in missing.items() if not path.startswith(HOSTED)} == {}
    assert undeclared(HOSTED, hosted) == {}


# Up to Python 3.11.4 a group that is repeated possessively ends too far where its last turn fails
# after a part of it that goes back by itself: https://github.com/python/cpython/issues/106052.
SINGLE = {parser.LITERAL, parser.NOT_LITERAL, parser.IN, parser.ANY, parser.CATEGORY}


def goes_on_too_far(pattern: Any) -> bool:
    """Tell whether a parsed expression repeats possessively what may fail in its midst."""
    for operator, argument in pattern:
        groups = list(groups_of(argument))
        if operator is parser.POSSESSIVE_REPEAT and not all(map(is_plain, groups[0])):
            return True
        if any(map(goes_on_too_far, groups)):
            return True
    return False


def groups_of(argument: Any) -> Iterator[Any]:
    """Yield the expressions within one part of a parsed expression."""
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from groups_of(part)


def is_plain(part: Any) -> bool:
    """Tell whether a part of an expression fails, if it does, before it has moved on."""
    operator, argument = part
    if operator is parser.POSSESSIVE_REPEAT:
        return len(argument[2]) == 1 and argument[2][0][0] in SINGLE
    if operator is parser.BRANCH:
        return all(len(branch) == 1 and is_plain(branch[0]) for branch in argument[1])
    return operator in SINGLE


@pytest.mark.parametrize(
    ("expression", "too_far"),
    [
        (r'(?:[^"\\]|\\.)*', False),
        (r"[ \t]*+;(?:[a-z]|-)*+", False),
        (r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', False),
        (r"(?:a[ ]{1,3}b)*+", True),
        (r'(?:[^"]++|"[^"]*+")*+', True),
        (r"x(?:(?=(?:\r\n[a-z]+:)*+)y)?", True),
    ],
)
def test_expressions_that_old_versions_take_otherwise_are_found(expression, too_far):
    assert goes_on_too_far(parser.parse(expression)) is too_far


def test_no_expression_means_something_else_to_python_3_11_2():
    found: dict[str, re.Pattern[Any]] = {}
    for path in (ROOT / "guardrail").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module in {"guardrail.__main__", "guardrail.http.litellm"}:
            continue  # the one starts the tool, the other needs the proxy; neither has any
        named = vars(importlib.import_module(module))
        found |= {f"{module}.{n}": v for n, v in named.items() if isinstance(v, re.Pattern)}

    assert len(found) > 50
    assert not [
        name for name, v in found.items() if goes_on_too_far(parser.parse(v.pattern, v.flags))
    ]


def test_the_changelog_opens_with_the_version_being_made():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[?([0-9][^] ]*)\]?", changelog, re.MULTILINE)

    assert newest is not None
    assert guardrail.__version__ == newest.group(1)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "guardrail" / "py.typed").is_file()


def test_third_parties_are_found_however_they_are_imported():
    source = "import os, a.b\nfrom c.d import e\nfrom . import f\npytest.importorskip('g')\n"

    assert third_parties(source) == {"a", "c", "g"}


@pytest.mark.parametrize(
    "line",
    [
        "see /wo" + "rk/main",
        "# TO" + "DO: later",
        "as asked in issue " + "12",
        "session #" + "3",
        "written by a sub" + "agent",
        "reads ../sha" + "red/data",
    ],
)
def test_words_from_elsewhere_are_found(line):
    assert len(list(foreign_words("docs/a.md", f"one\n{line}\n"))) == 1


def test_words_of_the_domain_are_no_words_from_elsewhere():
    text = "client.agent, agentic, user-agent, a session of 30 minutes, per-session budgets"

    assert list(foreign_words("docs/a.md", text)) == []


def test_only_the_continuous_integration_knows_its_neighbour():
    assert list(foreign_words(".ci/run", "cd ../sha" + "red/data")) == []
