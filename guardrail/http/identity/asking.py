"""One answer to who asks, from the parts of a request: address, credential, directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from guardrail.http.identity.credentials import CredentialSource, credential_of
from guardrail.http.identity.established import Established
from guardrail.signals import ClientAddress, Proxies, client_address
from guardrail.signals.directory import Credential, Directory, Identity, SourceHealth, credential_id

_MOST_NOTES = 16


class Asking(NamedTuple):
    """What a request itself says of who asks: an address and a credential, either may be none.

    `connection` is the ASGI scope or the WSGI environ, for a host that knows more.
    """

    address: ClientAddress
    credential: Credential | None
    connection: Mapping[str, Any] = MappingProxyType({})

    def facts(self) -> dict[str, object]:
        """Return `client.ip` (or `client.network`) and `credential.id`, as far as known."""
        facts = self.address.facts()
        if self.credential is not None:
            facts["credential.id"] = self.credential.id
        return facts


class Asker:
    """Tells who asks; safe to share between threads and tasks.

    `read` takes a request's parts and does no I/O; `look_up` and `find` then ask the host, where
    it authenticates by itself, and the directory, where the host knows nobody. What a client says
    of itself elsewhere, in user ids say, is not read.
    """

    __slots__ = ("_hash_key", "_notes", "directory", "established", "proxies", "reads")

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
    ) -> Asking:
        """Return the address and the credential of a request.

        Raises:
            AmbiguousCredentialError: it carries two different credentials.
        """
        address = client_address(peer, headers, self.proxies)
        if address.note is not None and len(self._notes) < _MOST_NOTES:
            self._notes.setdefault(address.note)
        return Asking(
            address,
            credential_of(
                headers,
                query,
                subprotocols,
                reads=self.reads,
                hash_key=self._hash_key,
                origin=address.ip or address.hop,
            ),
            connection,
        )

    def look_up(self, asking: Asking, now: float) -> Identity:
        """Return who asks at `now` (seconds since the epoch), with all facts; may wait, bounded.

        Raises:
            SettingError: what the host says of who asks is no identity.
        """
        if self.established is not None:
            told = self.established.look_up(asking.connection, now)
            if told is not None:
                return told._replace(facts={**told.facts, **asking.facts()})
        if self.directory is None or asking.credential is None:
            return Identity(asking.facts())
        return self._joined(asking, self.directory.look_up(asking.credential, now))

    async def find(self, asking: Asking, now: float) -> Identity:
        """Return the same without blocking the event loop.

        Raises:
            SettingError: as `look_up`.
        """
        if self.established is not None:
            told = await self.established.find(asking.connection, now)
            if told is not None:
                return told._replace(facts={**told.facts, **asking.facts()})
        if self.directory is None or asking.credential is None:
            return Identity(asking.facts())
        return self._joined(asking, await self.directory.find(asking.credential, now))

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

    def _joined(self, asking: Asking, told: Identity) -> Identity:
        # What the connection shows stands; no directory can say otherwise.
        own = asking.facts()
        essence = getattr(self.directory, "essence", None)
        if essence is not None and told.known:
            own["credential.id"] = credential_id(essence(asking.credential), self._hash_key)
        return told._replace(facts={**told.facts, **own})
