"""No text makes the reader crash, hang or raise: not bombs, nor nesting, nor others' tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.errors import Diagnostic
from guardrail.loading import Node, read_yaml
from guardrail.loading import yaml as reading
from guardrail.loading.yaml import MAX_BYTES
from tests.loading.reading import PARSERS, plain

SECONDS = 10.0
"""How much of a processor a text may take: that does not depend on what else is running."""
ALPHABET = st.sampled_from(list("ab1.~-?:,[]{}&*!|>'\"%@`#<=\\ \t\n\r\0\x85\u2028\ufeff\ud800é😀"))


def bomb(first: str, entry: str) -> str:
    """Return nine levels of nine aliases each, the first level's content given."""
    lines = [f"l0: &l0 {first}"]
    for level in range(9):
        aliases = ", ".join([f"*l{level}"] * 9)
        lines.append(f"l{level + 1}: &l{level + 1} {entry.format(aliases)}")
    return "\n".join(lines)


HOSTILE = {
    "brackets": "[" * 200_000,
    "many brackets": "[" * 100_000,
    "braces": "{a: " * 200_000,
    "bare braces": "{" * 200_000,
    "both": "[{" * 200_000,
    "dashes": "- " * 200_000,
    "questions": "? " * 200_000,
    "questions and dashes": "? - " * 200_000,
    "brackets in lines": "[\n" * 200_000,
    "lists that go on": "[a," * 200_000,
    "stairs": "".join(f"{' ' * n}a:\n" for n in range(1_400)),
    "closed brackets": "[" * 60 + "a," * 400_000,
    "billion laughs": bomb("[lol, lol, lol]", "[{}]"),
    "merge bomb": bomb("{a: 1}", "{{<<: [{}]}}"),
    "alias chain": "a0: &a0 "
    + "[" * 60
    + "]" * 60
    + "".join(f"\na{n + 1}: &a{n + 1} {'[' * 60}*a{n}{']' * 60}" for n in range(40)),
    "unknown aliases": "[" + "*a," * 200_000,
    "anchors": "[" + "".join(f"&a{n} a," for n in range(80_000)) + "*b, *c]",
    "tag directives": "".join(f"%TAG !{n}! x\n" for n in range(70_000)) + "---\na\n",
    "documents": "---\n" * 200_000,
    "one text": "x" * MAX_BYTES,
    "one quoted text": '"' + "x" * (MAX_BYTES - 2) + '"',
    "one block": "|\n" + " x\n" * 300_000,
    "one number": "1" * MAX_BYTES,
    "one hexadecimal": "0x" + "f" * (MAX_BYTES - 2),
    "one decimal": "1." + "0" * (MAX_BYTES - 2),
    "one key": "x" * (MAX_BYTES - 3) + ": 1",
    "one comment": "#" * MAX_BYTES,
    "blank lines": "\n" * MAX_BYTES,
    "entries": "- a\n" * (MAX_BYTES // 4),
    "keys": "".join(f"k{n}: 1\n" for n in range(90_000)),
    "one key again and again": "a: 1\n" * 200_000,
    "tags": "- !x a\n" * 140_000,
    "escapes": '"' + "\\n" * 500_000 + '"',
    "colons": "a:" * 500_000,
    "tabs": "\t" * MAX_BYTES,
    "far too much": "- a\n" * (4 * MAX_BYTES),
}


@pytest.fixture(params=PARSERS)
def _either_parser(request, monkeypatch):
    """Read with each of the parsers."""
    monkeypatch.setattr(reading, "_PARSER", getattr(yaml, request.param))


def read(text: str) -> tuple[Node | None, list[Diagnostic]]:
    """Return what is in a text and what is wrong with it, soon."""
    findings: list[Diagnostic] = []
    started = time.thread_time()
    node = read_yaml(text, "policy.yaml", findings)
    assert time.thread_time() - started < SECONDS
    assert all(re.fullmatch("GR10[039]", finding.code) for finding in findings)
    assert all(
        0 < finding.span.line <= text.count("\n") + text.count("\r") + 1 for finding in findings
    )
    return node, findings


NESTED = [
    "brackets",
    "braces",
    "dashes",
    "questions",
    "billion laughs",
    "merge bomb",
    "alias chain",
]


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize("name", NESTED)
def test_nesting_and_bombs_are_refused_by_either_parser(name):
    node, findings = read(HOSTILE[name])

    assert node is None
    assert findings[-1].message.startswith(
        "the aliases up to here repeat more" if "bomb" in name or "laughs" in name else "maps and"
    )


def read_all() -> None:
    """Read every hostile text, its name printed before."""
    for name, text in HOSTILE.items():
        print(name, flush=True)
        node, findings = read(text)
        assert node is not None or findings or name in {"one comment", "blank lines"}, name


def test_hostile_texts_are_answered_soon_and_none_ends_the_process():
    """In a process of its own: the last name that it printed is that of the text that ended it."""
    program = "from tests.loading.test_yaml_hostile import read_all; read_all()"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()) == (0, "", list(HOSTILE))


@pytest.mark.usefixtures("_either_parser")
@given(st.text(ALPHABET, max_size=60))
@example("\ud800")
def test_no_text_makes_it_raise(text):
    read(text)


@given(st.text(max_size=200))
def test_no_unicode_makes_it_raise(text):
    read(text)


def suite_files(folder: Path) -> list[Path]:
    """Return the files below a folder, of which there must be some."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(found) > 100
    return found


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize("suite", ["yaml-test-suite", "pyyaml-tests"])
def test_every_file_of_other_suites_gives_a_node_or_findings(test_data, suite):
    for path in suite_files(test_data / "conformance" / suite):
        read(path.read_bytes().decode("utf-8", "surrogateescape"))
        read(path.read_bytes().decode("latin-1"))


def cases(test_data: Path) -> dict[str, dict]:
    """Return the cases of the YAML test suite by file and number, their signs made characters."""
    found = {}
    for path in suite_files(test_data / "conformance" / "yaml-test-suite" / "src"):
        node, findings = read(path.read_text("utf-8"))
        assert findings == []
        content = plain(node)
        assert isinstance(content, list)
        for number, case in enumerate(content):
            text = re.sub("—*»", "\t", case["yaml"]).replace("␣", " ").replace("↵", "")
            text = text.replace("←", "\r").replace("⇔", "\ufeff")
            found[f"{path.stem}-{number}"] = {**case, "yaml": re.sub("∎\n\\Z", "", text)}
    assert len(found) > 350
    return found


@pytest.mark.usefixtures("_either_parser")
def test_every_case_of_the_yaml_test_suite_gives_a_node_or_findings(test_data):
    for case in cases(test_data).values():
        read(case["yaml"])


# The parser follows YAML 1.1 in these: `?` before text in a bracket, a colon in an anchor's
# name, spaces at the end of a text block that the file cuts off.
PECULIAR = {"652Z-0", "HM87-1", "Y2GN-0", "L24T-1"}


def test_what_is_read_of_the_yaml_test_suite_is_what_its_json_says(test_data):
    same, other = 0, set()
    for name, case in cases(test_data).items():
        node, findings = read(case["yaml"])
        if findings or case.get("fail") or not case.get("json"):
            continue
        if plain(node) == json.loads(case["json"]):
            same += 1
        else:
            other.add(name)

    assert other == PECULIAR
    assert same == 201
