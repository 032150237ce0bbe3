"""What YAML allows and a policy file does not is found, all of it, where it is written."""

from __future__ import annotations

import pytest
import yaml

from guardrail.loading import yaml as reading
from tests.loading.reading import PARSERS, found, marked, only

QUOTES = "put it in quotes if it is meant as text"
BRACKET = "put text that starts with a bracket in quotes"
ESCAPE = "write `\\\\` for a backslash, or use single quotes, which have no escapes"
ESCAPED = "remove it, or write it as an escape in double quotes"
TAGS = "remove it; values need no tags, and text stays text in quotes"
NAME_IT = "conditions and lists that repeat can have a name"
DEEP = "nest less, and look for brackets that are never closed"
DEEPER = "maps and lists are nested more than 64 levels deep"


@pytest.fixture(params=PARSERS)
def _either_parser(request, monkeypatch):
    """Read with each of the parsers."""
    monkeypatch.setattr(reading, "_PARSER", getattr(yaml, request.param))


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place", "mark", "message", "advice"),
    [
        ("a: *b\n", "1:4", "*b", "unknown alias `*b`", QUOTES),
        (
            "- &known 1\n- *knwon\n",
            "2:3",
            "*knwon",
            "unknown alias `*knwon`",
            "did you mean `*known`?",
        ),
        ("a: *b\nb: &b 1\n", "1:4", "*b", "unknown alias `*b`", QUOTES),
        ("&a [*a]", "1:5", "*a", "`*a` stands inside the part it repeats", "write that part out"),
        ("a: {{ b }}\n", "1:5", "{ b }", "a map cannot be a key", BRACKET),
        ("{[a]: b}\n", "1:2", "[a]", "a list cannot be a key", BRACKET),
        (
            f"a: {'9' * 5000}\n",
            "1:4",
            "9" * 5000,
            "a number of 5,000 characters is too long",
            QUOTES,
        ),
        (
            f"a: 0x{'f' * 300}\n",
            "1:4",
            f"0x{'f' * 300}",
            "a number of 302 characters is too long",
            QUOTES,
        ),
        (
            f"a: !!int {'9' * 400}\n",
            "1:4",
            f"!!int {'9' * 400}",
            "a number of 400 characters is too long",
            QUOTES,
        ),
    ],
)
def test_what_a_policy_file_may_not_hold_is_found(text, place, mark, message, advice):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert (finding.code, finding.message, finding.help) == ("GR100", message, advice)
    assert marked(finding) == mark


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place", "mark", "label"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1", "a", "first written in line 1"),
        ("{a: 1, 'a': 2}\n", "1:8", "'a'", "first written in line 1"),
        ("- {1: a,\n  '1': b}\n", "2:3", "'1'", "first written in line 1"),
        ("16: a\n0x10: b\n", "2:1", "0x10", "first written in line 1 as `16`"),
        ("true: a\nTrue: b\n", "2:1", "True", "first written in line 1 as `true`"),
        ("1.5: a\n15e-1: b\n", "2:1", "15e-1", "first written in line 1 as `1.5`"),
        (".nan: a\n.NaN: b\n", "2:1", ".NaN", "first written in line 1 as `.nan`"),
    ],
)
def test_a_key_of_the_same_text_or_value_is_a_duplicate(text, place, mark, label):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert finding.code == "GR103"
    assert finding.message == f"the key `{mark.strip(chr(39))}` is there twice in this map"
    assert (finding.label, finding.help) == (label, "keep one of them")
    assert marked(finding) == mark


