"""The guard a host embeds: it reads the clock, asks the signals, calls the store, and decides."""

from __future__ import annotations

from guardrail.guard.guard import AsyncGuard, Guard
from guardrail.guard.supervisor import Health

__all__ = ["AsyncGuard", "Guard", "Health"]
