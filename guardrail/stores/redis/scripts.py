"""The two scripts that run in the server."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name that the server knows it by once it has run."""

    text: bytes
    sha: bytes

    @classmethod
    def of(cls, text: bytes) -> Script:
        """Return the script of a text."""
        return cls(text, sha1(text, usedforsecurity=False).hexdigest().encode())


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of one layout; `settle_full` runs also where memory is full, from Redis 7 on."""

    acquire: Script
    settle: Script
    settle_full: Script


def load_scripts() -> Scripts:
    """Return the scripts that come with the package."""
    here = files(__package__)
    records, acquire, settle = (
        (here / f"{name}.lua").read_bytes() for name in ("records", "acquire", "settle")
    )
    acquire, settle = records + acquire, records + settle
    flagged = b"#!lua flags=allow-oom\n" + settle
    return Scripts(Script.of(acquire), Script.of(settle), Script.of(flagged))
