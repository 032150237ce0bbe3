"""One self-contained page about simulations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def page(told: Mapping[str, Any]) -> str:
    """Return the page."""
    return ""
