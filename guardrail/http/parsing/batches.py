"""Batches: many requests in one body, or in a file with one a line, counted one by one in bounds.

What is read costs little, however large the files are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from operator import itemgetter

from guardrail.http.parsing.caps import Counts, caps_of
from guardrail.http.parsing.endpoints import CapRules, endpoint_of
from guardrail.http.parsing.folding import Work
from guardrail.http.parsing.json_body import read_document
from guardrail.http.parsing.shape import Shape, merged, shape_of
from guardrail.http.parsing.values import ReadingLimits, UnreadableError

_MOST_BREAKS = 200_000
_PIECE = 1 << 18
_WRAPPERS = tuple(
    "batch input_config inputConfig requests inlined_requests inlinedRequests instances".split()
)
_BODIES = ("params", "request", "body")
# A line of a file that is, or begins, a JSON object with a member.
_OBJECT = re.compile(rb'(?:\A(?:\xef\xbb\xbf)?|[\r\n])[ \t]*+(\{[ \t]*+(?:"[^\r\n]*+|\Z))')
_FILES = tuple(
    "input_file_id input_files file_id file_name fileName src gcs_source gcsSource "
    "input_uri inputUri".split()
)
UNREAD = Shape(Counts(1, None), None, (), "agentic", False, False, (), 0, True, False)
"""A request of a batch that was not read: the most restricted, without a cap."""
NO_BATCH = frozenset(
    "assistants assistants_output batch_output fine-tune fine-tune-results vision user_data evals "
    "skills ocr search retrieval".split()
)
"""Purposes of files that are known to hold no requests."""


def shape_of_batch(document: Mapping[str, object], rules: CapRules, limits: ReadingLimits) -> Shape:
    """Return the sum of the requests a batch holds.

    A batch that holds none names a file that was sent before: it asks for `unseen_batch`.
    """
    bodies, stored = _requests_in(document)
    shapes = [shape_of(body, "batch", rules) for body in bodies[: limits.max_batch_lines]]
    if stored or not bodies:
        counts = Counts(limits.unseen_batch, None)
        shapes.append(UNREAD._replace(counts=counts, capability="batch", unseen=1))
    return _sum(shapes, len(bodies) - limits.max_batch_lines)


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


def shape_of_upload(
    content: bytes, rules: CapRules, limits: ReadingLimits
) -> tuple[Shape | None, int]:
    """Return the sum of the requests in a file that may be of any kind, and their input's tokens.

    The shape is None where there are none. The file may come in pieces: a line that is cut off is
    taken at its worst where it begins, and is passed over where it ends.
    """
    shapes: list[Shape] = []
    tokens = unread = 0
    work = Work(limits)
    for line in map(itemgetter(1), _OBJECT.finditer(content)):
        try:
            if len(shapes) >= limits.max_batch_lines:
                raise UnreadableError("there are more lines than are read one by one")
            work.add(line)
            document = read_document(line, limits)
            found = [shape_of(body, "batch", rules) for body in _wrapped(document.value)]
        except UnreadableError:
            unread, tokens = unread + 1, tokens + len(line) // 4 + 1
            continue
        shapes += found
        tokens += document.tokens if found else 0
    return (_sum(shapes, unread) if shapes or unread else None), tokens


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


def _requests_in(
    document: Mapping[str, object],
) -> tuple[list[Mapping[str, object]], bool]:
    """Return the requests in a batch, wherever a vendor puts them, and whether a file is named too.

    Anthropic wraps each in `params`, Gemini in `request`, and their list in up to three others.
    Whatever may be one counts, for a host reads the list that it knows.
    """
    bodies: list[Mapping[str, object]] = []
    stored = False
    stack: list[object] = [document]
    while stack:
        batch = stack.pop()
        if not isinstance(batch, dict):
            continue
        stored = stored or any(batch.get(name) is not None for name in _FILES)
        for name in _WRAPPERS:
            inner = batch.get(name)
            if isinstance(inner, dict):
                stack.append(inner)
            elif isinstance(inner, list):
                for request in inner:
                    bodies += _alone(request)
    return bodies, stored


def _alone(request: object) -> list[Mapping[str, object]]:
    """Return one request of a batch without its wrapping; as several, where it has several."""
    if not isinstance(request, dict):
        return [{}]
    return _wrapped(request) or [request]


def _wrapped(line: object) -> list[Mapping[str, object]]:
    """Return what an object wraps as a request, nothing if it wraps none."""
    members = line if isinstance(line, dict) else {}
    return [members[name] for name in _BODIES if isinstance(members.get(name), dict)]
