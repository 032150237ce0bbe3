"""The ids that come with a request: by them, an operator joins our log to those of others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from guardrail.http.exchange.head import Head

REQUEST_ID, TRACE_ID = "incoming request id", "incoming trace id"
"""Where a request's facts carry them: no fact of a policy has a blank in its name."""

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class OwnRefusal(NamedTuple):
    """A refusal that no decision stands behind: the id its client sees, and why."""

    id: str
    status: int
    code: str
    facts: Mapping[str, object]


def incoming_ids(head: Head) -> dict[str, str]:
    """Return the `X-Request-ID` and the trace of a request, as far as they can be one.

    Whoever sends the request chooses them: they are told in the log, and nothing rests on them.
    Source: W3C Trace Context, `traceparent`.
    """
    found: dict[str, str] = {}
    for name, value in head.headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            found.setdefault(REQUEST_ID, value.decode("ascii"))
        elif name == b"traceparent":
            match = _TRACE.fullmatch(value)
            if match is not None:
                found.setdefault(TRACE_ID, match[1].decode("ascii"))
    return found
