"""Nodes hold what a file says, in its order, and where it says it."""

from __future__ import annotations

import gc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import Diagnostic, Span
from guardrail.loading import ListNode, MapNode, Node, Scalar, read_yaml
from guardrail.loading import yaml as reading
from tests.loading.reading import PARSERS, plain

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@pytest.fixture(params=PARSERS)
def _either_parser(request, monkeypatch):
    """Read with each of the parsers."""
    monkeypatch.setattr(reading, "_PARSER", getattr(yaml, request.param))


def read(text: str) -> Node | None:
    """Return what a text holds, which must be nothing wrong."""
    findings: list[Diagnostic] = []
    node = read_yaml(text, "policy.yaml", findings)
    assert findings == []
    return node


def places(node: Node | None) -> list[tuple[str, str]]:
    """Return each node's text or kind with its span as `line:column-line:column`, outer first."""
    if node is None:
        return []
    span = node.span
    where = f"{span.line}:{span.column}-{span.end_line}:{span.end_column}"
    if isinstance(node, Scalar):
        return [(node.text, where)]
    if isinstance(node, ListNode):
        return [("list", where), *[place for part in node.parts for place in places(part)]]
    inner = [place for e in node.entries for part in (e.key, e.value) for place in places(part)]
    return [("map", where), *inner]


@pytest.mark.usefixtures("_either_parser")
def test_every_node_knows_where_it_stands():
    node = read(
        "rules:\n"
        "  - id: a  # the first\n"
        "    when: {geo.country: {in: [CU,\n"
        "      IR]}}\n"
        "\n"
        "# between\n"
        "  - 'b c'\n"
        "é: ä\n"
        "last:\n"
    )

    assert places(node) == [
        ("map", "1:1-9:6"),
        ("rules", "1:1-1:6"),
        ("list", "2:3-7:10"),
        ("map", "2:5-4:12"),
        ("id", "2:5-2:7"),
        ("a", "2:9-2:10"),
        ("when", "3:5-3:9"),
        ("map", "3:11-4:12"),
        ("geo.country", "3:12-3:23"),
        ("map", "3:25-4:11"),
        ("in", "3:26-3:28"),
        ("list", "3:30-4:10"),
        ("CU", "3:31-3:33"),
        ("IR", "4:7-4:9"),
        ("b c", "7:5-7:10"),
        ("é", "8:1-8:2"),
        ("ä", "8:4-8:5"),
        ("last", "9:1-9:5"),
        ("", "9:6-9:6"),
    ]


def test_spans_name_the_file():
    node = read("a")

    assert node == Scalar("a", "a", False, Span("policy.yaml", 1, 1, 1, 2))


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_of_three_ways(line_break):
    assert places(read(line_break.join(["# a", "b: |", "  c", "d: e", ""]))) == [
        ("map", "2:1-4:5"),
        ("b", "2:1-2:2"),
        ("c\n", "2:4-4:1"),
        ("d", "4:1-4:2"),
        ("e", "4:4-4:5"),
    ]


@pytest.mark.usefixtures("_either_parser")
def test_a_byte_order_mark_takes_no_column():
    assert places(read("\ufeffa: b")) == places(read("a: b"))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only\n# comments", "---\n", "--- # a\n...\n", "\ufeff"]
)
def test_a_file_with_nothing_in_it_is_none(text):
    assert read(text) is None


@pytest.mark.parametrize("text", ["~", "null", "''", "--- ''"])
def test_a_written_null_or_empty_text_is_a_node(text):
    assert isinstance(read(text), Scalar)


def test_one_document_may_be_marked():
    assert plain(read("%YAML 1.2\n---\na: 1\n...\n# end\n")) == {"a": 1}


def test_entries_keep_their_order():
    node = read("b: 1\na: 2\nc: 3\n")

    assert isinstance(node, MapNode)
    assert [entry.key.text for entry in node.entries] == ["b", "a", "c"]
    assert node.get("a") == node.entries[1].value
    assert node.get("d") is None


@pytest.mark.parametrize(
    "text",
    [
        "{1: a, 1.0: b, true: c, '': d, ~: e}",
        "{NO: a, no: b, No: c}",
        "{a: 1, A: 2, a.b: 3}",
        "{'<<': 1, <: 2}",
    ],
)
def test_keys_of_other_types_and_texts_differ(text):
    node = read(text)

    assert isinstance(node, MapNode)
    assert len(node.entries) == text.count(": ")


@pytest.mark.usefixtures("_either_parser")
def test_an_alias_is_the_node_it_repeats():
    node = read("a: &x [1, {b: &y c}]\nd: *x\n*y : *y\n")

    assert plain(node) == {"a": [1, {"b": "c"}], "d": [1, {"b": "c"}], "c": "c"}
    assert isinstance(node, MapNode)
    assert node.get("a") is node.get("d")


def test_an_anchor_may_be_set_again():
    assert plain(read("[&a 1, *a, &a 2, *a]")) == [1, 1, 2, 2]


def test_ten_thousand_repeated_values_are_allowed():
    assert plain(read("- &a [x]\n" + "- *a\n" * 5000)) == [["x"]] * 5001


def test_sixty_four_levels_are_allowed():
    assert plain(read("- " * 64 + "a")) is not None
    assert plain(read("[" * 64 + "]" * 64)) is not None
    assert plain(read(f"- &a {'[' * 62}{']' * 62}\n- [*a]\n")) is not None


def test_one_mebibyte_is_allowed():
    assert plain(read("x" * (1 << 20))) == "x" * (1 << 20)
    assert plain(read("é" * (1 << 19))) == "é" * (1 << 19)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("text", ["a: b", "a: [", "[" * 100])
def test_the_garbage_collector_is_left_as_it_was(text, enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        read_yaml(text, "policy.yaml", [])

        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


@given(JSON)
def test_what_is_dumped_with_quotes_comes_back_equal(value):
    class Quoting(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')

    Quoting.add_representer(str, represent)
    text = yaml.dump(value, Dumper=Quoting, sort_keys=False)

    assert plain(read(text)) == value
