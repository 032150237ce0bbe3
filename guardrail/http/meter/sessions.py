"""Which meter follows a connection, by its path, its query and its credential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from guardrail.http.asked.endpoints import endpoint_of
from guardrail.http.asked.values import Classifier, ReadingLimits
from guardrail.http.meter.lanes import PATH, ResponsesMeter
from guardrail.http.meter.live import METHOD, LiveMeter
from guardrail.http.meter.realtime import RealtimeMeter
from guardrail.http.meter.turns import SessionMeter


def session_meter(
    path: str,
    query: bytes,
    *,
    hash_key: bytes,
    limits: ReadingLimits,
    model: str | None,
    ephemeral: bool = False,
    classifiers: Sequence[Classifier] = (),
) -> SessionMeter:
    """Return what follows a WebSocket; one that is not known takes each frame for a request.

    `ephemeral` tells that the client's credential was made for one session, whose setup is then
    not seen here.
    """
    endpoint = endpoint_of(path).name
    known: dict[str, Any] = {
        "hash_key": hash_key,
        "endpoint": endpoint,
        "model": model,
        "limits": limits,
    }
    named = parse_qs(query.decode("utf-8", "replace"))
    if endpoint == PATH:
        return ResponsesMeter(classifiers=classifiers, **known)
    if endpoint.startswith("/v1/realtime"):
        stored = ephemeral or "call_id" in named or endpoint != "/v1/realtime"
        transcribes = "transcription" in named.get("intent", ())
        return RealtimeMeter(transcribes=transcribes, stored=stored, **known)
    if METHOD in path.rpartition("/")[2].lower():
        return LiveMeter(stored=ephemeral, **known)
    return SessionMeter(**known)
