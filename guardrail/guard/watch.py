"""What stands around every call to a store: whether to make it, and what to do when it fails.

Both guards share it: all of it is steps before and after the one call, which is theirs.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from guardrail.engine import Decision
from guardrail.engine.conclude import conclude
from guardrail.engine.decision import Case
from guardrail.engine.fused.asking import Question
from guardrail.engine.limits.sets import ConcurrencyLimit
from guardrail.engine.plan import Plan
from guardrail.errors import StoreError
from guardrail.guard.answers import Answers
from guardrail.guard.backlog import MOST_KEPT, Backlog, Kept
from guardrail.guard.breaker import Breaker
from guardrail.guard.frame import Frame
from guardrail.guard.health import Health
from guardrail.guard.local import LocalCounters
from guardrail.model.cells import Correction, Leave, Member, Outcome
from guardrail.model.effects import StoreMode
from guardrail.stores.forms import GarbledError, are_numbers, outcome_of


class Delivery(NamedTuple):
    """Corrections on their way to the store: those of one decision last, older ones before.

    `now` is in microseconds, `decision` None where there are only older ones.
    """

    permit: int
    older: list[Kept]
    own: list[Kept]
    now: int
    decision: Decision | None

    @property
    def corrections(self) -> list[Correction]:
        """What to send."""
        return [entry.correction for entry in (*self.older, *self.own)]


class Watch:
    """Watches over the calls to one store.

    Each call takes a permit, and hands it back by what became of it: `answered`, `failed` or
    `abandoned` for decisions, `delivered`, `undelivered` or `interrupted` for corrections.
    `in_process` stores are never away; nothing is counted beside them. A store that `undoes` takes
    back what it charged for a call that failed, and counts by itself what it cannot.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        in_process: bool,
        undoes: bool = False,
        most_queued: int = MOST_KEPT,
    ) -> None:
        # Pauses are told by the host's clock alone: the store's is asked for once a call.
        self._clock = frame.host_clock
        self._follows = not in_process
        self._undoes = undoes
        self._breaker = Breaker(random.random)
        self._local = LocalCounters(frame.engines, frame.parts)
        self._backlog = Backlog(self._local.leases, most_queued)
        self._lock = threading.Lock()
        self._failures = 0
        self._unasked = 0
        self._charged = 0
        self._problem: str | None = None

    def serve(self, frame: Frame) -> None:
        """Watch over the calls of another policy set too, from now on."""
        self._local.serve(frame.engines)

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

    def answered(self, case: Case, plan: Plan, permit: int, outcome: Outcome) -> Decision:
        """Return the decision on a plan that the store has answered."""
        if not _fits(outcome, plan):
            wrong = StoreError("its answer does not fit what was asked", unsure=True)
            return self._misunderstood(case, plan, permit, wrong)
        self._breaker.succeeded(permit, self._clock())
        if self._follows:
            self._local.follow(plan, outcome)
        return case.engine.decision(case, plan, outcome)

    def replied(self, question: Question, permit: int, reply: list[int]) -> Decision:
        """Return the decision on a question that the store has replied to."""
        try:
            if not (self._undoes or are_numbers(reply)):
                raise GarbledError(f"the store answered `{reply!r:.100}`, which is none of ours")
            receipts = question.receipts(reply)
            if receipts is None:
                outcome = outcome_of(reply, len(question.charges), question.cells)
        except Exception as problem:  # a store of the host's own may reply whatever it likes
            return self._misunderstood(question.case, question.plan, permit, problem)
        if receipts is None:
            return self.answered(question.case, question.plan, permit, outcome)
        self._breaker.succeeded(permit, self._clock())
        if self._follows:
            self._local.follow_question(question, receipts)
        return question.allowed(receipts)

    def failed(self, case: Case, plan: Plan, permit: int, problem: Exception) -> Decision:
        """Return the decision on a plan that the store failed to answer."""
        return self._failed(case, plan, permit, problem, undone=self._undoes)

    def _misunderstood(self, case: Case, plan: Plan, permit: int, problem: Exception) -> Decision:
        """Return the decision on a plan whose answer tells nothing, and is not undone."""
        return self._failed(case, plan, permit, problem, undone=False)

    def _failed(
        self, case: Case, plan: Plan, permit: int, problem: Exception, *, undone: bool
    ) -> Decision:
        self._note(permit, problem)
        if _unsure(problem):
            if not undone:
                with self._lock:
                    self._charged += 1
            # It may have been admitted all the same: its places in flight are given back.
            leaves = self._backlog.wrap(_places_taken(plan), plan.now)
            self._backlog.keep(leaves, plan.now, unsure=True)
        return self._without(case, plan, f"the store failed ({_worded(problem)})")

    def unasked(self, case: Case, plan: Plan) -> Decision:
        """Return the decision on a plan for which the store is not asked."""
        with self._lock:
            self._unasked += 1
        return self._without(case, plan, f"the store is not asked, as it failed ({self._problem})")

    def delivery(
        self, decision: Decision, corrections: Sequence[Correction], now: int
    ) -> Delivery | None:
        """Return what to send for a decision, None if there is nothing to send, or not now."""
        if not corrections:
            return None
        own = decision.mode is not StoreMode.NORMAL
        if own or self._follows:
            self._local.settle(corrections, now, own=own)
        if own:
            return None
        entries = self._backlog.wrap(corrections, now)
        permit = self.permit()
        if permit is None:
            lost = self._backlog.keep(entries, now, unsure=False)
            self._tell(decision, lost, "the store is not asked, as it failed")
            return None
        return Delivery(permit, self._backlog.take(now), entries, now, decision)

    def leftovers(self, now: int) -> Delivery | None:
        """Return some of what waits, to be sent by itself; None if nothing does, or not now."""
        permit = self.permit() if len(self._backlog) else None
        if permit is None:
            return None
        older = self._backlog.take(now)
        if not older:
            self.abandoned(permit)
            return None
        return Delivery(permit, older, [], now, None)

    def delivered(self, delivery: Delivery) -> None:
        """Note that corrections arrived."""
        self._breaker.succeeded(delivery.permit, self._clock())

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

    def _without(self, case: Case, plan: Plan, why: str) -> Decision:
        """Decide without the store, each rule as it says."""
        answers = Answers.of(case.engine, case, plan)
        asked, places = self._local.plan(plan, answers)
        asked.notes = (*plan.notes, f"{why}: {answers.told()}")
        outcome = self._local.acquire(asked, refuse=answers.refuse)
        debits = tuple(self._local.debits(case, plan, asked, places, outcome))
        ruling = conclude(case.engine.policies, asked, outcome)
        case = case._replace(debits=debits, plan=asked, outcome=outcome)
        return Decision.of(replace(ruling, mode=answers.mode), case)

    def _note(self, permit: int, problem: Exception) -> None:
        self._breaker.failed(permit, self._clock())
        with self._lock:
            self._failures += 1
            self._problem = _worded(problem)

    def _keep(self, delivery: Delivery, why: str, *, unsure: bool, broke: bool) -> None:
        now = delivery.now
        self._backlog.keep(delivery.older, now, unsure=unsure, broke=broke)
        lost = self._backlog.keep(delivery.own, now, unsure=unsure, broke=broke)
        if delivery.decision is not None:
            self._tell(delivery.decision, lost, f"the store failed ({why})")

    def _tell(self, decision: Decision, lost: int, why: str) -> None:
        if lost:
            what = "one correction" if lost == 1 else f"{lost} corrections"
            decision.note(f"{why}: {what} of what was charged {'is' if lost == 1 else 'are'} lost")


def _fits(outcome: object, plan: Plan) -> bool:
    return (
        isinstance(outcome, Outcome)
        and len(outcome.replies) == len(plan.cells)
        and len(outcome.refused) == len(plan.charges)
    )


def _places_taken(plan: Plan) -> list[Correction]:
    return [
        Leave(key, cell.member)
        for cell, part in zip(plan.cells, plan.parts, strict=True)
        if isinstance(part.limit, ConcurrencyLimit) and isinstance(cell, Member)
        for key in (cell.key, cell.spill)
        if part.role == "limit" and key
    ]


def _unsure(problem: Exception) -> bool:
    return not isinstance(problem, StoreError) or problem.unsure


def _worded(problem: Exception) -> str:
    return (
        str(problem) if isinstance(problem, StoreError) else f"by a fault of its own, {problem!r}"
    )