def test_a_repeated_key_node_is_a_duplicate():
    finding = only("&a x: 1\n*a : 2\n")

    assert (finding.code, finding.message) == ("GR103", "the key `x` is there twice in this map")


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize("text", ["a: {<<: {b: 1}}", "- &a {b: 1}\n- <<: *a\n", "<<: [1]\n"])
def test_merge_keys_are_refused(text):
    finding = only(text)

    assert (finding.code, finding.message) == ("GR109", "the merge key `<<` is not allowed")
    assert finding.help == f"write the keys out; {NAME_IT}"
    assert marked(finding) == "<<"


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "mark", "message"),
    [
        ("a: !mine b\n", "!mine", "the tag `!mine` is not allowed"),
        ("a: !!set {b}\n", "!!set", "the tag `!!set` is not allowed"),
        ("a: !!timestamp 2026-01-01", "!!timestamp", "the tag `!!timestamp` is not allowed"),
        ("a: !!binary aGk=\n", "!!binary", "the tag `!!binary` is not allowed"),
        ("!!omap [a: 1]\n", "!!omap", "the tag `!!omap` is not allowed"),
        ("- !!merge a\n", "!!merge", "the tag `!!merge` is not allowed"),
        (
            "!!python/object/apply:os.system [ls]\n",
            "!!python/object/apply:os.system",
            "the tag `!!python/object/apply:os.system` is not allowed",
        ),
        ("a: !x!y b\n", "!x!y", "the tag `!x!y` is not allowed"),
        (
            "%TAG ! tag:e.com,2026:\n---\n!y b\n",
            "!y b",
            "the tag `tag:e.com,2026:y` is not allowed",
        ),
        ("!!int ten\n", "!!int", "`ten` is not what the tag `!!int` says"),
        ("!!int 1.5\n", "!!int", "`1.5` is not what the tag `!!int` says"),
        ("!!bool 'yes'\n", "!!bool", "`yes` is not what the tag `!!bool` says"),
        ("!!float\n", "!!float", "nothing is not what the tag `!!float` says"),
        ("!!seq a\n", "!!seq", "`a` is not what the tag `!!seq` says"),
        ("!!map [a]\n", "!!map", "a list is not what the tag `!!map` says"),
        ("!!str {a: 1}\n", "!!str", "a map is not what the tag `!!str` says"),
        ("a: !<x b\n", "!<x", "this tag cannot be read"),
    ],
)
def test_tags_are_refused_unless_they_say_what_is_there(text, mark, message):
    finding = only(text)

    assert (finding.code, finding.message, finding.help) == ("GR109", message, TAGS)
    assert marked(finding) == mark


@pytest.mark.parametrize(
    ("text", "place", "code", "message", "advice"),
    [
        (
            "%FOO\n---\na\n",
            "1:1",
            "GR100",
            "this directive cannot be read",
            "remove the line; a policy file needs no `%` directives",
        ),
        ('a: "\\ud800"\n', "1:5", "GR100", "this escape does not name a character", ESCAPE),
        ('a: "\\U00110000"\n', "1:5", "GR100", "this escape does not name a character", ESCAPE),
        ("a: !%ED%A0%80 b\n", "1:2", "GR109", "a tag after this place cannot be read", TAGS),
    ],
)
def test_what_only_one_parser_refuses_by_itself_is_an_error_too(text, place, code, message, advice):
    finding = only(text)

    assert (str(finding.span), finding.code) == (f"policy.yaml:{place}", code)
    assert (finding.message, finding.help) == (message, advice)


@pytest.mark.parametrize("text", ['a: "\\ud800"', 'a: "\\U00110000"', "a: !%ED%A0%80 b"])
def test_the_parser_in_python_lets_nothing_pass_that_is_no_character(text, monkeypatch):
    monkeypatch.setattr(reading, "_PARSER", yaml.SafeLoader)

    assert only(text).code in {"GR100", "GR109"}


@pytest.mark.usefixtures("_either_parser")
def test_duplicates_merges_tags_and_aliases_are_all_found_in_one_go():
    findings = found("a: 1\na: 2\nb: !x 1\nc: {<<: {}}\nd: *e\nf: {[g]: h}\n- i\n")

    assert [(str(one.span)[12:], one.code) for one in findings] == [
        ("3:4", "GR109"),
        ("4:5", "GR109"),
        ("5:4", "GR100"),
        ("6:5", "GR100"),
        ("7:1", "GR100"),
    ]


