"""The signals every guard has: the country and the network of an address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guardrail.model.policy import PolicySet
from guardrail.signals import Signal


def standard_signals(
    policies: PolicySet, geo: str | Path | None, environ: Mapping[str, str]
) -> tuple[Signal, ...]:
    """Return the signals that need no configuration but a database's path."""
    return ()
