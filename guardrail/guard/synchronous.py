"""The guard for threads and for WSGI hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from guardrail.engine import Decide, Decision, Settle, ask_in_rows, decide_inline, settle_inline
from guardrail.guard.frame import LATEST, Frame, microseconds
from guardrail.guard.settings import Shell
from guardrail.guard.watch import Delivery, Watch
from guardrail.model.policy import PolicySet
from guardrail.signals import Signal
from guardrail.stores import FormStore, Store
from guardrail.stores.memory import MemoryStore


class Guard(Shell[Store]):
    """Decides on requests, with counters in a store.

    Safe to share between threads. Make one with `load`, or with `from_policies` for a set that is
    loaded already.
    """

    def __init__(self, frame: Frame, store: Store, watch: Watch | None = None) -> None:
        super().__init__(frame, store, watch)
        self._signals = frame.signals
        self._clock = frame.clock
        self._decide: Decide = self._steps
        self._settle: Settle | None = None
        if isinstance(store, MemoryStore) and not frame.overridden:
            self._decide = decide_inline(frame.engine, store, self._steps, LATEST)
            self._settle = settle_inline(frame.engine, store)
        elif isinstance(store, FormStore) and not frame.overridden:
            self._ask = ask_in_rows(frame.engine, LATEST)
            self._forms = store
            self._decide = self._asked

    def with_policies(self, policies: PolicySet) -> Guard:
        """Return a guard that decides by another policy set, over the same store and counters.

        What this guard decided, either settles. Close one of them, when both are done.

        Raises:
            SettingError: the environment is not usable for it.
        """
        frame = self._frame.with_policies(policies)
        self._watch.serve(frame)
        return Guard(frame, self._store, self._watch)

    def decide(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None = None,
        *,
        unavailable: frozenset[str] = frozenset(),
        now: float | None = None,
        asked: Sequence[Signal] = (),
    ) -> Decision:
        """Return the decision on a request, and charge its estimate if it is admitted.

        `facts` is a flat mapping of dotted names to plain values, `estimate` maps units to
        amounts, `now` is in seconds since the epoch (the guard's clock if not given). The
        mappings must not be changed until the decision is settled. `unavailable` names facts
        whose source failed: what hinges on them is refused, never guessed. The signals in `asked`
        gave their facts to `precheck`, and are not asked again.

        Raises:
            SettingError: `now` is not a time.
        """
        moment = self._clock() if now is None else now
        if self._signals:
            facts, failed = self._frame.known(facts, moment, asked)
            unavailable |= failed
        if unavailable:
            return self._steps(facts, estimate, moment, unavailable)
        return self._decide(facts, estimate, moment)

    def settle(
        self,
        decision: Decision,
        usage: Mapping[str, object] | None = None,
        *,
        model: str | None = None,
        now: float | None = None,
    ) -> None:
        """Replace a decision's estimate by what was used; a second time does nothing.

        `usage` maps units to amounts; what it lacks stays as reserved. `model` is the one that
        was served, where money is counted. Unusable figures are named in `decision.errors`, and so
        is what the store lost; what it cannot take now is kept and delivered later.
        """
        moment = microseconds(self._frame.moment(now))
        if self._settle is not None and usage is not None and self._settle(decision, usage, moment):
            return
        corrections = self._frame.settlement(decision, usage, model)
        self._send(self._watch.delivery(decision, corrections, moment))

    def release(self, decision: Decision, *, now: float | None = None) -> None:
        """Give everything back: the request failed by our fault, before anything was served."""
        moment = microseconds(self._frame.moment(now))
        self._send(self._watch.delivery(decision, self._frame.release(decision), moment))

    def renew(self, decision: Decision, *, now: float | None = None) -> None:
        """Extend the decision's leases from now on: the request is still being served."""
        moment = microseconds(self._frame.moment(now))
        self._send(self._watch.delivery(decision, self._frame.renewal(decision, moment), moment))

    def close(self) -> None:
        """Deliver what waits, if the store answers, and let go of files and connections."""
        watch, moment = self._watch, microseconds(self._frame.moment(None))
        while (delivery := watch.leftovers(moment)) is not None and self._send(delivery):
            pass
        watch.give_up()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _steps(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
        unavailable: frozenset[str] = frozenset(),
    ) -> Decision:
        """Decide in three steps: plan, acquire, conclude."""
        frame = self._frame
        case, plan = frame.plan(facts, estimate, moment, unavailable)
        if not frame.needs_store(plan):
            return frame.concluded(case, plan, None)
        watch = self._watch
        permit = watch.permit()
        if permit is None:
            return watch.unasked(case, plan)
        try:
            outcome = self._store.acquire(plan.charges, plan.cells, plan.now)
        except Exception as problem:
            return watch.failed(case, plan, permit, problem)
        except BaseException:
            watch.abandoned(permit)
            raise
        return watch.answered(case, plan, permit, outcome)

    def _asked(
        self,
        facts: Mapping[str, object],
        estimate: Mapping[str, object] | None,
        moment: float,
    ) -> Decision:
        """Decide by a question in numbers, if the request is plain enough for one."""
        question = self._ask(facts, estimate, moment)
        if question is None:
            return self._steps(facts, estimate, moment)
        if not question.needs_store:
            return question.unasked()
        watch = self._watch
        permit = watch.permit()
        if permit is None:
            return watch.unasked(question.case, question.plan)
        try:
            reply = self._forms.ask(question, question.now)
        except Exception as problem:
            return watch.failed(question.case, question.plan, permit, problem)
        except BaseException:
            watch.abandoned(permit)
            raise
        return watch.replied(question, permit, reply)

    def _send(self, delivery: Delivery | None) -> bool:
        """Send corrections, if there are any; tell whether they arrived."""
        if delivery is None:
            return False
        try:
            self._store.settle(delivery.corrections, delivery.now)
        except Exception as problem:
            self._watch.undelivered(delivery, problem)
            return False
        except BaseException:
            self._watch.interrupted(delivery)
            raise
        self._watch.delivered(delivery)
        return True
