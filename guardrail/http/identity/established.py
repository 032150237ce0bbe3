"""Who asks, where the host authenticates by itself: what its own function hands over."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from guardrail.errors import SettingError
from guardrail.loading import nearest
from guardrail.model.facts import Fact
from guardrail.signals.directory import GarbageError, Identity, Reports, Vocabulary, place_of

Told = Mapping[str, object] | None
Identify = Callable[[Mapping[str, Any]], Told] | Callable[[Mapping[str, Any]], Awaitable[Told]]
"""Tells who asks, as server facts, from an ASGI scope or a WSGI environ; None: nobody is known.

`account.id` must be among the facts. It is asked for each request, and each turn of a session.
"""


NOT_AWAITED = "`identify` is async: WSGI needs a plain function"


class Established:
    """Asks the host's own function who asks, and checks that it tells an identity.

    What it tells counts as a directory's facts do: it is the server that says so. Where it raises,
    what it would tell is unavailable, and nothing stands in for it.
    """

    __slots__ = ("_function", "_vocabulary", "reports")

    def __init__(self, function: Identify, facts: Mapping[str, Fact]) -> None:
        """Take the function, and a policy set's facts."""
        self._function = function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        self.reports = Reports(f"`identify` ({name})", "requests that hinge on it are refused")
        self._vocabulary = Vocabulary(facts)

    @property
    def is_async(self) -> bool:
        """Whether the function has to be awaited, as far as can be told without calling it."""
        function = self._function
        called = function if inspect.isroutine(function) else type(function).__call__
        return inspect.iscoroutinefunction(called)

    def look_up(self, connection: Mapping[str, Any], now: float) -> Identity | None:
        """Return who asks at `now` (seconds since the epoch), None if the host knows nobody.

        Raises:
            SettingError: the function has to be awaited, or tells no identity.
        """
        try:
            told = self._function(connection)
        except Exception as problem:  # whatever the host's own code raises
            return self._failed(problem, now)
        if inspect.isawaitable(told):
            if inspect.iscoroutine(told):
                told.close()
            raise SettingError(NOT_AWAITED)
        return self._identity(told, now)

    async def find(self, connection: Mapping[str, Any], now: float) -> Identity | None:
        """Return the same from a function that may be async; a plain one runs on the loop.

        Raises:
            SettingError: the function tells no identity.
        """
        try:
            told = self._function(connection)
            if inspect.isawaitable(told):
                told = await told
        except Exception as problem:  # as above
            return self._failed(problem, now)
        return self._identity(told, now)

    def _failed(self, problem: Exception, now: float) -> Identity:
        self.reports.record(place_of(problem), now)
        return Identity({}, self._vocabulary.provides)

    def _identity(self, told: object, now: float) -> Identity | None:
        facts = self._checked(told)
        self.reports.record(None, now)
        return None if facts is None else Identity(facts)

    def _checked(self, told: object) -> Mapping[str, object] | None:
        if told is None:
            return None
        if not isinstance(told, Mapping):
            raise SettingError(
                f"`identify` returned a `{type(told).__name__}`: return a mapping of facts, such "
                'as {"account.id": "a1"}, or None where nobody is known'
            )
        for name in told:
            if name not in self._vocabulary.provides:
                known = sorted(self._vocabulary.provides)
                near = nearest(name, known) if isinstance(name, str) else None
                hint = f"did you mean `{near}`?" if near else f"it can tell {_listed(known)}"
                raise SettingError(f"`identify` tells `{name}`, which is no fact of it: {hint}")
        try:
            return self._vocabulary.read(told)
        except GarbageError as problem:
            raise SettingError(f"`identify` tells no identity: {problem}") from None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
