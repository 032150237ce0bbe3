"""The layout of database files, byte by byte: what is taken, and what would lead out of bounds."""

from __future__ import annotations

import struct

import maxminddb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.signals.geo.verifying import BrokenError, verify

POINTER, TEXT, DOUBLE, BYTES, UINT16, UINT32, MAP = range(1, 8)
INT32, UINT64, UINT128, ARRAY, CONTAINER, END_MARKER, BOOL, FLOAT = range(8, 16)
NOTHING = b"\xa0"  # an integer of no bytes, the shortest value there is
MARKER = b"\xab\xcd\xefMaxMind.com"
METADATA = {
    "binary_format_major_version": 2,
    "binary_format_minor_version": 0,
    "build_epoch": 1_780_000_000,
    "database_type": "Test",
    "description": {},
    "ip_version": 6,
    "languages": ["en"],
    "node_count": 1,
    "record_size": 24,
}


def control(kind, size):
    """Return the bytes that say of which kind and size a value is."""
    extended = b"" if kind < 8 else bytes([kind - 7])
    first = kind << 5 if kind < 8 else 0
    if size < 29:
        return bytes([first | size]) + extended
    for more, start, end in ((1, 29, 285), (2, 285, 65821), (3, 65821, 1 << 24)):
        if size < end:
            return bytes([first | 28 + more]) + extended + (size - start).to_bytes(more, "big")
    raise AssertionError(size)


def encoded(value):
    """Return a value as bytes, without pointers."""
    match value:
        case bool():
            return control(BOOL, value)
        case str():
            text = value.encode()
            return control(TEXT, len(text)) + text
        case bytes():
            return control(BYTES, len(value)) + value
        case float():
            return control(DOUBLE, 8) + struct.pack(">d", value)
        case int() if value < 0:
            return control(INT32, 4) + value.to_bytes(4, "big", signed=True)
        case int():
            size = (value.bit_length() + 7) // 8
            kind = next(
                k for k, n in ((UINT16, 2), (UINT32, 4), (UINT64, 8), (UINT128, 16)) if size <= n
            )
            return control(kind, size) + value.to_bytes(size, "big")
        case list():
            return control(ARRAY, len(value)) + b"".join(map(encoded, value))
        case dict():
            pairs = (encoded(key) + encoded(inner) for key, inner in value.items())
            return control(MAP, len(value)) + b"".join(pairs)
    raise AssertionError(value)


def pointer(target, length=None):
    """Return a pointer of so many bytes, the shortest that reaches if none is said."""
    bases = (0, 2048, 526336, 0)
    if length is None:
        length = next(n for n in range(4) if target - bases[n] < 1 << (11 + 8 * n, 32)[n == 3])
    value = target - bases[length]
    if length == 3:
        return bytes([POINTER << 5 | 3 << 3]) + value.to_bytes(4, "big")
    high = value >> 8 * (length + 1)
    low = value & (1 << 8 * (length + 1)) - 1
    return bytes([POINTER << 5 | length << 3 | high]) + low.to_bytes(length + 1, "big")


