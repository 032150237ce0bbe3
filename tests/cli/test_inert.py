"""Text from files and logs is inert in a terminal, and carets stand under what is meant."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.cli.excerpts import print_diagnostics
from guardrail.cli.inert import inert, padded, shortened, width
from guardrail.cli.output import Color, Format, Output
from guardrail.errors import Diagnostic, Severity, Span
from tests.cli.conftest import POLICY, request, write_traffic

HOSTILE = {
    "\x1b[31mred": "\\x1b[31mred",
    "a\x9b2Jb": "a\\x9b2Jb",
    "\x07\x08\r": "\\x07\\x08\\x0d",
    "txt\u202egpj.exe": "txt\\u202egpj.exe",
    "\u2066a\u2069": "\\u2066a\\u2069",
    "two\nlines\u2028three": "two\\x0alines\\u2028three",
    "zero\u200bwidth": "zero\\u200bwidth",
    "\U000e0041tag": "\\U000e0041tag",
    "\ud800": "\\ud800",
    "[red]markup[/red]": "[red]markup[/red]",
    "naïve 日本 ✓": "naïve 日本 ✓",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_what_a_terminal_could_obey_is_shown_instead(text, shown):
    assert inert(text) == shown


@given(st.text())
def test_nothing_that_acts_is_left(text):
    kept = {unicodedata.category(character) for character in inert(text)}

    assert not kept & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_long_text_is_cut_and_wide_text_padded_by_its_cells():
    assert shortened("x" * 200) == "x" * 79 + "…"
    assert (width("日本"), padded("日本", 6), padded("日本", 6, right=True)) == (
        4,
        "日本  ",
        "  日本",
    )


@pytest.mark.parametrize("text", sorted(HOSTILE.keys() - {"\ud800"}), ids=ascii)
def test_no_command_lets_hostile_text_through(run, folder, text):
    rows = [
        request(0, text, facts={text: "x", "account.tier": text}),
        request(1, "b", facts={"geo.country": text}),
        json.dumps({"ts": 1, "facts": {text: {}}}),
    ]
    write_traffic(folder / "t.jsonl", *rows)
    commands = [
        ("check", "policies", "--traffic", "t.jsonl"),
        ("check", "policies", "--traffic", "t.jsonl", "--format", "json"),
        ("check", "policies", "--traffic", "t.jsonl", "--decisions", "-"),
        ("explain", "policies", "--traffic", "t.jsonl", "--line", "1"),
        ("explain", "policies", "--request", json.dumps({"account.id": text, text: text})),
    ]
    for command in commands:
        outcome = run(*command)

        # What no policy knows is a finding.
        assert outcome.code == (1 if command[0] == "check" else 0), outcome
        assert acting(outcome.out + outcome.err) == set()


@pytest.mark.parametrize("name", ["\x1b[31m.yaml", "\u202elmay.yaml", "[bold]x.yaml"])
def test_hostile_file_names_are_inert(run, folder, name):
    (folder / "policies" / name).write_text("guardrail: 1\nruls: []\n")
    for form in ("full", "concise", "json"):
        outcome = run("check", "policies", "--format", form)

        assert outcome.code == 3
        assert acting(outcome.out) == set()
    assert "[bold]" not in name or "[bold]x.yaml:2:1" in run("check", "policies").out


def test_hostile_names_of_tests_are_inert(run, folder):
    text = POLICY.replace("embargo holds", '"\\e[31m\\u202e"').replace("IR}\n    ex", "FR}\n    ex")
    (folder / "policies" / "public.yaml").write_text(text)
    for form in ("full", "concise"):
        outcome = run("test", "policies", "--format", form)

        assert outcome.code == 1
        assert "\\x1b[31m\\u202e" in outcome.out
        assert acting(outcome.out) == set()


def acting(text: str) -> set[str]:
    """Return the characters a terminal could act on, but for line feeds."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {character for character in text if unicodedata.category(character) in bad} - {"\n"}


CARETS = {
    ("key: value", 6, 11): ("key: value", "     ^^^^^"),
    ("日本: wert", 5, 9): ("日本: wert", "      ^^^^"),
    ("a: 日本", 4, 6): ("a: 日本", "   ^^^^"),
    ("\ta: b", 2, 3): ("    a: b", "    ^"),
    ("a\tb: c", 3, 4): ("a   b: c", "    ^"),
    ("e\u0301a: b", 3, 4): ("e\u0301a: b", " ^"),
    ("a\u202eb: c", 3, 4): ("a\\u202eb: c", "       ^"),
    ("abc", 9, 12): ("abc", "   ^"),
    ("", 1, 2): ("", "^"),
}


@pytest.mark.parametrize(("place", "shown"), CARETS.items(), ids=map(ascii, CARETS))
def test_the_caret_stands_under_what_is_meant(capsys, place, shown):
    excerpt, start, end = place
    _, text, caret = excerpt_lines(capsys, excerpt, Span("f", 7, start, 7, end))

    assert (text, caret) == (f"7 | {shown[0]}".rstrip(), f"  | {shown[1]}")


def test_a_span_over_several_lines_is_underlined_to_the_end_of_the_first(capsys):
    _, text, caret = excerpt_lines(capsys, "rules: [a,", Span("f", 7, 8, 9, 2))

    assert (text, caret) == ("7 | rules: [a,", "  |        ^^^")


@pytest.mark.parametrize("start", [1, 50, 5_000, 1_000_000])
def test_of_a_long_line_the_part_that_is_meant_is_shown(capsys, start):
    excerpt = "x" * (start - 1) + "HERE" + "y" * 1_000_000
    _, text, caret = excerpt_lines(capsys, excerpt, Span("f", 7, start, 7, start + 4))

    assert len(text) <= 110
    assert text[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def excerpt_lines(capsys: pytest.CaptureFixture[str], excerpt: str, span: Span) -> list[str]:
    """Return the three lines that show a place in a source line."""
    found = Diagnostic("GR101", Severity.ERROR, "wrong", span, excerpt)
    print_diagnostics(Output(Color.NEVER), (found,), Format.FULL)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "f:7:" + str(span.column) + " GR101 wrong"
    return lines[1:4]
