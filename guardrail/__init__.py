"""Guardrail: policies and rate limits for AI APIs, decided in the server that serves them."""

from __future__ import annotations

from guardrail.engine import Decision, Explanation, LimitStatus, ShadowReport
from guardrail.errors import DataError, GuardrailError, PolicyError, SettingError, StoreError
from guardrail.guard import AsyncGuard, Guard, Health
from guardrail.model.effects import Effect, StoreMode

__version__ = "0.1.0"

__all__ = [
    "AsyncGuard",
    "DataError",
    "Decision",
    "Effect",
    "Explanation",
    "Guard",
    "GuardrailError",
    "Health",
    "LimitStatus",
    "PolicyError",
    "SettingError",
    "ShadowReport",
    "StoreError",
    "StoreMode",
]
