"""What a decision can come to, and how firmly a rule is meant."""

from __future__ import annotations

import enum


class Effect(enum.IntEnum):
    """The outcome of a decision; a greater effect is more restrictive, and prints lower case."""

    ALLOW = 0
    DEGRADE = 1
    THROTTLE = 2
    BLOCK = 3

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @property
    def refuses(self) -> bool:
        """Whether the request is turned away: throttle and block."""
        return self >= _THROTTLE


_THROTTLE = Effect.THROTTLE


EFFECTS = tuple(map(str, Effect))
"""The names of all effects, the mildest first."""


class Mode(enum.Enum):
    """Whether a rule is enforced, only reported (shadow), or left out."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class StoreMode(enum.Enum):
    """How the counters of one decision were kept."""

    NORMAL = "normal"
    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"

    __hash__ = object.__hash__  # each is there once: as a key it needs no call

    def __str__(self) -> str:
        return self.value
