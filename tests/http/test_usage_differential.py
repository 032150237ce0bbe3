"""What is charged, in every shape of usage, against what was really produced.

Charged is what was told, where the host told the truth; and never less than what passed, whatever
it told, wherever the response was cut, and however it was compressed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.http.metering import Meter
from tests.http.meters import distant_cuts
from tests.http.usage_shapes import STREAMED, WHOLE, Shape, Work

SHAPES = (*STREAMED, *WHOLE)
NAMES = [f"{shape.name} {'streamed' if shape.streams else 'whole'}" for shape in SHAPES]
RESERVED = {"input_tokens": 12, "output_tokens": 4_096}
LONGEST = 700
"""No event of the work below is longer, in bytes."""
WORK = Work((" the", " quick", " brown", " fox", " jumps", " over"), hidden=40)


def charged(shape: Shape, chunks, *, coding=None, reserved=RESERVED):
    meter = Meter(shape.usage_format, shape.streams, reserved)
    headers = [(b"content-type", shape.kind)]
    if coding is not None:
        headers.append((b"content-encoding", coding))
    meter.start(200, headers)
    for chunk in chunks:
        meter.feed(chunk)
    return {**reserved, **meter.usage()}


def told_truth(work: Work):
    return {"input_tokens": work.incoming, "output_tokens": work.out}


def tokens(usage):
    return {unit: usage[unit] for unit in ("input_tokens", "output_tokens")}


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_what_was_told_is_charged_wherever_the_bytes_are_cut(shape):
    data = b"".join(piece.data for piece in shape.make(WORK))

    for pieces in distant_cuts(data, LONGEST):
        assert tokens(charged(shape, pieces)) == told_truth(WORK), len(pieces[0])
    assert tokens(charged(shape, (data[at : at + 1] for at in range(len(data))))) == told_truth(
        WORK
    )


@pytest.mark.parametrize("tells", ["truth", "zeros", "nothing"])
@pytest.mark.parametrize("shape", STREAMED, ids=NAMES[: len(STREAMED)])
def test_a_stream_left_at_any_byte_is_charged_at_least_what_passed(shape, tells):
    work = WORK._replace(tells=tells, hidden=0)
    pieces = list(shape.make(work))
    data = b"".join(piece.data for piece in pieces)
    ends: list[tuple[int, int]] = []
    for piece in pieces:
        ends.append(((ends[-1][0] if ends else 0) + len(piece.data), piece.passed))

    for cut in range(1, len(data) + 1):
        passed = max((count for end, count in ends if end <= cut), default=0)
        usage = charged(shape, (data[:cut],))
        assert usage["output_tokens"] >= passed, (cut, data[:cut][-80:])
        assert usage["input_tokens"] in (work.incoming, RESERVED["input_tokens"])


@pytest.mark.parametrize("shape", [s for s in STREAMED if s.runs], ids=lambda s: s.name)
def test_a_stream_that_tells_as_it_goes_is_charged_what_it_told_when_left(shape):
    work = WORK._replace(hidden=0)
    pieces = list(shape.make(work))[:4]

    usage = charged(shape, [piece.data for piece in pieces])

    assert usage["output_tokens"] == pieces[-1].passed


@pytest.mark.parametrize("tells", ["zeros", "nothing"])
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_a_response_that_tells_too_little_is_charged_for_what_passed(shape, tells):
    work = Work(tuple(f" word{number}" for number in range(400)), tells=tells)

    usage = charged(shape, [b"".join(piece.data for piece in shape.make(work))])

    assert usage["output_tokens"] >= 400
    assert usage["input_tokens"] == RESERVED["input_tokens"]


CODINGS: dict[bytes, Callable[[], Any]] = {
    b"gzip": lambda: zlib.compressobj(wbits=31),
    b"deflate": zlib.compressobj,
    b"zstd": lambda: zstandard.ZstdCompressor().compressobj(),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_a_compressed_response_is_charged_like_a_plain_one(shape, coding):
    pieces = list(shape.make(WORK))
    packer = CODINGS[coding]()
    sync = (zstandard.COMPRESSOBJ_FLUSH_BLOCK,) if coding == b"zstd" else (zlib.Z_SYNC_FLUSH,)
    packed = [packer.compress(piece.data) + packer.flush(*sync) for piece in pieces]
    packed.append(packer.flush())
    data = b"".join(packed)

    for size in (1, 7, len(data)):
        chunks = (data[at : at + size] for at in range(0, len(data), size))
        assert tokens(charged(shape, chunks, coding=coding)) == told_truth(WORK)
    if shape.streams:
        sent = len(WORK.words) // 2
        left = charged(shape, packed[: sent + 1], coding=coding)
        assert left["output_tokens"] >= pieces[sent].passed


words = st.text(alphabet="abcdefgxyzéß0_{}[]:,.\"\\'", min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.lists(words.map(" {}".format), min_size=2, max_size=20),
    st.integers(0, 300),
    st.integers(21, 5_000),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.sampled_from([None, b"gzip"]),
)
def test_any_work_told_truly_is_charged_as_told(shape, said, hidden, incoming, sizes, coding):
    work = Work(tuple(said), hidden=hidden, incoming=incoming, cached=incoming // 3)
    data = b"".join(piece.data for piece in shape.make(work))
    if coding is not None:
        data = gzip.compress(data)
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size

    assert tokens(charged(shape, chunks, coding=coding)) == told_truth(work)
