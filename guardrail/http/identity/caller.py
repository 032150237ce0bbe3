"""Who asks: the credential of a request as a keyed hash, its address, and whose they are.

Where the host authenticates by itself, its own function hands over whose a request is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from guardrail.errors import GuardrailError, SettingError
from guardrail.loading import nearest
from guardrail.model.facts import Fact
from guardrail.signals import ClientAddress, Proxies, client_address, is_proxy
from guardrail.signals.directory import (
    TRIMMED,
    Credential,
    CredentialKind,
    Directory,
    GarbageError,
    Identity,
    Reports,
    Secret,
    SourceHealth,
    Vocabulary,
    credential_id,
    place_of,
)

Headers = Iterable[tuple[bytes, bytes]]

SUBPROTOCOL_PREFIX = "openai-insecure-api-key."
"""What a WebSocket subprotocol starts with that carries a key, as browsers send it to OpenAI."""

CREDENTIAL_FIELDS: Mapping[CredentialKind, bytes] = MappingProxyType(
    {
        CredentialKind.BEARER: b"authorization",
        CredentialKind.X_API_KEY: b"x-api-key",
        CredentialKind.API_KEY: b"api-key",
        CredentialKind.X_GOOG_API_KEY: b"x-goog-api-key",
    }
)
"""The fields that carry credentials, by their kinds."""

_JOINED = re.compile(rb",[ \t]*+(?=bearer[ \t])", re.IGNORECASE)
_BEARER = CredentialKind.BEARER
_USUAL, _BEGINS = frozenset({b"authorization"}), b"Bearer "


class AmbiguousCredentialError(GuardrailError):
    """A request carries two different credentials where the host authenticates one."""

    def __init__(self, kinds: Sequence[CredentialKind]) -> None:
        self.kinds = tuple(kinds)
        places = " and ".join(f"`{kind.value}`" for kind in dict.fromkeys(kinds))
        super().__init__(f"two different credentials in {places}: send one")


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where the host authenticates credentials; nowhere else is one read.

    `query` is the parameter of a key in the query, `subprotocol` what a WebSocket subprotocol
    with a key starts with.
    """

    kinds: frozenset[CredentialKind] = frozenset({_BEARER})
    query: str = "key"
    subprotocol: str = SUBPROTOCOL_PREFIX
    wanted: Mapping[bytes, CredentialKind] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the headers that are read."""
        wanted = {CREDENTIAL_FIELDS[kind]: kind for kind in self.kinds if kind in CREDENTIAL_FIELDS}
        object.__setattr__(self, "wanted", wanted)

    @classmethod
    def of(cls, *names: str, query: str = "key") -> CredentialSource:
        """Take the values of `CredentialKind`: `CredentialSource.of("bearer", "x-api-key")`.

        Raises:
            SettingError: a name is none of them, or there is none.
        """
        known = {kind.value: kind for kind in CredentialKind}
        for name in names:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean `{near}`?" if near else f"write one of {', '.join(known)}"
                raise SettingError(f"`{name}` is no place of a credential; {hint}")
        if not names:
            raise SettingError(f"no place of credentials is named; write one of {', '.join(known)}")
        return cls(frozenset(known[name] for name in names), query)


def credential_of(
    headers: Headers,
    query: bytes = b"",
    subprotocols: Sequence[str] = (),
    *,
    reads: CredentialSource,
    hash_key: bytes,
    origin: str | None = None,
) -> Credential | None:
    """Return the credential of a request, None if it carries none (an empty one is none).

    White space around it is trimmed (`TRIMMED`); then its exact bytes count, case included. A
    scheme other than Bearer is no credential of ours.

    Raises:
        AmbiguousCredentialError: the request carries two different ones.
    """
    found = _carried(headers, reads)
    if query and CredentialKind.QUERY in reads.kinds:
        found += [(v, CredentialKind.QUERY) for v in _parameters(query, reads.query.encode())]
    if subprotocols and CredentialKind.SUBPROTOCOL in reads.kinds:
        start = reads.subprotocol
        keys = [text[len(start) :] for text in subprotocols if text.startswith(start)]
        found += [(k.encode("utf-8", "surrogateescape"), CredentialKind.SUBPROTOCOL) for k in keys]
    first: tuple[bytes, CredentialKind] | None = None
    for raw, kind in found:
        value = raw.strip(TRIMMED)
        if not value:
            continue
        if first is None:
            first = value, kind
        elif first[0] != value:
            raise AmbiguousCredentialError([first[1], kind])
    if first is None:
        return None
    return Credential(credential_id(first[0], hash_key), first[1], Secret(first[0]), origin)


def _carried(headers: Headers, reads: CredentialSource) -> list[tuple[bytes, CredentialKind]]:
    """Return what header fields carry, as it was sent."""
    wanted = reads.wanted
    found: list[tuple[bytes, CredentialKind]] = []
    for name, value in headers:
        kind = wanted.get(name.lower())
        if kind is None:
            continue
        if kind is not _BEARER:
            found.append((value, kind))
            continue
        # Servers of WSGI join the lines of a field that is sent twice.
        for line in _JOINED.split(value) if b"," in value else (value,):
            parts = line.strip(TRIMMED).split(None, 1)
            if len(parts) == 2 and parts[0].lower() == b"bearer":
                found.append((parts[1], kind))
    return found


def _usual_secret(value: bytes) -> bytes:
    """Return what a field carries that is written as nearly all are; of others, nothing."""
    if b"," in value or not value.startswith(_BEGINS):
        return b""
    return value[len(_BEGINS) :].strip(TRIMMED)


def _parameters(query: bytes, name: bytes) -> Iterator[bytes]:
    for pair in query.split(b"&"):
        key, _, value = pair.replace(b"+", b" ").partition(b"=")
        if unquote_to_bytes(key) == name:
            yield unquote_to_bytes(value)


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
        if facts is None:
            return None
        if unlisted := self._vocabulary.unlisted(facts):
            self.reports.unlisted(unlisted, now)
        return Identity(facts)

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


_MOST_NOTES = 16
_MOST_PEERS = 4_096
"""How many peers are remembered whose address is their own, so that it is read once."""


class Caller(NamedTuple):
    """What a request itself says of who asks: an address and a credential, either may be none.

    `facts` are `client.ip` (or `client.network`) and `credential.id`, as far as known.
    `connection` is the ASGI scope or the WSGI environ, for a host that knows more.
    """

    address: ClientAddress
    credential: Credential | None
    facts: Mapping[str, object]
    connection: Mapping[str, Any] = MappingProxyType({})


class CallerResolver:
    """Tells who asks; safe to share between threads and tasks.

    `read` takes a request's parts and does no I/O; `look_up` and `find` then ask the host, where
    it authenticates by itself, and the directory, where the host knows nobody. What a client says
    of itself elsewhere, in user ids say, is not read.
    """

    __slots__ = ("_hash_key", "_notes", "_peers", "directory", "established", "proxies", "reads")

    def __init__(
        self,
        *,
        hash_key: bytes,
        proxies: Proxies | None = None,
        reads: CredentialSource | None = None,
        directory: Directory | None = None,
        established: Established | None = None,
    ) -> None:
        self._hash_key = hash_key
        self._notes: dict[str, None] = {}
        self._peers: dict[str | None, tuple[ClientAddress, Mapping[str, object]]] = {}
        self.proxies = proxies or Proxies()
        self.reads = reads or CredentialSource()
        self.directory = directory
        self.established = established

    def read(
        self,
        peer: str | None,
        headers: Sequence[tuple[bytes, bytes]],
        query: bytes = b"",
        subprotocols: Sequence[str] = (),
        connection: Mapping[str, Any] = MappingProxyType({}),
        *,
        named: Mapping[bytes, bytes] | None = None,
    ) -> Caller:
        """Return the address and the credential of a request.

        `named` has the same headers by their names in lower case, where none is there twice.

        Raises:
            AmbiguousCredentialError: it carries two different credentials.
        """
        known = self._peers.get(peer)
        if known is not None:
            address, shown = known
        else:
            address = client_address(peer, headers, self.proxies)
            shown = address.facts()
            if not is_proxy(peer, self.proxies):
                # It is the peer's own, whatever else it sends.
                if len(self._peers) >= _MOST_PEERS:
                    self._peers.clear()
                self._peers[peer] = address, shown
            if address.note is not None and len(self._notes) < _MOST_NOTES:
                self._notes.setdefault(address.note)
        origin, secret = address.ip or address.hop, b""
        if named is not None:
            # Of hundreds of fields a few at most are read.
            sent = self.reads.wanted.keys() & named.keys()
            if sent == _USUAL and not (query or subprotocols):
                secret = _usual_secret(named[b"authorization"])
            if not secret and len(sent) < 2:  # the order of several tells
                headers = [(name, named[name]) for name in sent]
        if secret:
            key = self._hash_key
            credential: Credential | None = Credential(
                credential_id(secret, key), _BEARER, Secret(secret), origin
            )
        else:
            credential = credential_of(
                headers,
                query,
                subprotocols,
                reads=self.reads,
                hash_key=self._hash_key,
                origin=origin,
            )
        facts = shown if credential is None else {**shown, "credential.id": credential.id}
        return tuple.__new__(Caller, (address, credential, facts, connection))

    def look_up(self, caller: Caller, now: float) -> Identity:
        """Return who asks at `now` (seconds since the epoch), with all facts; may wait, bounded.

        Raises:
            SettingError: what the host says of who asks is no identity.
        """
        if self.established is not None:
            told = self.established.look_up(caller.connection, now)
            if told is not None:
                return told._replace(facts={**told.facts, **caller.facts})
        if self.directory is None or caller.credential is None:
            return Identity(caller.facts)
        return self._joined(caller, self.directory.look_up(caller.credential, now))

    async def find(self, caller: Caller, now: float) -> Identity:
        """Return the same without blocking the event loop.

        Raises:
            SettingError: as `look_up`.
        """
        if self.established is not None:
            told = await self.established.find(caller.connection, now)
            if told is not None:
                return told._replace(facts={**told.facts, **caller.facts})
        if self.directory is None or caller.credential is None:
            return Identity(caller.facts)
        return self._joined(caller, await self.directory.find(caller.credential, now))

    @property
    def health(self) -> SourceHealth:
        """How those who know who asks are doing, for metrics."""
        health = [getattr(self.directory, "health", None)]
        if self.established is not None:
            health.append(self.established.reports.health)
        every = [each for each in health if each is not None]
        return SourceHealth(
            sum(each.failures for each in every),
            any(each.failing for each in every),
            sum(each.bans_waiting for each in every),
        )

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know: each kind of doubtful address, once; the source."""
        notes = tuple(self._notes)
        return notes if self.directory is None else (*notes, *self.directory.warnings(now))

    def close(self) -> None:
        """Let go of the directory's connections."""
        if self.directory is not None:
            self.directory.close()

    def _joined(self, caller: Caller, told: Identity) -> Identity:
        # What the connection shows stands; no directory can say otherwise.
        facts = {**told.facts, **caller.facts}
        essence = getattr(self.directory, "essence", None)
        if essence is not None and told.known:
            facts["credential.id"] = credential_id(essence(caller.credential), self._hash_key)
        return tuple.__new__(Identity, (facts, *told[1:]))
