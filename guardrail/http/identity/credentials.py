"""Which credential a request carries, where the host authenticates it, as a keyed hash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from guardrail.errors import GuardrailError, SettingError
from guardrail.loading import nearest
from guardrail.signals.directory import TRIMMED, Credential, CredentialKind, Secret, credential_id

Headers = Iterable[tuple[bytes, bytes]]

SUBPROTOCOL_PREFIX = "openai-insecure-api-key."
"""What a WebSocket subprotocol starts with that carries a key, as browsers send it to OpenAI."""

_HEADERS: Mapping[CredentialKind, bytes] = MappingProxyType(
    {
        CredentialKind.BEARER: b"authorization",
        CredentialKind.X_API_KEY: b"x-api-key",
        CredentialKind.API_KEY: b"api-key",
        CredentialKind.X_GOOG_API_KEY: b"x-goog-api-key",
    }
)
_JOINED = re.compile(rb",[ \t]*+(?=bearer[ \t])", re.IGNORECASE)


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

    kinds: frozenset[CredentialKind] = frozenset({CredentialKind.BEARER})
    query: str = "key"
    subprotocol: str = SUBPROTOCOL_PREFIX
    wanted: Mapping[bytes, CredentialKind] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the headers that are read."""
        wanted = {_HEADERS[kind]: kind for kind in self.kinds if kind in _HEADERS}
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
    first: tuple[bytes, CredentialKind] | None = None
    for raw, kind in _carried(headers, query, subprotocols, reads):
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


def _carried(
    headers: Headers, query: bytes, subprotocols: Sequence[str], reads: CredentialSource
) -> Iterator[tuple[bytes, CredentialKind]]:
    wanted = reads.wanted
    for name, value in headers:
        kind = wanted.get(name.lower())
        if kind is CredentialKind.BEARER:
            # Servers of WSGI join the lines of a field that is sent twice.
            for line in _JOINED.split(value) if b"," in value else (value,):
                parts = line.strip(TRIMMED).split(None, 1)
                if len(parts) == 2 and parts[0].lower() == b"bearer":
                    yield parts[1], kind
        elif kind is not None:
            yield value, kind
    if query and CredentialKind.QUERY in reads.kinds:
        for value in _parameters(query, reads.query.encode()):
            yield value, CredentialKind.QUERY
    if CredentialKind.SUBPROTOCOL in reads.kinds:
        for offered in subprotocols:
            if offered.startswith(reads.subprotocol):
                key = offered[len(reads.subprotocol) :]
                yield key.encode("utf-8", "surrogateescape"), CredentialKind.SUBPROTOCOL


def _parameters(query: bytes, name: bytes) -> Iterator[bytes]:
    for pair in query.split(b"&"):
        key, _, value = pair.replace(b"+", b" ").partition(b"=")
        if unquote_to_bytes(key) == name:
            yield unquote_to_bytes(value)
