"""Plain scalars mean what YAML 1.2's core schema says, and nothing else."""

from __future__ import annotations

import math

import pytest

from guardrail.loading import ListNode, MapNode, Scalar, read_yaml
from guardrail.loading.nodes import MAX_NUMBER_LENGTH
from guardrail.model.facts import COUNTRIES


def scalar(text: str) -> Scalar:
    """Return the scalar that stands under a key."""
    findings: list = []
    node = read_yaml(f"key: {text}\n", "policy.yaml", findings)
    assert findings == []
    assert isinstance(node, MapNode)
    value = node.entries[0].value
    assert isinstance(value, Scalar)
    return value


VALUES: dict[object, str] = {
    None: "~ null Null NULL",
    True: "true True TRUE",
    False: "false False FALSE",
}
NUMBERS = {
    "0": 0,
    "-0": 0,
    "7": 7,
    "+7": 7,
    "-19": -19,
    "010": 10,
    "0010": 10,
    "089": 89,
    "0o17": 15,
    "0o0": 0,
    "0x1F": 31,
    "0xfF": 255,
    "9007199254740993": 9007199254740993,
    "1" * MAX_NUMBER_LENGTH: int("1" * MAX_NUMBER_LENGTH),
    "1.": 1.0,
    ".5": 0.5,
    "-.5": -0.5,
    "0.": 0.0,
    "12.50": 12.5,
    "+12e03": 12000.0,
    "-2E+05": -200000.0,
    "685.23015e+03": 685230.15,
    "1e400": math.inf,
    "010.5": 10.5,
    ".inf": math.inf,
    ".Inf": math.inf,
    "+.INF": math.inf,
    "-.inf": -math.inf,
}
TEXTS = """
    yes Yes YES no No NO on On ON off Off OFF y n Y N
    nULL none None nil tRUE fALSE truE
    1:30 22:30 190:20:30 1:30.5 2026-03-01 2026-03-01T09:00:00Z 2001-12-14t21:59:43.10-05:00
    1_000 0b101 0o8 0o 0x 0xG -0x1F +0o17 0O17 0X1F 1e 1e+ e5 . .e5 -. + ++1 1.2.3 1..2 1,5
    .INf .nAn +.nan -.nan inf nan Infinity 10k 1.5M 80% 60/minute $embargoed = <<x 1a
    ١٢ 192.0.2.0/24
""".split()


@pytest.mark.parametrize(
    ("text", "value"), [(text, value) for value, texts in VALUES.items() for text in texts.split()]
)
def test_words_of_the_core_schema_have_its_values(text, value):
    assert scalar(text) == Scalar(value, text, False, scalar(text).span)


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers_of_the_core_schema_are_numbers(text, value):
    read = scalar(text)

    assert read.value == value
    assert type(read.value) is type(value)
    assert (read.text, read.quoted) == (text, False)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_a_float(text):
    value = scalar(text).value

    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("text", TEXTS)
def test_everything_else_is_text(text):
    read = scalar(text)

    assert (read.value, read.text, read.quoted) == (text, text, False)


def test_country_codes_are_text_without_quotes():
    codes = sorted(COUNTRIES)
    findings: list = []

    node = read_yaml(f"[{', '.join(codes)}]", "policy.yaml", findings)

    assert isinstance(node, ListNode)
    assert [part.value for part in node.parts if isinstance(part, Scalar)] == codes
    assert {"NO", "DE", "US"} < set(codes)
    assert findings == []


def test_nothing_after_a_key_is_null():
    read = scalar("")

    assert (read.value, read.text, read.quoted) == (None, "", False)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"12"', "12"),
        ("'true'", "true"),
        ('""', ""),
        ("|\n  7\n", "7\n"),
        (">-\n  a\n  b\n", "a b"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!str", ""),
        ("!<tag:yaml.org,2002:str> 1", "1"),
        ('"\\x41\\u00e9\\U0001F600\\0"', "Aé😀\0"),
    ],
)
def test_quoted_blocked_and_tagged_text_is_text(written, value):
    read = scalar(written)

    assert (read.value, read.text, read.quoted) == (value, value, True)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("!!int 010", 10),
        ('!!int "0x1F"', 31),
        ("!!float 3", 3.0),
        ("!!float .5", 0.5),
        ("!!bool true", True),
        ("!!null ~", None),
        ("!!null", None),
    ],
)
def test_core_tags_that_fit_change_nothing_but_the_type(written, value):
    read = scalar(written)

    assert read.value == value
    assert type(read.value) is type(value)
    assert not read.quoted
