"""What a store outside the process sees of a key: a keyed hash, and no identifier."""

from __future__ import annotations

import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from guardrail.errors import SettingError
from guardrail.model.cells import IDENT_LENGTH
from guardrail.stores.epochs import Epoch

SHORTEST, LONGEST = 16, 64
KEY, KEY_FILE = "GUARDRAIL_HASH_KEY", "GUARDRAIL_HASH_KEY_FILE"
PREVIOUS, PREVIOUS_FILE = "GUARDRAIL_HASH_KEY_PREVIOUS", "GUARDRAIL_HASH_KEY_PREVIOUS_FILE"
MAKE_ONE = 'make one with `python -c "import secrets; print(secrets.token_hex(32))"`'

_WHOSE_BYTES, _MEMBER_BYTES = 12, 9
"""Sixteen and twelve characters: no two of a billion keys, or of a set's members, collide."""


class Naming:
    """Names records and members under one hash key."""

    __slots__ = ("_members", "_whose", "epoch")

    def __init__(self, secret: bytes, layout: int) -> None:
        self.epoch = Epoch(layout, key_id(secret))
        person = layout.to_bytes(2, "big")
        self._whose = blake2b(key=secret, digest_size=_WHOSE_BYTES, person=b"whose" + person)
        self._members = blake2b(key=secret, digest_size=_MEMBER_BYTES, person=b"member" + person)

    def whose(self, key: str) -> bytes:
        """Return the hash, 16 characters, of what a key says after its counter's ident."""
        digest = self._whose.copy()
        digest.update(key[IDENT_LENGTH:].encode("utf-8", "surrogatepass"))
        return urlsafe_b64encode(digest.digest())

    def member(self, member: str) -> bytes:
        """Return the hash, 12 characters, of a set's member."""
        digest = self._members.copy()
        digest.update(member.encode("utf-8", "surrogatepass"))
        return urlsafe_b64encode(digest.digest())


def key_id(secret: bytes) -> str:
    """Return the public name of a hash key, 8 characters, which tells nothing of it."""
    return blake2b(b"guardrail hash key id", key=secret, digest_size=4).hexdigest()


def hash_keys(
    given: bytes | Sequence[bytes] | None, environ: Mapping[str, str]
) -> tuple[bytes, ...]:
    """Return the hash keys, the current one first; those of the environment if none is given.

    The environment names them itself, or files of mode 0600 that hold them.

    Raises:
        SettingError: a key is too short or too long, or its file can be read by others.
    """
    if given is not None:
        found = [given] if isinstance(given, bytes) else list(given)
    else:
        pairs = ((KEY, KEY_FILE), (PREVIOUS, PREVIOUS_FILE))
        stated = [_stated(name, file, environ) for name, file in pairs]
        found = [key for key in stated if key is not None]
        if found and stated[0] is None:
            raise SettingError(f"`{PREVIOUS}` is set, and `{KEY}` is not: set the current key")
    for key in found:
        if not SHORTEST <= len(key) <= LONGEST:
            raise SettingError(
                f"the hash key has {len(key)} bytes: it must have {SHORTEST} to {LONGEST}; "
                + MAKE_ONE
            )
    return tuple(dict.fromkeys(found))


def read_key_file(path: str | Path) -> bytes:
    """Return the hash key that a file holds, white space around it left out.

    Raises:
        SettingError: the file cannot be read, or can be read by others.
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(LONGEST * 4).strip()
    except OSError as problem:
        # A key may have been written where the path of its file belongs.
        name = Path(path).name
        shown = path if "." in name or len(name) < SHORTEST else Path(path).parent / "…"
        raise SettingError(f"the hash key file `{shown}` cannot be read: {problem.strerror}") from (
            None
        )
    if mode & 0o077:
        raise SettingError(f"others can read the hash key file `{path}`: run `chmod 600 {path}`")
    return text


def _stated(name: str, file: str, environ: Mapping[str, str]) -> bytes | None:
    text, path = environ.get(name), environ.get(file)
    if text and path:
        raise SettingError(f"`{name}` and `{file}` are both set: keep one of them")
    if path:
        return read_key_file(path)
    return text.encode() if text else None