def node(bits, left, right):
    """Return the bytes of a node with two records."""
    if bits == 28:
        middle = left >> 24 << 4 | right >> 24
        return (
            (left & 0xFFFFFF).to_bytes(3, "big")
            + bytes([middle])
            + (right & 0xFFFFFF).to_bytes(3, "big")
        )
    return left.to_bytes(bits // 8, "big") + right.to_bytes(bits // 8, "big")


def database(data=NOTHING, *, at=0, other=None, bits=24, separator=bytes(16), metadata=None):
    """Return a database of one node: its records lead to two places in the data, None to none."""
    records = [1 if place is None else 1 + 16 + place for place in (at, other)]
    told = {**METADATA, "record_size": bits} if metadata is None else metadata
    return node(bits, *records) + separator + data + MARKER + encoded(told)


def broken(data):
    try:
        verify(data)
    except BrokenError as problem:
        return str(problem)
    return None


def read(path, data):
    """Return what the reader in Python finds under both halves of all addresses."""
    path.write_bytes(data)
    with maxminddb.open_database(path, maxminddb.MODE_MEMORY) as reader:
        return [reader.get(address) for address in ("::1", "8000::1")]


SCALARS = (
    st.booleans()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.integers(-(1 << 31), (1 << 128) - 1)
    | st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(value=VALUES, other=VALUES, bits=st.sampled_from([24, 28, 32]))
def test_a_database_of_any_values_is_whole_and_read_as_they_are(
    tmp_path_factory, value, other, bits
):
    first, second = encoded(value), encoded(other)
    data = database(first + second, other=len(first), bits=bits)

    verify(data)
    assert read(tmp_path_factory.getbasetemp() / "layout.mmdb", data) == [value, other]
    # Whatever follows its last value, none of what a value needs can be cut off.
    for length in range(len(second)):
        assert broken(database(first + second[:length], other=len(first), bits=bits)) is not None


@pytest.mark.parametrize("size", [0, 28, 29, 284, 285, 65_820, 65_821, 70_000])
@pytest.mark.parametrize("kind", [TEXT, BYTES])
def test_a_length_is_read_in_each_of_its_forms(kind, size):
    whole = control(kind, size) + b"x" * size

    verify(database(whole))
    assert size == 0 or "an impossible value at 0" in str(broken(database(whole[:-1])))


LONGEST = {UINT16: 2, UINT32: 4, INT32: 4, UINT64: 8, UINT128: 16}
EXACT = {DOUBLE: 8, FLOAT: 4}


@pytest.mark.parametrize("kind", [*LONGEST, *EXACT, BOOL])
def test_a_number_has_as_many_bytes_as_its_kind_allows(kind):
    sizes = {
        size for size in range(20) if broken(database(control(kind, size) + bytes(20))) is None
    }

    if kind == BOOL:
        assert sizes == {0, 1}
    else:
        assert sizes == ({EXACT[kind]} if kind in EXACT else set(range(LONGEST[kind] + 1)))


@pytest.mark.parametrize("kind", [CONTAINER, END_MARKER, 16, 255 + 7])
def test_a_kind_that_holds_no_value_is_refused(kind):
    assert broken(database(bytes([1, kind - 7]) + bytes(8))) is not None


def test_a_kind_that_has_a_short_form_is_refused_in_the_long_one():
    assert "an unknown kind at 0" in str(broken(database(bytes([1, MAP - 7]) + bytes(8))))


@pytest.mark.parametrize("kind", [ARRAY, MAP])
def test_what_holds_others_cannot_hold_more_than_there_are_bytes(kind):
    inner = NOTHING if kind == ARRAY else encoded("") + NOTHING

    verify(database(control(kind, 3) + inner * 3))
    assert broken(database(control(kind, 4) + inner * 3)) is not None
    assert "end within a value at 0" in str(broken(database(control(kind, 1 << 20) + inner * 3)))


FAR = 526_336 + (1 << 24) + 5


@pytest.mark.parametrize(
    ("target", "length"),
    [
        (0, 0), (1023, 0), (2047, 0), (2048, 1), (300_000, 1), (526_335, 1), (526_336, 2),
        (FAR, 2), (0, 3), (526_400, 3), (FAR, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bits", [28, 32])
def test_a_pointer_of_each_length_leads_where_it_says(tmp_path, target, length, bits):
    # Zeros are no value: whatever leads anywhere else leads to none.
    data = bytes(target) + b"\x42DE\0" + pointer(target, length)
    whole = database(data, at=target + 4, other=target + 4, bits=bits)

    verify(whole)
    assert read(tmp_path / "layout.mmdb", whole) == ["DE", "DE"]


@pytest.mark.parametrize("length", [0, 3])
def test_a_pointer_leads_to_a_byte_of_the_data_and_to_no_other(length):
    size = len(NOTHING * 9 + pointer(0, length))

    assert broken(database(NOTHING * 9 + pointer(0, length), at=9)) is None
    assert "point out of bounds at 9" in str(
        broken(database(NOTHING * 9 + pointer(size, length), at=9))
    )
    assert "end within a value" in str(broken(database(NOTHING * 9, at=9)))
    cut = (NOTHING * 9 + pointer(0, length))[:-1]
    assert broken(database(cut, at=9)) is not None


def test_a_pointer_leads_to_no_other_pointer():
    assert "a pointer to a pointer at 1" in str(
        broken(database(NOTHING + pointer(0) + pointer(1), at=3))
    )


@pytest.mark.parametrize(
    ("key", "whole"),
    [
        (encoded("k"), True),
        (pointer(1), True),
        (NOTHING, False),
        (pointer(0), False),
        (b"\x41\xff", False),
        (pointer(6), False),
    ],
)
def test_the_key_of_a_map_is_text_or_a_pointer_to_text(key, whole):
    data = NOTHING + encoded("name") + b"\x41\xff" + control(MAP, 1) + key + NOTHING

    assert (broken(database(data, at=8)) is None) is whole


@pytest.mark.parametrize("kind", [ARRAY, MAP])
def test_values_stand_in_one_another_sixty_three_deep_at_most(kind):
    opened = control(kind, 1) + (encoded("") if kind == MAP else b"")

    verify(database(opened * 63 + NOTHING))
    assert "too deep" in str(broken(database(opened * 64 + NOTHING)))
    # A pointer is as deep as what it leads to, and one more.
    inner = opened * 30 + NOTHING
    for around, whole in ((31, True), (32, True), (33, False)):
        data = inner + opened * around + pointer(0)
        for first in (None, 0):  # what it leads to was not seen before, or was
            found = broken(database(data, at=first, other=len(inner)))
            assert (found is None) is whole


def test_pointers_make_no_more_values_of_one_record_than_can_be_read():
    many = control(ARRAY, 250) + NOTHING * 250

    def times(count):
        return database(many + control(ARRAY, count) + pointer(0) * count, at=len(many))

    verify(times(260))
    assert "too many" in str(broken(times(270)))
    verify(database(control(ARRAY, 65_535) + NOTHING * 65_535))
    assert "too many" in str(broken(database(control(ARRAY, 65_536) + NOTHING * 65_536)))


@pytest.mark.parametrize("bits", [24, 28, 32])
def test_a_record_of_the_tree_leads_to_a_node_to_nothing_or_into_the_data(bits):
    def told(left, right):
        metadata = {**METADATA, "record_size": bits}
        return broken(node(bits, left, right) + bytes(16) + NOTHING + MARKER + encoded(metadata))

    for value in range(20):
        expected = None
        if 1 < value < 17:
            expected = "its search tree points between tree and data"
        elif value > 17:
            expected = f"its data end within a value at {value - 17}"
        assert told(value, 1) == expected
        assert told(1, value) == expected


def test_between_tree_and_data_there_is_nothing():
    for place in range(16):
        separator = bytes(place) + b"\1" + bytes(15 - place)
        assert broken(database(separator=separator)) == "its search tree is cut short"
    assert (
        broken(database(separator=bytes(15), at=None, data=b"")) == "its search tree is cut short"
    )
    verify(database(at=None, data=b""))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("binary_format_major_version", 1, "another version"),
        ("ip_version", 5, "impossible size"),
        ("record_size", 30, "impossible size"),
        ("node_count", 0, "impossible size"),
        ("node_count", 2, "cut short"),
        ("node_count", "1", "impossible size"),
        ("node_count", True, "impossible size"),
        ("build_epoch", "today", "when it was built"),
        ("build_epoch", 1.5, "when it was built"),
        ("database_type", 7, "what it holds"),
    ],
)
def test_metadata_say_what_a_reader_relies_on(name, value, why):
    assert why in str(broken(database(metadata={**METADATA, name: value})))
    without = {key: told for key, told in METADATA.items() if key != name}
    assert broken(database(metadata=without)) is not None


def test_metadata_may_say_more_in_values_of_any_kind():
    more = {"a": True, "b": 1.5, "c": b"\0", "d": [{"e": False}, "f"], "g": 1 << 100}

    verify(database(metadata={**more, **METADATA, **{f"z{k}": v for k, v in more.items()}}))
    told = encoded({"one": 1, **{key: v for key, v in METADATA.items() if key != "node_count"}})
    one = pointer(told.index(encoded(1)))
    told = bytes([told[0] + 1]) + told[1:] + encoded("node_count") + one
    verify(node(24, 17, 1) + bytes(16) + NOTHING + MARKER + told)
    assert broken(database().replace(MARKER, b"")) == "it has no metadata"
    assert (
        broken(node(24, 17, 1) + bytes(16) + NOTHING + MARKER + NOTHING) == "its metadata is no map"
    )