@pytest.mark.usefixtures("_either_parser")
def test_reading_stops_after_a_hundred_errors():
    findings = found("[" + "*a," * 150 + "]")

    assert len(findings) == 101
    assert findings[-1].message == "reading stops after 100 errors"
    assert findings[-1].help == "correct these first"
    assert findings[-1].span == findings[-2].span


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\n---\nb: 2\n", "2:1"),
        ("a\n---\n", "2:1"),
        ("---\n--- b\n", "2:1"),
        ("a\n...\n---\n", "3:1"),
    ],
)
def test_a_file_holds_one_document(text, place):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert (finding.code, finding.message) == ("GR100", "a second document starts here")
    assert finding.help == (
        "a file holds one document: remove this line, or make what follows its own file"
    )
    assert marked(finding) == "---"


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[" * 65 + "]" * 65, "1:65"),
        ("{a: " * 65, "1:257"),
        ("- " * 65 + "a", "1:129"),
        ("a:\n" + "".join(f"{' ' * n}b:\n" for n in range(1, 70)), "65:65"),
        (f"- &a {'[' * 62}{']' * 62}\n- [[*a]]\n", "2:5"),
    ],
)
def test_nesting_ends_at_sixty_four_levels_aliases_expanded(text, place):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert (finding.code, finding.message, finding.help) == ("GR100", DEEPER, DEEP)


@pytest.mark.usefixtures("_either_parser")
def test_aliases_end_at_ten_thousand_repeated_values():
    finding = only("- &a [x]\n" + "- *a\n" * 5001)

    assert str(finding.span) == "policy.yaml:5002:3"
    assert finding.message == "the aliases up to here repeat more than 10,000 values"
    assert (finding.code, finding.help) == ("GR100", f"repeat less; {NAME_IT}")


@pytest.mark.parametrize("text", ["x" * ((1 << 20) + 1), "é" * ((1 << 19) + 1), "x" * (1 << 23)])
def test_a_file_ends_at_one_mebibyte(text):
    finding = only(text)

    assert str(finding.span) == "policy.yaml:1:1"
    assert finding.message == "the file is larger than 1 MiB (1,048,576 bytes)"
    assert finding.help == "split it; the files of a folder are one policy set"


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "place", "code", "advice"),
    [
        ("a: b\0", "1:5", "U+0000", "save the file as plain text in UTF-8"),
        ("a: 1\nb: \x1b[31m\n", "2:4", "U+001B", ESCAPED),
        ("a: \x7f", "1:4", "U+007F", ESCAPED),
        ("a: 'b\x85'\n", "1:6", "U+0085", ESCAPED),
        ("a: x\u2028b", "1:5", "U+2028", ESCAPED),
        ("# \u202egnisrever", "1:3", "U+202E", ESCAPED),
        ("a: \u2067b", "1:4", "U+2067", ESCAPED),
        ("a: b\r\n\ufeffc: d", "2:1", "U+FEFF", ESCAPED),
        ("a: \ud800", "1:4", "U+D800", ESCAPED),
        ("\ufffe", "1:1", "U+FFFE", ESCAPED),
    ],
)
def test_characters_that_cannot_be_seen_are_refused(text, place, code, advice):
    finding = only(text)

    assert str(finding.span) == f"policy.yaml:{place}"
    assert finding.code == "GR100"
    assert finding.message == f"the character {code}, which cannot be seen, is not allowed here"
    assert finding.help == advice
    assert finding.excerpt is not None
    assert finding.excerpt.isprintable()


def test_many_directives_are_refused_before_they_are_compared():
    finding = only("".join(f"%TAG !{n}! x\n" for n in range(21)) + "---\na\n")

    assert str(finding.span) == "policy.yaml:21:1"
    assert finding.message == "more than 20 lines of this file start with `%`"
    assert finding.help == "remove them; a policy file needs no directives"
