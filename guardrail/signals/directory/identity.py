"""Credentials by their keyed hashes, whom they belong to, and which facts a directory may give."""

from __future__ import annotations

import enum
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple, NoReturn, Protocol

from guardrail.errors import SettingError
from guardrail.model.facts import STANDARD_FACTS, Fact, FactType, Source, typed_value

_ID_BYTES = 18
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


TRIMMED = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""What is cut from both ends of a credential: ASCII white space as `str.strip` knows it."""


class Secret:
    """The bytes of a key or a token, which no repr, log, error or pickle shows."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class CredentialKind(enum.Enum):
    """Where a request carries its credential."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    API_KEY = "api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    QUERY = "query"
    SUBPROTOCOL = "subprotocol"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as a request carried it; equal to another of the same bytes.

    `id` is its keyed hash, the only form in which it is kept, compared and logged. `secret` lives
    as long as the request: directories that verify a token read it. `origin` is the address it came
    from, where that is known: those that ask a source are fair between networks.
    """

    id: str
    kind: CredentialKind = field(compare=False)
    secret: Secret = field(compare=False, repr=False)
    origin: str | None = field(default=None, compare=False, repr=False)


class Identity(NamedTuple):
    """Who asks, as far as a directory knows.

    `facts` are server facts; none but those of the connection if the credential is unknown.
    `unavailable` names the facts whose source failed. `problem` says why a credential was not
    accepted, or what is wrong with its entry; it holds no secret. `expires` is when, in seconds
    since the epoch, who serves the request for longer should ask again.
    """

    facts: Mapping[str, object] = MappingProxyType({})
    unavailable: frozenset[str] = frozenset()
    problem: str | None = None
    expires: float | None = None

    @property
    def known(self) -> bool:
        """Whether the credential is known to be an account's."""
        return "account.id" in self.facts


class Directory(Protocol):
    """Tells whose a credential is.

    Nothing of what a client says about itself is asked for: a directory sees the credential alone.
    One whose credentials can be written in several ways also has `essence(credential)`: the bytes
    by which a credential that it knows is this one, and named in `credential.id`. One that can
    fail also has `health`, a `guardrail.signals.directory.reports.SourceHealth`, for metrics.
    """

    @property
    def provides(self) -> frozenset[str]:
        """The names of the facts this directory can establish."""
        ...

    def look_up(self, credential: Credential, now: float) -> Identity:
        """Return whose a credential is at `now` (seconds since the epoch); may wait, bounded."""
        ...

    async def find(self, credential: Credential, now: float) -> Identity:
        """Return the same without blocking the event loop."""
        ...

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know at `now`: a source that does not answer, say."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def credential_id(secret: bytes | str, hash_key: bytes) -> str:
    """Return the keyed hash of a credential, 24 characters: what directories know it by.

    White space around it is trimmed first; text is taken as UTF-8.
    """
    raw = secret.encode() if isinstance(secret, str) else secret
    digest = blake2b(raw.strip(TRIMMED), key=hash_key, digest_size=_ID_BYTES, person=b"credential")
    return b2a_base64(digest.digest(), newline=False).translate(_URL_SAFE).decode("ascii")


class SourceError(Exception):
    """A source failed, or what it told is no answer; the message shows nothing of it."""


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

    __slots__ = ("_closed", "_facts", "provides")

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
        self._closed = tuple(fact for fact in self._facts.values() if fact.type in _CLOSED)
        self.provides = frozenset(self._facts)

    def unlisted(self, facts: Mapping[str, object]) -> tuple[Fact, ...]:
        """Return the facts whose value, as `read` returned it, is none of those that they list."""
        return tuple(
            fact
            for fact in self._closed
            if (told := facts.get(fact.name)) is not None and told not in fact.values
        )

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
