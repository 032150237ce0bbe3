"""The settings of a door, as values: what is read, what is bounded, how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guardrail.http.identity import CallerResolver
from guardrail.http.parsing import Classifier, Dialect, ReadingLimits
from guardrail.http.responses import Style

MAX_BODY = 32 << 20
MAX_UNKNOWN_BODY = 4 << 20
BODY_TIMEOUT = 60.0
MAX_HELD = 1000


class OwnRefusal(NamedTuple):
    """A refusal that no decision stands behind: the id its client sees, and why."""

    id: str
    status: int
    code: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How requests are read and answered.

    `hash_key` keys what is told of templates and tools; the `callers` tells who asks. `exempt`
    paths are let through, exactly as written. `dialect` is spoken where the endpoint does not
    tell.
    `body_timeout` (seconds) bounds how long a body may take. A throttle no longer than
    `max_delay` seconds is waited out, by at most `max_held` requests at a time, and over WSGI by
    at most half of the server's `threads` (0: as many as were seen serving). With
    `refuse_unreadable`, a body that its endpoint cannot take is refused; else it counts as the
    most restricted kind. `stream_usage` asks the host for the usage of streams, for hosts that
    take `stream_options`. Counts are told at the path `metrics` to who sends `metrics_token`.
    `on_refusal` is told of each refusal that no decision stands behind.
    """

    hash_key: bytes = field(repr=False)
    style: Style = field(default_factory=Style)
    callers: CallerResolver
    exempt: frozenset[str] = frozenset()
    dialect: Dialect = Dialect.OTHER
    reading: ReadingLimits = field(default_factory=lambda: ReadingLimits(max_body=MAX_BODY))
    classifiers: Sequence[Classifier] = ()
    body_timeout: float = BODY_TIMEOUT
    max_delay: float = 0.0
    max_held: int = MAX_HELD
    threads: int = 0
    refuse_unreadable: bool = True
    stream_usage: bool = False
    metrics: str | None = None
    metrics_token: bytes = field(default=b"", repr=False)
    on_refusal: Callable[[OwnRefusal], None] = lambda refusal: None
