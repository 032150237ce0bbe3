"""Text that is not YAML gets a sentence in the author's words, where the author went wrong."""

from __future__ import annotations

import pytest
import yaml

from guardrail.errors import Severity
from guardrail.loading import yaml as reading
from tests.loading.reading import PARSERS, marked, only

INDENT = "start every key or `-` of one map or list in the same column"
CLOSE = "close it, or put text that starts with a bracket in quotes"
CUT = "put the text in quotes: ` #` starts a comment, which hides the bracket that closes this"
COLON = "write `key: value` with a space after the colon, and indent keys of one map alike"
NEITHER = "write `key: value` with a space after the colon, or `- value` with one after the `-`"
ESCAPE = "write `\\\\` for a backslash, or use single quotes, which have no escapes"
AFTER = "put the whole value in quotes; inside single quotes, write `''` for one"
END = f"{INDENT}, and close each quote and bracket once"
KEY_HERE = "a key of the map, or its end, is expected here"
DASH_HERE = "a `-`, or the end of the list, is expected here"


@pytest.fixture(params=PARSERS)
def _either_parser(request, monkeypatch):
    """Read with each of the parsers."""
    monkeypatch.setattr(reading, "_PARSER", getattr(yaml, request.param))


# Text, where, what is marked, message, help.
SYNTAX = [
    (
        "a: 1\n b: 2\n",
        "2:3",
        ":",
        "this key is read as part of the text above it",
        COLON,
    ),
    (
        "a:1\nb: 2\n",
        "2:2",
        ":",
        "this key is read as part of the text above it",
        COLON,
    ),
    (
        "message: use: this\n",
        "1:13",
        ":",
        "unquoted text cannot hold a `: `",
        "put the value in quotes, or start a new line for the key",
    ),
    (
        "x" * 1100 + ": 1\n",
        "1:1101",
        ":",
        "a key cannot have more than 1,024 characters",
        "put the text in quotes, or look for a quotation mark that is missing",
    ),
    (
        "a:\n\tb: 1\n",
        "2:1",
        "\t",
        "a tab stands in the indentation",
        "indent with spaces only",
    ),
    (
        "a: |\n  b\n\tc\n",
        "3:1",
        "\t",
        "a tab stands in the indentation",
        "indent with spaces only",
    ),
    (
        "a: @all\n",
        "1:4",
        "@all",
        "unquoted text cannot start with `@all`",
        "put the text in quotes",
    ),
    (
        "a: 80\nb: %x\n",
        "2:4",
        "%x",
        "unquoted text cannot start with `%x`",
        "put the text in quotes",
    ),
    (
        "a: - b\n",
        "1:4",
        "-",
        "a list cannot start here",
        "put each `- ` on a line of its own below the key",
    ),
    (
        "a: ? b\n",
        "1:4",
        "?",
        "`?` cannot stand here",
        "put text that starts with `?` in quotes",
    ),
    (
        "a: 1\nfoo\nb: 2\n",
        "2:1",
        "foo",
        "`foo` is neither a `key: value` nor an entry of a list",
        NEITHER,
    ),
    (
        "a:\n- b\n-c\n",
        "3:1",
        "-c",
        "`-c` is neither a `key: value` nor an entry of a list",
        NEITHER,
    ),
    (
        "a: [1, 2\nb: 3\n",
        "1:4",
        "[",
        "the list that opens here is not closed: expected `,` or `]` before `:` in line 2",
        CLOSE,
    ),
    (
        "a: [1}\n",
        "1:4",
        "[",
        "the list that opens here is not closed: expected `,` or `]` before `}`",
        CLOSE,
    ),
    (
        "a: {b: see #4}\n",
        "1:4",
        "{",
        "the map that opens here is not closed: expected `,` or `}` before the end of the file"
        " in line 2",
        CUT,
    ),
    (
        "a: [b, 'see #4]', c\nd: 1\n",
        "1:4",
        "[",
        "the list that opens here is not closed: expected `,` or `]` before `:` in line 2",
        CLOSE,
    ),
    (
        "a:\n  b: {c: d\n",
        "2:6",
        "{",
        "the map that opens here is not closed: expected `,` or `}` before the end of the file"
        " in line 3",
        CLOSE,
    ),
    (
        "a: 'x\nb: 1\n",
        "1:4",
        "'x",
        "the quoted text that starts here is not closed",
        "end it with the quotation mark it starts with",
    ),
    (
        'a: "x\n---\n"',
        "1:4",
        '"x',
        "the quoted text that starts here is not closed",
        "end it with the quotation mark it starts with",
    ),
    ('a: "x\\d"\n', "1:6", "\\d", "`\\d` is not an escape that YAML knows", ESCAPE),
    ('a: "\\xz"\n', "1:5", "\\x", "this escape does not name a character", ESCAPE),
    ("a: 'it's'\n", "1:8", "s'", "`s'` stands after the end of a value", AFTER),
    ("  a: 1\nb: 2\n", "2:1", "b", "`b` stands after the end of the document", END),
    ("{a: b}}\n", "1:7", "}", "`}` stands after the end of the document", END),
    (
        "'a':'b'\n",
        "1:4",
        ":",
        "a space is missing after this colon",
        "write `key: value` with a space after the colon",
    ),
    (
        "a: *\n",
        "1:4",
        "*",
        "`*` needs a name after it",
        "put text that starts with `*` or `&` in quotes",
    ),
    (
        "a: & b\n",
        "1:4",
        "&",
        "`&` needs a name after it",
        "put text that starts with `*` or `&` in quotes",
    ),
    (
        "a: |0\n b\n",
        "1:5",
        "0",
        "the indentation of a text block is a number from 1 to 9, or left out",
        None,
    ),
    (
        "a: > b\n",
        "1:6",
        "b",
        "`b` cannot stand in the line that opens a text block",
        "start the text in the next line, indented",
    ),
    (
        "a: ]\n",
        "1:4",
        "]",
        "a value is expected here, not `]`",
        "write a value, close open brackets, or put text that starts with a sign in quotes",
    ),
    (
        "%YAML 2.0\n---\na\n",
        "1:1",
        "%YAML",
        "this version of YAML is not supported",
        "remove the `%YAML` line; policy files are YAML 1.2",
    ),
    (
        "%YAML 1.2\n%YAML 1.2\n---\na\n",
        "2:1",
        "%YAML",
        "this directive is there twice",
        "remove the line; a policy file needs no `%` directives",
    ),
]


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(("text", "place", "mark", "message", "advice"), SYNTAX)
def test_each_syntax_error_has_its_sentence_and_place(text, place, mark, message, advice):
    finding = only(text)

    assert (finding.code, finding.severity) == ("GR100", Severity.ERROR)
    assert (finding.message, finding.help, finding.label) == (message, advice, None)
    assert str(finding.span) == f"policy.yaml:{place}"
    assert marked(finding) == mark


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place", "message", "label"),
    [
        (
            "a:\n  b: 1\n c: 2\n",
            "3:2",
            "`c` does not continue the map that starts in line 1",
            KEY_HERE,
        ),
        ("a: 1\n- b\n", "2:1", "`-` does not continue the map that starts in line 1", KEY_HERE),
        ("- a\nb: 1\n", "2:1", "`b` does not continue the list that starts in line 1", DASH_HERE),
        (
            "# x\n- - a\n - b\n",
            "3:2",
            "`-` does not continue the list that starts in line 2",
            DASH_HERE,
        ),
    ],
)
def test_wrong_indentation_names_the_line_of_what_it_breaks_off(text, place, message, label):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert (finding.code, finding.message, finding.label) == ("GR100", message, label)
    assert finding.help == INDENT


def test_an_excerpt_is_the_whole_line_with_nothing_that_acts_on_a_terminal():
    finding = only("a: [b,\x07 c]\t# d\n")

    assert finding.excerpt == "a: [b,\u2407 c]\t# d"
    assert finding.span.column == 7


def test_an_error_at_the_end_of_the_file_stands_in_its_last_line():
    finding = only("a:\n  - [\n")

    assert (finding.span.line, finding.excerpt) == (2, "  - [")
    assert finding.message == "a value is expected here, not the end of the file"
