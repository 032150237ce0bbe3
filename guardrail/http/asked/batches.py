"""Batches: many requests in one body, counted one by one as far as bounds allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from guardrail.http.asked.caps import CapRules, caps_of
from guardrail.http.asked.counts import Counts
from guardrail.http.asked.documents import read_document
from guardrail.http.asked.endpoints import endpoint_of
from guardrail.http.asked.folding import Work
from guardrail.http.asked.shapes import Shape, merged, shape_of
from guardrail.http.asked.values import ReadingLimits, UnreadableError

_MOST_BREAKS = 200_000
_PIECE = 1 << 18
UNREAD = Shape(Counts(1, None), None, (), "agentic", False, False, (), 0)
"""A request of a batch that was not read: the most restricted, without a cap."""


def shape_of_batch(document: Mapping[str, object], rules: CapRules, limits: ReadingLimits) -> Shape:
    """Return the sum of the requests a batch holds.

    A batch that holds none names a file that was sent before: it asks for `unseen_batch`.
    """
    bodies = list(_bodies(document))
    if not bodies:
        return UNREAD._replace(
            counts=Counts(limits.unseen_batch, None), capability="batch", unseen=1
        )
    return _sum(
        (shape_of(body, "batch", rules) for body in bodies[: limits.max_batch_lines]),
        len(bodies) - limits.max_batch_lines,
    )


def shape_of_lines(content: bytes, limits: ReadingLimits) -> tuple[Shape, int]:
    """Return the sum of a file of requests, one a line, and the tokens of their input.

    Raises:
        UnreadableError: a line is not a request; the message says which.
    """
    lines = _lines(content)
    tokens = 0
    shapes = []
    work = Work(limits)
    for number, line in enumerate(lines[: limits.max_batch_lines], 1):
        try:
            work.add(line)
            document = read_document(line, limits)
            shapes.append(_shape_of_line(document.value))
        except UnreadableError as error:
            raise UnreadableError(f"line {number} of the batch: {error}", param="file") from None
        tokens += document.tokens
    rest = lines[limits.max_batch_lines :]
    return _sum(shapes, len(rest)), tokens + sum(len(line) // 4 + 1 for line in rest)


def _lines(content: bytes) -> list[bytes]:
    """Return the lines of a file but for blank ones, found piece by piece."""
    breaks = 0
    for at in range(0, len(content), _PIECE):
        end = at + _PIECE
        breaks += content.count(b"\n", at, end) + content.count(b"\r", at, end)
        if breaks > _MOST_BREAKS:
            raise UnreadableError(
                f"the batch has more than {_MOST_BREAKS} lines; send less at once", param="file"
            )
    found, at = [], 0
    while at < len(content):
        end = content.find(b"\n", at) + 1 or len(content)
        found += [line for line in content[at:end].splitlines() if line.strip()]
        at = end
    return found


def _shape_of_line(line: object) -> Shape:
    members = line if isinstance(line, dict) else {}
    body, url = members.get("body"), members.get("url")
    if not isinstance(body, dict):
        raise UnreadableError("there is no `body` with the request")
    return shape_of(body, "batch", caps_of(endpoint_of(url if isinstance(url, str) else "")))


def _sum(shapes: Iterable[Shape], unread: int) -> Shape:
    every = list(shapes)
    if unread > 0:
        every.append(UNREAD._replace(counts=Counts(unread, None)))
    return merged(every) or UNREAD


def _bodies(document: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield the requests in a batch of Anthropic's (`params`) or of Gemini's (`request`)."""
    batch = document.get("batch", document)
    for name in ("input_config", "inputConfig", "requests"):
        inner = batch.get(name) if isinstance(batch, dict) else None
        batch = inner if isinstance(inner, dict) else batch
    requests = batch.get("requests") if isinstance(batch, dict) else None
    for request in requests if isinstance(requests, list) else []:
        body = request.get("params", request.get("request")) if isinstance(request, dict) else None
        yield body if isinstance(body, dict) else {}
