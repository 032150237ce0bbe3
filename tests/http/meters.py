"""Meters over whole responses, cut as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from guardrail.http.metering import Meter, UsageFormat

EVENTS = ((b"Content-Type", b"text/event-stream; charset=utf-8"),)
JSON = ((b"content-type", b"application/json"),)


class Metered(NamedTuple):
    """What a meter said when the response was over."""

    usage: Mapping[str, int]
    ended: bool
    failed: bool
    model: str | None


def metered(
    usage_format: UsageFormat,
    chunks: Iterable[bytes],
    *,
    headers: Iterable[tuple[bytes, bytes]] = EVENTS,
    reserved: Mapping[str, int] | None = None,
    status: int = 200,
) -> Metered:
    """Feed a response to a meter and return what it says."""
    meter = Meter(usage_format, headers is EVENTS, reserved)
    meter.start(status, [(name.lower(), value) for name, value in headers])
    for chunk in chunks:
        meter.feed(chunk)
    return Metered(dict(meter.usage()), meter.ended, meter.failed, meter.served_model)


def events(*documents: object, named: bool = False, ending: bytes = b"\n") -> bytes:
    """Return documents as a stream of events; a string is sent as it is."""
    lines = []
    for document in documents:
        text = document if isinstance(document, str) else json.dumps(document)
        if named and isinstance(document, dict):
            lines.append(b"event: " + document["type"].encode())
        lines += [b"data: " + text.encode(), b""]
    return ending.join([*lines, b""])


def cuts(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield data in two pieces, cut at every position."""
    return ((data[:at], data[at:]) for at in range(len(data) + 1))


def distant_cuts(data: bytes, apart: int = 1000) -> Iterable[list[bytes]]:
    """Yield data in pieces, until it was cut at every position: at several at once, far apart.

    Between two cuts of a long stream there are whole events, as if each were the only one.
    """
    for first in range(min(apart, len(data) + 1)):
        ends = [0, *range(first, len(data) + 1, apart), len(data)]
        yield [data[start:end] for start, end in pairwise(ends)]
