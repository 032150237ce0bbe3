"""House rules for the whole tree: what its files speak of, and what it declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

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
