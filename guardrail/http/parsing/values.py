"""What a request asks for, as values: the outcome of reading, its bounds, and what may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from guardrail.errors import GuardrailError
from guardrail.http.dialects import Dialect, UsageFormat

Headers = Iterable[tuple[bytes, bytes]]
"""Header fields as they came, names in any case."""

FREE: Mapping[str, int] = MappingProxyType({"requests": 1, "input_tokens": 0, "output_tokens": 0})
"""The estimate of a request that makes no model speak: a request it is all the same."""


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """How much of a body is read, and what is assumed of input that is not in it.

    Sizes are in bytes; `max_unknown_body` is that of callers whom no directory knows, where one is
    asked. `max_nodes` bounds objects and lists, `max_keys` keys, `max_strings` keys and strings,
    and `max_values` keys and values of any kind: the work and the memory that a body takes, and a
    file of several.
    `unseen_tokens` is added for each reference to input kept by the host (an earlier
    response, a conversation, a cache, a file), `media_tokens` for each picture, sound or document.
    `max_batch_lines` bounds how many lines of a batch are read one by one; of a longer one the
    rest is taken at its worst. `unseen_batch` is how many completions the creation of a batch
    asks for whose lines came earlier, as a file, and were counted then.
    """

    max_body: int = 10 << 20
    max_unknown_body: int = 4 << 20
    max_depth: int = 100
    max_nodes: int = 100_000
    max_keys: int = 150_000
    max_strings: int = 250_000
    max_values: int = 500_000
    max_batch_lines: int = 2_000
    unseen_tokens: int = 4_096
    media_tokens: int = 1_600
    unseen_batch: int = 1


class ParsedRequest(NamedTuple):
    """What one request asks for.

    `facts` holds what is known of the `request.…` facts. `estimate` is in the units of limits:
    `requests` (completions asked for), `input_tokens`, and `output_tokens`, which is absent where
    the request sends no cap. `problem` says why the body could not be read, in words for the
    client: such a request counts as the most restricted kind and is never free; `status` is the
    answer that fits (400, 413 or 415) and `param` the member at fault, where there is one;
    `ambiguous` tells that a host may read all the same what could not be read here.
    `document` is the decoded body and `body` its bytes.
    """

    dialect: Dialect
    facts: Mapping[str, object]
    estimate: Mapping[str, int]
    usage_format: UsageFormat
    problem: str | None = None
    status: int | None = None
    param: str | None = None
    document: object = None
    body: bytes | None = None
    path: str = ""
    ambiguous: bool = False

    def __repr__(self) -> str:
        """Show what is asked for, and nothing of the body."""
        problem = "" if self.problem is None else f", problem={self.problem!r}"
        told = f"{self.dialect.value}, {dict(self.facts)}, {dict(self.estimate)}{problem}"
        return f"ParsedRequest({told})"

    @property
    def streams(self) -> bool:
        """Whether the client asked for a stream."""
        return self.facts.get("request.stream") is True


class RequestParts(NamedTuple):
    """A request as a classifier of the host's own gets it; `body` is None if it was not read."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None
    hash_key: bytes
    limits: ReadingLimits


Classifier = Callable[[RequestParts], ParsedRequest | None]
"""Reads a request the host knows better; None leaves it to the standard reading.

Over ASGI it is called in a thread for bodies of more than 64 KiB.
"""


class UnreadableError(GuardrailError):
    """A body, or a member of it, cannot be read; the message is for the client.

    `completions` is how many it may ask for all the same.
    """

    completions: int = 1

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class RewriteError(GuardrailError):
    """A body cannot be changed as a decision obliges: it must not be passed on as it is."""


def shown(value: object) -> str:
    """Return a client's value as messages show it, cut short."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
