"""What the requests of one application share: the guard and the directory, between threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from guardrail.engine import Decision
from guardrail.errors import GuardrailError, SettingError
from guardrail.guard import Guard
from guardrail.http.answers import Answer, refuse
from guardrail.http.asked.folding import AT_ONCE
from guardrail.http.exchange.before import Exchange, Hold, Pass
from guardrail.http.exchange.holding import Places, Threads, caller_of
from guardrail.http.exchange.later import Later
from guardrail.http.exchange.serving import Serving, Settlement
from guardrail.http.identity.established import NOT_AWAITED
from guardrail.http.settings.in_force import InForce
from guardrail.http.settings.opening import Configured
from guardrail.http.settings.processes import PerProcess
from guardrail.http.settings.reloading import Reloads
from guardrail.wsgi.leases import Renewals

LOG = logging.getLogger("guardrail")
T = TypeVar("T")


class SyncDoor:
    """Admits requests and settles them, in the threads of one process.

    The guard is opened at first use, after any fork.
    """

    def __init__(
        self, configured: Configured, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        established = configured.asker.established
        if established is not None and established.is_async:
            raise SettingError(NOT_AWAITED)
        self.configured = configured
        self.settings = configured.http
        self.clock = configured.clock
        self._asker = configured.asker
        self._guard = InForce(configured.sync_guard, configured.reloading)
        self._renewals = PerProcess(Renewals)
        self.later = Later()
        self._sleep = sleep
        self.closed = False
        self._held = Places(self.settings.max_held)
        self._threads = Threads(self.settings.threads)
        # One place each: threads share one interpreter, and more would only take memory.
        self._reading = {known: threading.Semaphore() for known in (True, False)}

    @property
    def renewals(self) -> Renewals:
        """What renews the leases of this process's requests while their hosts are silent."""
        return self._renewals.get()

    @property
    def guard(self) -> Guard:
        """This process's guard."""
        return self._guard.get()

    def admit(self, exchange: Exchange, body: Callable[[], bytes | None]) -> Answer | Pass:
        """Return the host's part in a request, or the answer that ends it before.

        `body` reads the body; it is not called for a request that its head already refuses.
        """
        if self.settings.max_delay:
            self._threads.seen()
        try:
            self.look()
            answer = exchange.opened()
            if answer is not None:
                return answer
            identity = self._asker.look_up(exchange.asking, self.clock())
            self.configured.note(exchange.notes)
            early = self.configured.early(self.guard.policies)
            answer = exchange.identified(identity.facts, identity.unavailable, early, self.clock())
        except Exception:
            return self._failed(exchange)
        if answer is not None:
            if exchange.refusal is not None:
                self.configured.journal.decided(exchange.refusal, exchange.dialect)
            return answer
        read = body()
        try:
            answer = self._bounded(exchange, read, lambda: exchange.received(read))
            return answer if answer is not None else self.decide(exchange)
        except Exception:
            return self._failed(exchange)

    def _bounded(self, exchange: Exchange, body: bytes | None, work: Callable[[], T]) -> T:
        """Do what a body takes; of large ones one at a time, as their memory would add up.

        Those whom the directory does not know wait for each other, and nobody else for them.
        """
        if body is None or len(body) <= AT_ONCE:
            return work()
        with self._reading[exchange.known]:
            return work()

    def decide(self, exchange: Exchange) -> Answer | Pass:
        """Decide on a request that was read, and hold it where that is short and allowed."""
        waited = 0.0
        while True:
            decision = self.guard.decide(
                exchange.facts,
                exchange.estimate,
                unavailable=exchange.unavailable,
                now=self.clock(),
            )
            try:
                if exchange.may_change_body(decision):
                    changes = partial(exchange.decided, decision, waited)
                    step = self._bounded(exchange, exchange.asked.body, changes)
                else:
                    step = exchange.decided(decision, waited)
            except BaseException:
                self.settle(decision, Settlement(None))
                raise
            if isinstance(step, Hold):
                caller = caller_of(exchange.facts)
                if not self._held.take(caller, self._threads.spare):
                    self.configured.journal.decided(decision, exchange.dialect)
                    return refuse(decision, exchange.addressee, self.settings.style)
                try:
                    self._sleep(step.seconds)
                finally:
                    self._held.give(caller)
                waited += step.seconds
                continue
            self.configured.journal.decided(decision, exchange.dialect)
            if isinstance(step, Answer) and decision.allowed:
                self.settle(decision, Settlement(None))
            return step

    def settle(self, decision: Decision, settlement: Settlement, *, recorded: bool = True) -> None:
        """Settle a decision; a store that does not answer is only noted.

        One that only took places anew is no request of its own, and not to be `recorded`.
        """
        if recorded:
            self.configured.journal.settled(decision, settlement)
        try:
            if settlement.usage is None:
                self.guard.release(decision, now=self.clock())
            else:
                self.guard.settle(
                    decision, settlement.usage, model=settlement.model, now=self.clock()
                )
        except GuardrailError as problem:
            LOG.warning("decision %s stays as reserved: %s", decision.id, problem)

    def finish(self, serving: Serving, *, failed: bool) -> bool:
        """Settle what a request that is over, or that others waited for, settles.

        Tell whether it was over only now.
        """
        if serving.over:
            return False
        for decision, settlement in serving.endings(failed=failed):
            self.settle(decision, settlement)
        return True

    def renew(self, decision: Decision) -> None:
        """Extend a decision's leases; a store that does not answer is only noted."""
        try:
            self.guard.renew(decision, now=self.clock())
        except GuardrailError as problem:
            LOG.warning("a lease was not renewed: %s", problem)

    def regain(self, exchange: Exchange) -> Decision | None:
        """Take the places in flight of a request anew whose leases ran out.

        None if others hold them by now, or the store does not answer: the request goes on without.
        """
        try:
            decision = self.guard.decide(
                exchange.facts,
                exchange.nothing,
                unavailable=exchange.unavailable,
                now=self.clock(),
            )
        except GuardrailError as problem:
            LOG.warning("a place whose lease ran out was not taken anew: %s", problem)
            return None
        if decision.allowed:
            return decision
        LOG.warning("a place whose lease ran out is taken: %s goes on without one", decision.id)
        return None

    def metrics(self) -> str:
        """Return what was counted in this process, in the text format of Prometheus."""
        return self.configured.journal.metrics(
            self.guard.health, self._guard.reloads, self._asker.health
        )

    def look(self) -> None:
        """Look for changed policies, where that is set and due."""
        if self._guard.due(self.clock()):
            self._guard.look()

    def reload(self) -> Reloads | None:
        """Load the policies anew, and tell how it went; None where the guard is the host's own."""
        self._guard.load()
        return self._guard.reloads

    def check(self) -> None:
        """Make a guard as each process will, and let go of it: what is wrong is told now.

        Raises:
            GuardrailError: the store, the hash key or a database cannot be used.
        """
        if self.configured.guard is None:
            self.configured.sync_guard().close()
        else:
            self.configured.sync_guard()

    def close(self) -> None:
        """Let go of what was opened here."""
        self.closed = True
        renewals = self._renewals.taken()
        if renewals is not None:
            renewals.close()
        guard = self._guard.taken()
        if guard is not None and self.configured.guard is None:
            guard.close()
        self.configured.close()

    def _failed(self, exchange: Exchange) -> Answer:
        self.configured.journal.failed()
        answer = exchange.failed()
        LOG.exception("the guard failed; the request is refused, id %s", exchange.own_id)
        return answer
