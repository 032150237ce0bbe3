"""Decision ids: keyed hashes of a counter, which tell nothing of other decisions."""

from __future__ import annotations

import itertools
import os
from hashlib import blake2b

_KEY_BYTES = 32
_ID_BYTES = 12


class ProcessIds:
    """Ids unique to a decision, under a key of this process; drawn anew in a forked child.

    Clients see them: neither how many requests there were nor which process served one shows.
    """

    def __init__(self) -> None:
        self._hash = _drawn()
        self.next = itertools.count(1).__next__
        self._process = os.getpid()

    def name(self, serial: int) -> str:
        """Return the id of a serial number: 24 hex digits, the same at every call."""
        if self._process != os.getpid():
            # Drawn first: no other thread of a child may take the parent's for its own.
            self._hash = _drawn()
            self._process = os.getpid()
        digest = self._hash.copy()
        digest.update(serial.to_bytes(8, "big"))
        return digest.hexdigest()


def _drawn() -> blake2b:
    return blake2b(key=os.urandom(_KEY_BYTES), digest_size=_ID_BYTES, person=b"decision id")
