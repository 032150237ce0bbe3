"""What stands around every call to a store: whether to make it, and what to do when it fails.

Both guards share it: all of it is steps before and after the one call, which is theirs. What a
failed call was to deliver waits in a backlog.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from guardrail.engine import Decision, Plan
from guardrail.errors import StoreError
from guardrail.guard.breaker import Breaker
from guardrail.guard.context import Context
from guardrail.guard.fallback import Admitted, Fallbacks, LocalCounters
from guardrail.model.amounts import HOUR
from guardrail.model.cells import IDENT_LENGTH, Correction, Leave, Renew
from guardrail.model.effects import StoreMode
from guardrail.stores.cells import GarbledError, NestedCallError, are_numbers
from guardrail.stores.forks import call_in_children

LOG = logging.getLogger("guardrail")

MOST_KEPT = 10_000
"""How many corrections are kept."""
MOST_AT_ONCE = 100
"""How many of them one call delivers."""
LONGEST_KEPT = HOUR
"""How long, in microseconds, those are kept that no lease ends."""
MOST_TRIES = 3
"""How often one is sent that the store breaks on, rather than being unable to answer."""


class Kept(NamedTuple):
    """One correction, until when it is worth delivering (microseconds), and how often it broke."""

    correction: Correction
    until: int
    broke: int = 0


class Backlog:
    """A bounded queue of corrections, oldest first; `lost` counts those given up.

    `repeated` counts the extra charges that are sent again though they may have been applied.

    The order among them does not matter: each refund is bounded by its own charge, more usage is
    added wherever it comes, and a lease that has ended is not renewed. Safe to share between
    threads; a forked child starts with none, as its parent delivers them.
    """

    def __init__(self, leases: dict[str, int], most: int = MOST_KEPT) -> None:
        """Keep at most so many; `leases` gives the lease of each counter of requests in flight."""
        self.lost = self.repeated = 0
        self._most = most
        self._leases = leases
        self.free()
        self._queue: deque[Kept] = deque()
        self._process = os.getpid()

    def free(self) -> None:
        """Hold nothing; see `Breaker.free`."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return how many corrections wait."""
        return len(self._queue)

    def wrap(self, corrections: Sequence[Correction], now: int) -> list[Kept]:
        """Return corrections made at `now`, each with its end."""
        return [Kept(correction, self._until(correction, now)) for correction in corrections]

    def keep(self, entries: Sequence[Kept], now: int, *, unsure: bool, broke: bool = False) -> int:
        """Keep what a failed call was to deliver; return how many were given up.

        `unsure` calls may have been applied: refunds are not repeated then. `broke` tells that
        the store broke on them.
        """
        lost = 0
        with self._lock:
            self._drop_inherited()
            for entry in entries:
                tries = entry.broke + broke
                given_up = tries >= MOST_TRIES or (unsure and not repeatable(entry.correction))
                if entry.until <= now:
                    lost += matters_late(entry.correction)
                elif given_up or not self._room(now):
                    lost += 1
                else:
                    self._queue.append(entry._replace(broke=tries))
                    self.repeated += unsure and matters_late(entry.correction)
            self.lost += lost
        return lost

    def take(self, now: int, most: int = MOST_AT_ONCE) -> list[Kept]:
        """Take out the oldest that are still worth delivering."""
        if not self._queue:
            return []
        taken: list[Kept] = []
        with self._lock:
            self._drop_inherited()
            while self._queue and len(taken) < most:
                entry = self._queue.popleft()
                if entry.until > now:
                    taken.append(entry)
                else:
                    self.lost += matters_late(entry.correction)
        return taken

    def give_up(self) -> None:
        """Count all that wait as lost."""
        with self._lock:
            self._drop_inherited()
            self.lost += len(self._queue)
            self._queue.clear()

    def _until(self, correction: Correction, now: int) -> int:
        if isinstance(correction, Renew):
            return correction.expires
        if isinstance(correction, Leave):
            return now + self._leases.get(correction.key[:IDENT_LENGTH], LONGEST_KEPT)
        return now + LONGEST_KEPT

    def _room(self, now: int) -> bool:
        if len(self._queue) < self._most:
            return True
        while self._queue and self._queue[0].until <= now:
            self.lost += matters_late(self._queue.popleft().correction)
        return len(self._queue) < self._most

    def _drop_inherited(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._queue.clear()
            self.lost = self.repeated = 0


def repeatable(correction: Correction) -> bool:
    """Tell whether a correction may be applied twice without giving away what is not there.

    A lease ends and is renewed once, however often it is asked for; more usage counted twice errs
    on the safe side; a refund given twice does not.
    """
    return isinstance(correction, (Leave, Renew)) or correction.delta > 0


def matters_late(correction: Correction) -> bool:
    """Tell whether something is lost with a correction whose time is over: leases end anyway."""
    return not isinstance(correction, (Leave, Renew))


class Delivery(NamedTuple):
    """Corrections on their way to the store: those of one decision last, older ones before.

    `corrections` are all of them, to be sent. `now` is in microseconds, `decision` None where there
    are only older ones.
    """

    permit: int
    corrections: Sequence[Correction]
    older: list[Kept]
    own: Sequence[Correction]
    now: int
    decision: Decision | None


class Supervisor:
    """Watches over the calls to one store.

    Each call takes a permit, and hands it back by what became of it: `replied`, `failed` or
    `abandoned` for decisions, `delivered`, `undelivered` or `interrupted` for corrections.
    `in_process` stores are never away; nothing is counted beside them. A store that `undoes` takes
    back what it charged for a call that failed, and counts by itself what it cannot. It `logs` that
    a store is no longer asked, and that it is asked again.
    """

    def __init__(
        self,
        context: Context,
        *,
        in_process: bool,
        undoes: bool = False,
        logs: bool = True,
        most_queued: int = MOST_KEPT,
    ) -> None:
        # Pauses are told by the host's clock alone: the store's is asked for once a call.
        self._clock = context.host_clock
        self._follows = not in_process
        self._undoes = undoes
        self._logs = logs
        self._breaker = Breaker(random.random)
        self._local = LocalCounters(context.engines, context.parts)
        self._backlog = Backlog(self._local.leases, most_queued)
        self._free()
        self._failures = 0
        self._unasked = 0
        self._charged = 0
        self._problem: str | None = None
        call_in_children(self._free)

    def _free(self) -> None:
        self._lock = threading.RLock()
        self._breaker.free()
        self._backlog.free()

    def serve(self, context: Context) -> None:
        """Supervisor over the calls of another policy set too, from now on."""
        self._local.serve(context.engines)

    def health(self, warnings: tuple[str, ...], lost: int) -> Health:
        """Return how things stand, with the store's own warnings and what it has lost itself."""
        return Health(
            breaker=self._breaker.state.value,
            failures=self._failures,
            unasked=self._unasked,
            queued=len(self._backlog),
            lost=self._backlog.lost + self._charged + lost,
            repeated=self._backlog.repeated,
            problem=self._problem,
            warnings=warnings,
        )

    def permit(self) -> int | None:
        """Return the permit for one call, None if the store is not to be asked now."""
        permit = self._breaker.passing()
        return self._breaker.permit(self._clock()) if permit is None else permit

    def abandoned(self, permit: int) -> None:
        """Take the permit of a call back that ended without an answer, by no fault of the store."""
        self._breaker.abandoned(permit)

    def cancelled(self, plan: Plan, permit: int) -> None:
        """Take the permit of a decision back that nobody waits for any more.

        The store undoes it, unless its reply is lost: its places in flight are given back anyway.
        """
        self.abandoned(permit)
        self._give_back(plan)

    def heard(self, permit: int) -> None:
        """Note that a call beside decisions and corrections was answered."""
        self._answered(permit)

    def missed(self, permit: int, problem: Exception) -> None:
        """Note that such a call failed."""
        self._note(permit, problem)

    def replied(self, plan: Plan, permit: int, reply: list[int]) -> Decision:
        """Return the decision on a plan that the store has replied to."""
        try:
            if not (self._undoes or are_numbers(reply)):
                raise GarbledError(f"the store answered `{reply!r:.100}`, which is none of ours")
            if not plan.form.fits(reply):
                raise GarbledError("the store's reply is none of ours: its length is wrong")
            receipts = plan.receipts(reply)
            read = plan.verdicts(reply) if receipts is None else None
        except Exception as problem:  # a store of the host's own may reply whatever it likes
            return self._failed(plan, permit, problem, undone=False)
        self._answered(permit)
        if read is None:
            assert receipts is not None
            if self._follows:
                self._local.note(Admitted(plan, receipts))
            return plan.allowed(receipts)
        if self._follows:
            charged = [receipt if charged else None for receipt, charged in read.looked]
            self._local.note(Admitted(plan, charged, read.bans))
        return plan.concluded(read.found, read.looked)

    def failed(self, plan: Plan, permit: int, problem: Exception) -> Decision:
        """Return the decision on a plan that the store failed to answer."""
        return self._failed(plan, permit, problem, undone=self._undoes)

    def _failed(self, plan: Plan, permit: int, problem: Exception, *, undone: bool) -> Decision:
        self._note(permit, problem)
        if _unsure(problem):
            if not undone:
                with self._lock:
                    self._charged += 1
            self._give_back(plan)
        return self._without(plan, f"the store failed ({_worded(problem)})")

    def _give_back(self, plan: Plan) -> None:
        """Keep the ends of its places in flight: it may have been admitted all the same."""
        leaves = self._backlog.wrap(_places_taken(plan), plan.now)
        self._backlog.keep(leaves, plan.now, unsure=True)

    def unasked(self, plan: Plan) -> Decision:
        """Return the decision on a plan for which the store is not asked."""
        with self._lock:
            self._unasked += 1
        return self._without(plan, f"the store is not asked, as it failed ({self._problem})")

    def delivery(
        self, decision: Decision, corrections: Sequence[Correction], now: int
    ) -> Delivery | None:
        """Return what to send for a decision, None if there is nothing to send, or not now."""
        if not corrections:
            return None
        own = decision.ruling.mode is not StoreMode.NORMAL
        if own or self._follows:
            self._local.settle(corrections, now, own=own)
        if own:
            return None
        permit = self.permit()
        if permit is None:
            lost = self._backlog.keep(self._backlog.wrap(corrections, now), now, unsure=False)
            self._tell(decision, lost, "the store is not asked, as it failed")
            return None
        older = self._backlog.take(now)
        every = [*(entry.correction for entry in older), *corrections] if older else corrections
        return Delivery(permit, every, older, corrections, now, decision)

    def keeps_from(self, decision: Decision) -> bool:
        """Tell whether what waits may be what a refused request lacks: nobody would settle it."""
        return len(self._backlog) > 0 and not decision.allowed

    def leftovers(self, now: int) -> Delivery | None:
        """Return some of what waits, to be sent by itself; None if nothing does, or not now."""
        permit = self.permit() if len(self._backlog) else None
        if permit is None:
            return None
        older = self._backlog.take(now)
        if not older:
            self.abandoned(permit)
            return None
        return Delivery(permit, [entry.correction for entry in older], older, (), now, None)

    def delivered(self, delivery: Delivery) -> None:
        """Note that corrections arrived."""
        self._answered(delivery.permit)

    def undelivered(self, delivery: Delivery, problem: Exception) -> None:
        """Keep what can be delivered later of corrections that failed to arrive."""
        self._note(delivery.permit, problem)
        broke = not isinstance(problem, StoreError)
        self._keep(delivery, _worded(problem), unsure=_unsure(problem), broke=broke)

    def interrupted(self, delivery: Delivery) -> None:
        """Keep what can be delivered later of corrections whose call was broken off."""
        self._breaker.abandoned(delivery.permit)
        self._keep(delivery, "the call was broken off", unsure=True, broke=False)

    def give_up(self) -> None:
        """Count as lost what still waits: nothing will deliver it."""
        self._backlog.give_up()

    def _without(self, plan: Plan, why: str) -> Decision:
        """Decide without the store, each rule as it says."""
        answers = Fallbacks.of(plan)
        return self._local.decision(plan, answers, f"{why}: {answers.told()}")

    def _answered(self, permit: int) -> None:
        if self._breaker.succeeded(permit, self._clock()) and self._logs:
            LOG.warning("the store answers again; it is asked")

    def _note(self, permit: int, problem: Exception) -> None:
        if isinstance(problem, NestedCallError):
            self.abandoned(permit)
            return
        worded = _worded(problem)
        with self._lock:
            self._failures += 1
            self._problem = worded
        if self._breaker.failed(permit, self._clock()) and self._logs:
            LOG.error("the store fails and is not asked for now, rules go without it: %s", worded)

    def _keep(self, delivery: Delivery, why: str, *, unsure: bool, broke: bool) -> None:
        now = delivery.now
        self._backlog.keep(delivery.older, now, unsure=unsure, broke=broke)
        own = self._backlog.wrap(delivery.own, now)
        lost = self._backlog.keep(own, now, unsure=unsure, broke=broke)
        if delivery.decision is not None:
            self._tell(delivery.decision, lost, f"the store failed ({why})")

    def _tell(self, decision: Decision, lost: int, why: str) -> None:
        if lost:
            what = "one correction" if lost == 1 else f"{lost} corrections"
            decision.note(f"{why}: {what} of what was charged {'is' if lost == 1 else 'are'} lost")


def _places_taken(plan: Plan) -> list[Correction]:
    keys, _, cells, _ = plan.form
    found: list[Correction] = []
    for at, number, key, *_ in plan.rows:
        if plan.counters[number][0].lease:
            spill, member = cells[2 * at + 4 : 2 * at + 6]
            found.append(Leave(key, member))
            if spill > 0:
                found.append(Leave(keys[spill - 1], member))
    return found


def _unsure(problem: Exception) -> bool:
    return not isinstance(problem, StoreError) or problem.unsure


def _worded(problem: Exception) -> str:
    return (
        str(problem) if isinstance(problem, StoreError) else f"by a fault of its own, {problem!r}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a guard stands to its store.

    `breaker` is closed (the store is asked), open (it is not) or half-open (one call tries).
    Counts are since the guard was made: `failures` calls that failed, `unasked` decisions made
    without asking; `lost` corrections given up, and decisions whose charge may stay though nobody
    was served, as no reply came to undo it by; `repeated` extra charges that were sent again and
    may stand twice. Where both are 0, the store holds what was used. `queued` corrections wait now.
    `problem` is the last failure in words, None before the first; `warnings` are the store's own.
    """

    breaker: str
    failures: int = 0
    unasked: int = 0
    queued: int = 0
    lost: int = 0
    repeated: int = 0
    problem: str | None = None
    warnings: tuple[str, ...] = ()
