"""The arguments of a door, with their types: what editors offer, and type checkers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict

from guardrail.decisionlog import DecisionSink
from guardrail.guard import AsyncGuard, Guard
from guardrail.http.asked import Classifier
from guardrail.http.identity import CredentialSource
from guardrail.http.identity.established import Identify
from guardrail.signals import Proxies, Signal
from guardrail.signals.directory import Directory
from guardrail.stores import AsyncStore, Store


class Options(TypedDict, total=False):
    """Every setting of a door, by the name that it has as an argument; None leaves one out.

    Those that a file can hold have the same names there (`guardrail.http.settings.given.NAMES`).
    """

    blocked_by: str | None
    body_timeout: float | None
    classifiers: Sequence[Classifier] | None
    clock: Callable[[], float] | None
    config: str | Path | None
    cors_origins: str | Sequence[str] | None
    credentials: str | Sequence[str] | CredentialSource | None
    decision_log: str | Path | None
    decision_sink: DecisionSink | None
    dialect: str | None
    directory: str | Path | Directory | Mapping[str, object] | Callable[..., Any] | None
    environ: Mapping[str, str] | None
    exempt: str | Sequence[str] | None
    geo: str | Path | None
    guard: Guard | AsyncGuard | None
    hash_key: str | bytes | Sequence[bytes] | None
    hash_key_file: str | Path | Sequence[str | Path] | None
    identify: str | Identify | None
    jitter: Callable[[], float] | None
    local_share: str | Fraction | None
    max_body: int | None
    max_delay: float | None
    max_held: int | None
    max_unknown_body: int | None
    metrics: str | None
    metrics_dir: str | Path | None
    namespace: str | None
    partition_keys: bool | None
    policies: str | Path | Sequence[str | Path] | None
    proxies: str | Sequence[str] | Proxies | Mapping[str, object] | None
    ratelimit_fields: str | None
    reload: float | None
    remedies: Mapping[str, str] | None
    reset_spread: float | None
    signals: Sequence[Signal] | None
    store: str | Store | AsyncStore | None
    stream_usage: bool | None
    threads: int | None
    unreadable: str | None
    vendor_headers: bool | None
