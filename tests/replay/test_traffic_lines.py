"""Traffic files as lines, however they are packed, cut short or damaged."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import DataError
from guardrail.traffic.lines import MAX_LINE, LineSource

TEXT = b'{"a":1}\n\n{"b":2}\nlast'
PACKERS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip of two members": lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
    "zstandard": zstandard.compress,
    "zstandard of two frames": lambda data: (
        zstandard.compress(data[:5]) + zstandard.compress(data[5:])
    ),
}


def numbered(path: Path) -> list[tuple[int, bytes]]:
    """Return every line of a file with its number."""
    with LineSource(str(path)) as source:
        return [
            (number, line)
            for first, lines in source.blocks()
            for number, line in enumerate(lines, first)
        ]


def written(folder: Path, data: bytes) -> Path:
    """Return a file that holds some bytes."""
    path = folder / "traffic"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_every_packing_gives_the_same_lines(tmp_path, pack):
    path = written(tmp_path, pack(TEXT))

    assert numbered(path) == [(1, b'{"a":1}'), (2, b""), (3, b'{"b":2}'), (4, b"last")]


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_the_position_ends_at_the_size_of_the_stored_file(tmp_path, pack):
    path = written(tmp_path, pack(TEXT * 1000))
    with LineSource(str(path)) as source:
        list(source.blocks())

        assert (source.position, source.size) == (path.stat().st_size,) * 2


def test_the_standard_input_is_unpacked_too(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT))))
    with LineSource("-") as source:
        lines = [line for _, lines in source.blocks() for line in lines]

    assert (lines, source.name, source.size) == (TEXT.split(b"\n"), "standard input", None)


def test_a_byte_order_mark_is_left_out(tmp_path):
    assert numbered(written(tmp_path, b"\xef\xbb\xbfa\nb")) == [(1, b"a"), (2, b"b")]


def test_an_empty_file_has_no_lines(tmp_path):
    assert numbered(written(tmp_path, b"")) == []


@pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE])
def test_a_long_line_is_cut_and_the_lines_after_it_keep_their_numbers(tmp_path, length):
    lines = numbered(written(tmp_path, b"a\n" + b"x" * length + b"\nb\n"))

    assert [number for number, _ in lines] == [1, 2, 3]
    assert len(lines[1][1]) == min(length, MAX_LINE + 1)
    assert lines[2] == (3, b"b")


def test_a_long_last_line_without_an_end_is_cut(tmp_path):
    lines = numbered(written(tmp_path, b"a\n" + b"x" * (2 * MAX_LINE)))

    assert [(number, len(line)) for number, line in lines] == [(1, 1), (2, MAX_LINE + 1)]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstandard"])
def test_what_precedes_a_cut_is_read_and_the_cut_is_said(tmp_path, pack):
    lines = b"".join(b'{"line":%d,"noise":"%x"}\n' % (n, hash((n, 7))) for n in range(50_000))
    packed = pack(lines)
    path = written(tmp_path, packed[: len(packed) // 2])
    blocks: list[list[bytes]] = []
    with LineSource(str(path)) as source, pytest.raises(DataError, match=r"to its end: .* cut"):
        blocks.extend(block for _, block in source.blocks())

    assert 10_000 < sum(map(len, blocks)) < 50_000


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"], ids=["gzip", "zstandard"])
def test_damaged_data_is_said_to_be_damaged(tmp_path, magic):
    path = written(tmp_path, magic + b"\xff" * 100)
    with LineSource(str(path)) as source, pytest.raises(DataError, match="damaged"):
        list(source.blocks())


def test_utf_16_is_named_for_what_it_is(tmp_path):
    path = written(tmp_path, '{"ts":1}'.encode("utf-16"))
    with LineSource(str(path)) as source, pytest.raises(DataError, match="is UTF-16 text"):
        list(source.blocks())


def test_a_missing_file_and_a_folder_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        LineSource(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="is a directory"):
        LineSource(str(tmp_path))


def test_a_small_frame_that_unpacks_to_much_is_given_out_in_pieces(tmp_path):
    path = written(tmp_path, zstandard.compress(b"\n" * (8 << 20), 19))
    with LineSource(str(path)) as source:
        counts = [len(lines) for _, lines in source.blocks()]

    assert path.stat().st_size < 1000
    assert sum(counts) == 8 << 20
    assert max(counts) <= 1 << 18


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    st.sampled_from(sorted(PACKERS)),
)
def test_lines_come_out_as_they_went_in(tmp_path_factory, lines, packer):
    data = b"".join(line + b"\n" for line in [b"first", *lines])
    path = written(tmp_path_factory.getbasetemp(), PACKERS[packer](data))

    assert [line for _, line in numbered(path)] == [b"first", *lines]


@pytest.mark.parametrize(
    ("packer", "content"),
    [(lambda data: gzip.compress(data, 6), b"x"), (zstandard.compress, b"\n")],
    ids=["a long line in gzip", "blank lines in zstandard"],
)
def test_a_file_that_unpacks_to_far_more_than_any_log_is_refused(packer, content, tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(packer(b'{"ts": 1}\n' + content * (68 << 20)))
    read: list[bytes] = []

    tracemalloc.start()
    try:
        with LineSource(str(path)) as source:
            blocks = source.blocks()
            with pytest.raises(DataError, match="unpack it yourself"):
                read.extend(lines[0] for _, lines in blocks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert read[0] == b'{"ts": 1}'
    assert peak < 40 << 20


def test_a_log_that_says_the_same_over_and_over_is_read(tmp_path):
    lines = [b'{"ts": %d, "facts": {"account.id": "a1"}}' % n for n in range(50_000)]
    path = tmp_path / "same.zst"
    path.write_bytes(zstandard.compress(b"\n".join(lines)))

    with LineSource(str(path)) as source:
        assert [line for _, block in source.blocks() for line in block] == lines
