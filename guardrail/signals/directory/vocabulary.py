"""Which facts a directory may establish, and whether what a source answered is of their types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from guardrail.errors import SettingError
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source
from guardrail.model.typed import typed_value
from guardrail.signals.directory.kept import SourceError

LONGEST_VALUE = 1024
"""Characters of the longest text that is taken for a fact's value."""

_OF_THE_CONNECTION = frozenset(
    name
    for name, fact in STANDARD_FACTS.items()
    if name.partition(".")[0] in {"client", "geo", "network", "time", "actor", "credential"}
)
_CLOSED = (FactType.ENUM, FactType.LEVEL)


class GarbageError(SourceError):
    """What a source answered is no answer; the message shows nothing of it."""


class Vocabulary:
    """The facts that directories establish: those of the server, but for the connection's own."""

    __slots__ = ("_facts", "provides")

    def __init__(self, facts: Mapping[str, Fact], provides: Iterable[str] | None = None) -> None:
        """Take a policy set's facts and, if a source knows fewer than all, the names it gives.

        Raises:
            SettingError: a name is no fact, or one that no directory may establish.
        """
        able = {
            name: fact
            for name, fact in facts.items()
            if fact.source is Source.SERVER and name not in _OF_THE_CONNECTION
        }
        names = able.keys() if provides is None else {"account.id", *provides}
        for name in names - able.keys():
            why = "no policy declares it" if name not in facts else "it is not a directory's to say"
            raise SettingError(f"a directory cannot establish `{name}`: {why}")
        self._facts = {name: able[name] for name in sorted(names) if name in able}
        self.provides = frozenset(self._facts)

    def read(self, told: Mapping[str, object]) -> dict[str, object]:
        """Return the facts among what a source told, null ones and names it does not give left out.

        A text that is not among the values of an enum or a level is kept as it is: the decision
        takes it as missing, with no default in its place, so that it grants nothing.

        Raises:
            GarbageError: a value is not of its fact's type, or an account has no id.
        """
        found: dict[str, object] = {}
        for name in self._facts:
            value = self.value(name, told.get(name))
            if value is not None:
                found[name] = value
        if "account.id" not in found:
            raise GarbageError("it names no `account.id`")
        return found

    def value(self, name: str, told: object) -> object | None:
        """Return one fact's value as `read` does; None if there is none.

        Raises:
            GarbageError: it is not of its fact's type.
        """
        if told is None:
            return None
        fact = self._facts[name]
        value = typed_value(fact, told)
        if value is None and fact.type in _CLOSED and isinstance(told, str):
            value = told
        if value is None:
            raise GarbageError(
                f"`{name}` is `{type(told).__name__}`, not of type {fact.type.value}"
            )
        if isinstance(value, str) and not 0 < len(value) <= LONGEST_VALUE:
            raise GarbageError(f"`{name}` is empty, or longer than {LONGEST_VALUE} characters")
        return value
