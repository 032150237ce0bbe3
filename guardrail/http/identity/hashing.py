"""Credentials as files name them: by the id of a hash key, and the keyed hash it gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from guardrail.signals.directory import Credential, credential_id
from guardrail.stores.naming import key_id

_WRITTEN = re.compile(r"([0-9a-f]{8})\.[A-Za-z0-9_-]{24}")


class UnknownHashKeyError(ValueError):
    """A credential is written with a hash key that is not given."""


def written(secret: bytes | str, hash_key: bytes) -> str:
    """Return how a file names a credential: `1f2e3d4c.` and its keyed hash, 24 characters."""
    return f"{key_id(hash_key)}.{credential_id(secret, hash_key)}"


class WrittenNames:
    """Reads credentials as files name them, and names those of requests alike."""

    __slots__ = ("_keys",)

    def __init__(self, hash_keys: Sequence[bytes]) -> None:
        """Take the hash keys, the one that credentials of requests are hashed with first."""
        self._keys: Mapping[str, bytes] = {key_id(key): key for key in hash_keys}

    def key_of(self, text: object) -> str:
        """Return the id of the hash key a name is written with.

        Raises:
            UnknownHashKeyError: that key is not given.
            ValueError: the text is no such name.
        """
        match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            # The text is not shown: it may be the key itself, written here by mistake.
            raise ValueError("is not a credential's keyed hash")
        if match[1] not in self._keys:
            raise UnknownHashKeyError(f"is made with the hash key `{match[1]}`, which is not given")
        return match[1]

    def of(self, credential: Credential, key: str) -> str:
        """Return the name of a request's credential under one of the hash keys, by its id."""
        current = next(iter(self._keys))
        if key == current:
            return f"{key}.{credential.id}"
        return written(credential.secret.reveal(), self._keys[key])
