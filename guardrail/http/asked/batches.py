"""Batches: many requests in one body, counted one by one as far as bounds allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guardrail.http.asked.counts import Counts
from guardrail.http.asked.documents import read_document
from guardrail.http.asked.shapes import Shape, merged, shape_of
from guardrail.http.asked.values import ReadingLimits, UnreadableError

UNREAD = Shape(Counts(1, None), None, (), "agentic", False, False, (), 0)
"""A request of a batch that was not read: the most restricted, without a cap."""


def shape_of_batch(document: Mapping[str, object], limits: ReadingLimits) -> Shape:
    """Return the sum of the requests a batch holds.

    A batch that holds none names a file that was sent before: it asks for `unseen_batch`.
    """
    bodies = list(_bodies(document))
    if not bodies:
        return UNREAD._replace(
            counts=Counts(limits.unseen_batch, None), capability="batch", unseen=1
        )
    return _sum(
        (shape_of(body, "batch") for body in bodies[: limits.max_batch_lines]),
        len(bodies) - limits.max_batch_lines,
    )


def shape_of_lines(content: bytes, limits: ReadingLimits) -> tuple[Shape, int]:
    """Return the sum of a file of requests, one a line, and the tokens of their input.

    Raises:
        UnreadableError: a line is not a request; the message says which.
    """
    lines = [line for line in content.splitlines() if line.strip()]
    tokens = 0
    shapes = []
    for number, line in enumerate(lines[: limits.max_batch_lines], 1):
        try:
            document = read_document(line, limits)
            body = document.value.get("body") if isinstance(document.value, dict) else None
            if not isinstance(body, dict):
                raise UnreadableError("there is no `body` with the request")
            shapes.append(shape_of(body, "batch"))
        except UnreadableError as error:
            raise UnreadableError(f"line {number} of the batch: {error}", param="file") from None
        tokens += document.tokens
    rest = lines[limits.max_batch_lines :]
    return _sum(iter(shapes), len(rest)), tokens + sum(len(line) // 4 + 1 for line in rest)


def _sum(shapes: Iterator[Shape], unread: int) -> Shape:
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
