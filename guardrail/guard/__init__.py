"""The guard a host embeds: it reads the clock, asks the signals, calls the store, and decides."""

from __future__ import annotations

from guardrail.guard.asynchronous import AsyncGuard
from guardrail.guard.health import Health
from guardrail.guard.synchronous import Guard

__all__ = ["AsyncGuard", "Guard", "Health"]
