"""What a store outside the process sees of a key, and since when: a keyed hash, no identifier.

An epoch is a layout with a hash key. Processes of two releases, or with two keys, share counters
while they are rolled: whoever brings a new epoch announces it with a time, all go on with the
names of the old one until then, and from then on all use the new, taking over each old record
when it is first needed. The announcement is kept in the store, so that nobody starts empty.
"""

from __future__ import annotations

import json
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from guardrail.errors import SettingError, StoreError
from guardrail.model.amounts import DAY, HOUR, MINUTE, SECOND
from guardrail.model.cells import IDENT_LENGTH

SHORTEST, LONGEST = 16, 64
KEY, KEY_FILE = "GUARDRAIL_HASH_KEY", "GUARDRAIL_HASH_KEY_FILE"
PREVIOUS, PREVIOUS_FILE = "GUARDRAIL_HASH_KEY_PREVIOUS", "GUARDRAIL_HASH_KEY_PREVIOUS_FILE"
MAKE_ONE = 'make one with `python -c "import secrets; print(secrets.token_hex(32))"`'

_WHOSE_BYTES, _MEMBER_BYTES = 12, 9
"""Sixteen and twelve characters: no two of a billion keys, or of a set's members, collide."""


class Naming:
    """Names records and members under one hash key."""

    __slots__ = ("_members", "_whose", "epoch", "link_secret")

    def __init__(self, secret: bytes, layout: int) -> None:
        self.epoch = Epoch(layout, key_id(secret))
        self.link_secret = blake2b(b"guardrail link secret", key=secret, digest_size=32).digest()
        person = layout.to_bytes(2, "big")
        self._whose = blake2b(key=secret, digest_size=_WHOSE_BYTES, person=b"whose" + person)
        self._members = blake2b(key=secret, digest_size=_MEMBER_BYTES, person=b"member" + person)

    def whose(self, key: str) -> bytes:
        """Return the hash, 16 characters, of what a key says after its counter's ident."""
        return self.party(key[IDENT_LENGTH:])

    def party(self, whose: str) -> bytes:
        """Return the hash, 16 characters, of what keys say after their counter's ident."""
        digest = self._whose.copy()
        digest.update(whose.encode("utf-8", "surrogatepass"))
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


OVERLAP = HOUR
"""How long both epochs are accepted while processes are rolled, unless the URI says otherwise."""
SHORTEST_OVERLAP = MINUTE
"""Every process looks at the timetable more often than this, so that it knows of a change ahead."""
KEPT = 400 * DAY
"""How long records of a former epoch may still be needed: as long as a lifetime budget is kept."""


class Epoch(NamedTuple):
    """A layout, and the id of the hash key that names are made with."""

    layout: int
    key: str


@dataclass(frozen=True, slots=True)
class Timetable:
    """What a store records of its epochs; times are in microseconds.

    `upcoming` takes over at `at`; records of `former` may be needed until `until`.
    """

    current: Epoch
    upcoming: Epoch | None = None
    at: int = 0
    former: Epoch | None = None
    until: int = 0

    def text(self) -> str:
        """Return it as the JSON that a store keeps."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str | bytes) -> Timetable:
        """Return the timetable that a text states.

        Raises:
            StoreError: the text is none of ours.
        """
        try:
            stated = json.loads(text)
            epochs = {
                name: None if stated[name] is None else Epoch(*stated[name])
                for name in ("current", "upcoming", "former")
            }
            return cls(**{**stated, **epochs})
        except (ValueError, TypeError, KeyError) as problem:
            raise StoreError("the store's own record cannot be read: is this store ours?") from (
                problem
            )

    def at_time(self, now: int) -> Timetable:
        """Return it as it stands at a time: an epoch whose time has come is the current one."""
        if self.upcoming is None or now < self.at:
            return self
        return Timetable(self.upcoming, None, 0, self.current, self.at + KEPT)

    def needed(self, now: int) -> tuple[Epoch, ...]:
        """Return the epochs that whoever decides now must know: current, then former."""
        table = self.at_time(now)
        if table.former is None or now >= table.until:
            return (table.current,)
        return (table.current, table.former)


def timetable_for(
    recorded: Timetable | None, known: Sequence[Epoch], now: int, overlap: int = OVERLAP
) -> Timetable:
    """Return the timetable after a process that knows some epochs (newest first) has started.

    Raises:
        SettingError: the process lacks a hash key or a layout that the store's records need.
    """
    if recorded is None:
        return Timetable(known[0])
    table = recorded.at_time(now)
    for epoch in table.needed(now):
        if epoch not in known:
            raise SettingError(_mismatch(epoch, known, table))
    if known[0] == table.current or table.upcoming is not None or known[0] == table.former:
        return table
    former, until = table.former, table.until
    return Timetable(table.current, known[0], now + overlap, former, until)


def _mismatch(epoch: Epoch, known: Sequence[Epoch], table: Timetable) -> str:
    layouts = sorted({each.layout for each in known})
    if epoch.layout not in layouts:
        return (
            f"the store is written in layout {epoch.layout}, and this release knows "
            f"{', '.join(map(str, layouts))}: use the release that wrote it, or a newer one"
        )
    if epoch == table.former:
        until = datetime.fromtimestamp(table.until // SECOND, UTC)
        return (
            f"records of the hash key `{epoch.key}` are needed until {until:%Y-%m-%d}: "
            "give it as the previous hash key"
        )
    own = ", ".join(f"`{each.key}`" for each in known)
    return (
        f"the store's names are made with the hash key `{epoch.key}`, not with {own}: give that "
        "key, or, to change keys, give it as the previous one"
    )
