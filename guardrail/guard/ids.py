"""Decision ids: random bytes of the process, and a counter."""

from __future__ import annotations

import itertools
import os
import secrets


class ProcessIds:
    """Ids unique to this process and its start, redrawn in a forked child."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self.next = itertools.count(1).__next__
        self._process = os.getpid()

    def name(self, serial: int) -> str:
        """Return the id of a serial number: 12 hex digits of the process, then the counter."""
        if self._process != os.getpid():
            # Drawn first: no other thread of a child may take the parent's for its own.
            self._prefix = secrets.token_hex(6)
            self._process = os.getpid()
        return f"{self._prefix}-{serial:x}"
