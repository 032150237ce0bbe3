"""What the stores for threads and for event loops share: settings, scripts, what is owed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from redis import exceptions as said

from guardrail.errors import StoreError
from guardrail.stores.forms import outcome_of
from guardrail.stores.redis.addresses import Address
from guardrail.stores.redis.bearings import Bearings, Outlook
from guardrail.stores.redis.dialogue import ACQUIRE, LOOK, PLAIN, Call
from guardrail.stores.redis.faults import OutdatedError, refusal
from guardrail.stores.redis.link import command
from guardrail.stores.redis.scripts import load_scripts
from guardrail.stores.redis.wire import Undo, read_reply, undoing

DEADLINE, CONNECT = 0.05, 1.0
ASKING = command(("ASKING",))
"""Sent ahead of a call that follows a slot on its way to another server."""
REDIRECTS = 5
"""How often a call follows the servers of a cluster to another one."""
AT_ONCE = 100
"""Corrections sent in one call of what has to be taken back."""
MOST_OWED = 10_000
TRY_AGAIN_AFTER = 0.002
"""Seconds until a call is sent again whose records are on their way to another server."""
PAUSE = 0.25
"""Seconds until a cluster is asked again to take back what one of its servers did not."""

Failed = list[tuple[list[Undo], StoreError]]


class RedisBase:
    """Everything of a store on Redis but the waiting.

    `deadline` and `connect` are in seconds; `clock` is the host's. Twins share `bearings`.
    """

    def __init__(
        self,
        address: Address,
        outlook: Outlook,
        *,
        deadline: float = DEADLINE,
        connect: float = CONNECT,
        clock: Callable[[], float] = time.time,
        bearings: Bearings | None = None,
    ) -> None:
        self.address = address
        self.outlook = outlook
        self.deadline = deadline
        self.connect = connect
        self.clock = clock
        self.bearings = bearings or Bearings(
            outlook, clock=clock, steady=time.monotonic, spread=address.kind == "cluster"
        )
        self._scripts = load_scripts()
        self._begin()

    def _begin(self) -> None:
        """Start with nothing owed; for a forked child anew: its parent pays what it owes itself."""
        self._undo: deque[Undo] = deque()
        self._lost = 0
        # Threads share what is owed: taking it and counting it are several steps.
        self._owing = threading.Lock()
        self._paused = 0.0
        # What is taken back is so at the time of the latest call: hosts may have their own clock.
        self._latest = 0
        self._process = os.getpid()

    @property
    def skew(self) -> float:
        """Seconds to add to the host's clock: all processes go by the server's."""
        return self.bearings.skew

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what an operator should know."""
        return self.bearings.warnings()

    def _command(self, call: Call, *, whole: bool = False) -> bytes:
        """Return a call as it is sent, with the script's whole text or its name."""
        if call.kind == LOOK:
            return command(("MGET", *call.keys))
        if call.kind == PLAIN:
            return command(call.keys)
        script = self._scripts.acquire
        if call.kind != ACQUIRE:
            flagged = self.bearings.version >= (7, 0)
            script = self._scripts.settle_full if flagged else self._scripts.settle
        name = ("EVAL", script.text) if whole else ("EVALSHA", script.sha)
        return command((*name, len(call.keys), *call.keys, *call.arguments))

    def _refused(self, reply: Exception, where: str) -> StoreError:
        if str(reply).startswith(("AHEAD ", "EPOCH")):
            self.bearings.doubt()
        return refusal(reply, where)

    def _worth_repeating(self, reply: object, left: float) -> bool:
        """Tell whether a call's records are on their way, and its time allows to ask again."""
        return isinstance(reply, said.TryAgainError) and left > self.deadline / 5

    def _owe(self, undo: Sequence[Undo]) -> None:
        if undo:
            with self._owing:
                room = max(0, MOST_OWED - len(self._undo))
                self._lost += max(0, len(undo) - room)
                self._undo.extend(undo[:room])

    def _lose(self, many: int) -> None:
        """Count what stays charged for nothing."""
        with self._owing:
            self._lost += many

    def _owe_late(self, call: Call, reply: object) -> None:
        """Take note of a reply that came after its deadline: what it charged is taken back."""
        asked = call.asked
        if asked is None or isinstance(reply, Exception):
            # An error was answered before anything was written.
            return
        charges, cells = asked.charges, asked.cells
        try:
            outcome = outcome_of(read_reply(reply), len(charges), cells)
        except StoreError:
            self._lose(1)
            return
        self._owe([undo for _, undo in undoing(charges, cells, outcome)])

    def _batch(self) -> list[Undo]:
        with self._owing:
            return [self._undo.popleft() for _ in range(min(AT_ONCE, len(self._undo)))]

    def _unsent(self, batch: Sequence[Undo], problem: BaseException) -> None:
        """Keep for later what was not sent, as the names to send it under are not known.

        What was broken off may have been applied.
        """
        if isinstance(problem, StoreError):
            self._owe(batch)
        else:
            self._lose(len(batch))

    def _unbatch(self, failed: Failed) -> None:
        """Keep for later what was not applied, unless it may have been."""
        for part, problem in failed:
            if problem.unsure:
                self._lose(len(part))
            else:
                self._owe(part)
        if failed and self.address.kind == "cluster":
            # The other servers' decisions must not wait each time for the one that is away.
            self._paused = time.monotonic() + PAUSE

    def _give_up(self) -> None:
        """Count as lost what is still owed: nothing will take it back."""
        with self._owing:
            self._lost += len(self._undo)
            self._undo.clear()

    def _settled(self, parts: int, failed: Failed) -> None:
        """Keep what some servers did not take; where none took anything, the caller keeps all."""
        if failed and len(failed) == parts:
            first = failed[0][1]
            if parts == 1 or all(isinstance(p, OutdatedError) for _, p in failed):
                raise first
            raise StoreError(str(first), unsure=any(p.unsure for _, p in failed)) from first
        self._unbatch(failed)
