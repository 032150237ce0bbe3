"""The way of a request as generators: what is asked, decided and settled, in which order.

A flow does no input or output. It yields steps (`LookUp`, `ReadBody`, `Decide` …); whoever drives
it performs each and sends the outcome in, or throws in what went wrong. `AsyncEnforcer` drives the
flows in an event loop, `SyncEnforcer` in threads: they are the same for ASGI, WSGI, WebSockets,
LiteLLM's proxy and FastAPI's dependency.

A flow that is cancelled (`CancelledError`, the end of a thread) yields what gives back or settles
what it holds, and then raises on. A driver that is itself closed throws in `ClosedError`, as a
generator that gets `GeneratorExit` may not yield any more; for the same reason nobody but a driver
ends a flow.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from guardrail.engine import Decision
from guardrail.errors import GuardrailError
from guardrail.guard import AsyncGuard, Guard
from guardrail.guard.supervisor import Health
from guardrail.http.delays import DelaySlots, caller_of
from guardrail.http.dialects import Dialect
from guardrail.http.identity import Caller
from guardrail.http.leases import Lease, Renewal, lease_of
from guardrail.http.metering import unfed_notes
from guardrail.http.parsing.folding import AT_ONCE
from guardrail.http.recorder import DecisionRecorder
from guardrail.http.request import NOTHING, Delay, Forward, Request
from guardrail.http.response import BackgroundWork, ResponseTracker, Settlement
from guardrail.http.responses import Addressee, Answer, Style, refuse
from guardrail.http.settings.build import Configured
from guardrail.http.settings.reload import InForce, Reloads
from guardrail.model.effects import Effect
from guardrail.model.policy import PolicySet
from guardrail.model.spellings import Spellings
from guardrail.signals import Signal
from guardrail.signals.directory import SourceHealth

LOG = logging.getLogger("guardrail")

_THROTTLE = Effect.THROTTLE
# Every request makes some of these: a named tuple's own constructor takes twice as long.
_new = tuple.__new__
RELEASED = Settlement(None)
"""Everything is given back."""

AnyGuard = AsyncGuard | Guard
Amounts = Mapping[str, int]
Anew = Callable[[Mapping[str, object], Amounts], Awaitable[Decision]]

STATE_KEY = "guardrail.passage"
"""Where a host finds the state of a request: this key of the ASGI scope, or of the WSGI environ."""


class TooLargeError(Exception):
    """A body is longer than the bound."""


class TooSlowError(Exception):
    """A body did not arrive in time."""


class ClosedError(BaseException):
    """Who drives a flow is closed, and cannot wait any more."""


class Refresh(NamedTuple):
    """Put changed policies in force if it is time to look for them. Gives the guard."""


REFRESH = Refresh()


class LookUp(NamedTuple):
    """Ask who sends a request at a time, in seconds since the epoch. Gives an `Identity`."""

    caller: Caller
    now: float


class ReadBody(NamedTuple):
    """Read the body, at most so many bytes. Gives the bytes.

    Raises:
        TooLargeError: there are more.
        TooSlowError: it takes too long.
    """

    most: int


class Compute(NamedTuple):
    """Do what a large body takes, one at a time, apart for callers who are `known`. Gives that."""

    work: Callable[[], object]
    known: bool


class Decide(NamedTuple):
    """Ask a guard, which charges what it admits. Gives the `Decision`."""

    guard: AnyGuard
    facts: Mapping[str, object]
    estimate: Mapping[str, object] | None
    unavailable: frozenset[str]
    asked: Sequence[Signal] = ()


class Settle(NamedTuple):
    """Settle a decision, or give it back; what goes wrong is logged, and nobody meets it."""

    guard: AnyGuard
    decision: Decision
    settlement: Settlement


class Renew(NamedTuple):
    """Extend the leases of a decision; a store that does not answer is only noted."""

    guard: AnyGuard
    decision: Decision


Step = Refresh | LookUp | ReadBody | Compute | Delay | Decide | Settle | Renew

T = TypeVar("T")
Flow = Generator[Step, Any, T]


class Reservation:
    """What a request or a turn holds until it ends: its charge, and its places in flight.

    It is settled once. Places whose leases ran out are taken anew by a decision of their own, which
    is given back with the rest and is no request in the decision log.
    """

    __slots__ = (
        "_again",
        "_dialect",
        "_lease",
        "_recorder",
        "decision",
        "guard",
        "held",
        "owes",
        "renews_every",
        "unavailable",
    )

    def __init__(
        self,
        guard: AnyGuard,
        decision: Decision,
        recorder: DecisionRecorder | None,
        dialect: Dialect,
        *,
        unavailable: frozenset[str],
        lease: float | None,
        now: float,
    ) -> None:
        """Take a decision that is held from `now` on; `lease` is in seconds, None for none."""
        self.guard = guard
        self.decision = decision
        self.held = True
        """Whether it is still to be settled."""
        self.owes = False
        """Whether nothing was reserved for it, so that its usage is charged in full."""
        self.unavailable = unavailable
        self._recorder = recorder
        self._dialect = dialect
        self._lease = None if lease is None else Lease(lease, now)
        self.renews_every = None if self._lease is None else self._lease.every
        """How many seconds pass between two renewals, None where nothing is to be renewed."""
        self._again: Decision | None = None

    def renewal(self, now: float) -> Flow[None] | None:
        """Return what renews its places at `now`, None if nothing is due; then it is taken as done.

        Leases are extended. Places whose leases ran out, for the process was suspended, say, are
        taken anew: others may hold them by now, and the request then goes on without.
        """
        due = self._lease.due(now) if self._lease is not None and self.held else None
        if due is Renewal.EXTEND:
            return _extended(self.guard, self._again or self.decision)
        return self._reacquired() if due is Renewal.REACQUIRE else None

    def settle(self, settlement: Settlement, *, recorded: bool = True) -> Flow[None]:
        """Settle it, unless that is done; not `recorded` where a refusal of ours stands for it."""
        if self.held:
            self.held = False
            if recorded and self._recorder is not None:
                self._recorder.settled(self.decision, settlement)
            try:
                yield _new(Settle, (self.guard, self.decision, settlement))
            finally:
                # Also where this was cancelled meanwhile.
                if self._again is not None:
                    yield from self._let_places_go()

    def decide_again(
        self, facts: Mapping[str, object], estimate: Mapping[str, object], *, served: bool
    ) -> Flow[Decision]:
        """Decide in its place on the same request with further facts, and another estimate.

        What it held is given back before, so that no limit counts the request twice, and one with a
        single place has it for this. Another request may take it between the two. If the response
        has started (`served`) when the guard refuses, the request is held as it was before, above
        its limits if need be: what is served is charged.
        """
        before, held = self.decision, self.held
        yield from self._let_places_go()
        self.held = False
        unavailable = self.unavailable - facts.keys()
        try:
            if held:
                yield from settled(self.guard, before, RELEASED, self._recorder)
            decision: Decision = yield Decide(
                self.guard, {**before.facts, **facts}, estimate, unavailable
            )
        except BaseException:
            if held and served:
                self._owe(before)
            raise
        self._decided(decision)
        if decision.allowed:
            self.decision, self.held, self.owes = decision, True, False
            self.unavailable = unavailable
        elif held and served:
            try:
                again: Decision = yield Decide(
                    self.guard, before.facts, before.case.estimate, self.unavailable
                )
            except BaseException:
                self._owe(before)
                raise
            self._decided(again, owes=True)
            if again.allowed:
                self.decision, self.held = again, True
            else:
                self._owe(again)
        return decision

    def taken(self, now: float) -> None:
        """Count the leases of its places from `now`."""
        if self._lease is not None:
            self._lease.taken(now)

    def _owe(self, decision: Decision) -> None:
        """Hold what a decision would charge, nothing of it reserved: usage is charged in full."""
        self.decision, self.held, self.owes = decision.case.engine.owing(decision), True, True

    def _decided(self, decision: Decision, *, owes: bool = False) -> None:
        if self._recorder is not None:
            self._recorder.decided(decision, self._dialect, owes=owes)

    def _reacquired(self) -> Flow[None]:
        before = self.decision, self._again
        case = self.decision.case
        nothing = {**dict.fromkeys(case.estimate or (), 0), **NOTHING}
        try:
            again: Decision = yield Decide(self.guard, case.facts, nothing, self.unavailable)
        except GuardrailError as problem:
            LOG.warning("a place whose lease ran out was not taken anew: %s", problem)
            return
        if not again.allowed:
            LOG.warning("a place whose lease ran out is taken: %s goes on without one", again.id)
        elif not self.held or before != (self.decision, self._again):
            # It ended meanwhile, or another decision holds its places by now.
            yield Settle(self.guard, again, RELEASED)
        elif self._lease is not None:
            self._lease.reacquired()
            self._again = again

    def _let_places_go(self) -> Flow[None]:
        again, self._again = self._again, None
        if again is not None:
            yield Settle(self.guard, again, RELEASED)


def reserved(
    guard: AnyGuard,
    facts: Mapping[str, object],
    estimate: Mapping[str, object] | None,
    *,
    unavailable: frozenset[str],
    recorder: DecisionRecorder | None,
    dialect: Dialect,
    lease: float | None,
    clock: Callable[[], float],
) -> Flow[Reservation]:
    """Decide, record it, and return what the decision holds: nothing if it refuses."""
    decision: Decision = yield Decide(guard, facts, estimate, unavailable)
    if recorder is not None:
        recorder.decided(decision, dialect)
    reservation = Reservation(
        guard, decision, recorder, dialect, unavailable=unavailable, lease=lease, now=clock()
    )
    reservation.held = decision.allowed
    return reservation


def settled(
    guard: AnyGuard, decision: Decision, settlement: Settlement, recorder: DecisionRecorder | None
) -> Flow[None]:
    """Record how a request ended, and settle it."""
    if recorder is not None:
        recorder.settled(decision, settlement)
    yield Settle(guard, decision, settlement)


def _extended(guard: AnyGuard, decision: Decision) -> Flow[None]:
    yield Renew(guard, decision)


class Exchange:
    """What the host's own code and what serves its request tell each other.

    `decision` is the last on the request. A host that asks the guard again, and is refused, may
    leave the `refusal` here: it is then sent in the place of the host's response, if that has not
    started. `added` holds what was added to the request, each with what the host says in the end
    that it used of it.
    """

    __slots__ = ("added", "decision", "refusal")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.refusal: Answer | None = None
        self.added: list[tuple[Amounts, Callable[[], Amounts]]] = []

    def used(self, metered: Amounts, estimate: Amounts) -> Amounts:
        """Return what was used, from what was metered and what the host added to the request.

        Of a unit that was not metered, what `estimate` reserved for the request itself stays; so
        does what was added and is not stated to be used.
        """
        used = dict(metered)
        for reserved, stated in self.added:
            for unit, amount in {**reserved, **stated()}.items():
                used[unit] = plus(used.get(unit, estimate.get(unit, 0)), amount)
        return used


class RequestState(NamedTuple):
    """The request being served, for the host's own code: what it is told, and whom it may ask.

    `guard` is the one that decided. `anew` decides on the whole request once more, with further
    facts and amounts, in the place of `decision`, which is given back before; None where that
    cannot be: over WSGI, and in sessions whose turns are decided one by one. `recorder` and
    `clock` are for decisions that a host makes beside, and `unavailable` names the facts whose
    source failed.

    Whoever serves the request knows the `exchange` alone, so that nothing of it waits for the
    collector of garbage once it is over.
    """

    exchange: Exchange
    guard: AnyGuard
    addressee: Addressee
    style: Style
    anew: Anew | None = None
    recorder: DecisionRecorder | None = None
    clock: Callable[[], float] | None = None
    unavailable: frozenset[str] = frozenset()

    @property
    def decision(self) -> Decision:
        """The last decision on the request."""
        return self.exchange.decision


def plus(amount: int, more: Any) -> int:
    """Return the sum of two amounts; `more` as it is where it is none, for the guard to refuse."""
    number = isinstance(more, (int, float)) and not isinstance(more, bool) and more >= 0
    total: int = amount + more if number else more
    return total


class _Known(NamedTuple):
    """What is known of the policies that a guard decides by.

    `lease` is the shortest that they give, in seconds, None for none.
    """

    guard: AnyGuard
    policies: PolicySet
    lease: float | None
    spellings: Spellings


class Flows:
    """The flows of one application, over what its requests share.

    `most_delayed` bounds how many are delayed at once beside `max_held`, None for no bound.
    """

    in_force: InForce[Any]
    """This process's guard, by the policies in force."""

    def __init__(self, configured: Configured) -> None:
        self.configured = configured
        self.settings = configured.http
        self.clock = configured.clock
        self.recorder = configured.recorder
        self.background = BackgroundWork()
        self._delayed = DelaySlots(self.settings.max_held)
        self._known: _Known | None = None

    def figures(self, guard: AnyGuard) -> tuple[Health, Reloads | None, SourceHealth]:
        """Return how stand what a guard asks, the policies, and who knows the callers."""
        return guard.health, self.in_force.reloads, self.configured.callers.health

    def _take_figures(self, guard: AnyGuard | None) -> None:
        """Have other processes told how it stands, if there is a guard to ask."""
        if guard is not None:
            self.recorder.take_figures(*self.figures(guard))

    def _reloaded(self, reload: Callable[[], None]) -> None:
        """Reload, or see whether that is due, and have it told how it went."""
        reload()
        self._take_figures(self.in_force.made)

    @property
    def most_delayed(self) -> int | None:
        """How many requests may be delayed at once here, None for as many as the settings say."""
        return None

    def is_busy(self, *, known: bool) -> bool:
        """Whether too many large bodies wait to be read of callers who are `known`, or not."""
        return False

    def admit(self, request: Request) -> Flow[Answer | Forward]:
        """Return the host's part in a request, or the answer that ends it before.

        The body is not read of a request that its head already refuses.
        """
        try:
            guard = request.guard = self.in_force.ready() or (yield REFRESH)
            answer = request.opened()
            if answer is None:
                identity = yield _new(LookUp, (request.caller, self.clock()))
                if request.notes:
                    self.configured.note(request.notes)
                answer = request.identified(identity)
            if answer is None and request.has_body:
                found = guard.precheck(
                    request.facts, unavailable=request.unavailable, now=self.clock()
                )
                answer = None if found is None else request.prechecked(found)
                if answer is not None:
                    self.recorder.decided(found.refusal, request.dialect)
        except Exception:
            return self._failed(request)
        if answer is not None:
            return answer
        try:
            if request.has_body:
                request.body = yield _new(ReadBody, (request.max_body,))
        except TooLargeError:
            return request.too_large()
        except TooSlowError:
            return request.too_slow()
        try:
            body = request.body
            if body is not None and len(body) > AT_ONCE:
                if self.is_busy(known=request.known):
                    return request.busy()
                answer = yield Compute(partial(request.received, body), request.known)
            else:
                answer = request.received(body)
            return answer if answer is not None else (yield from self._outcome(request, guard))
        except Exception:
            return self._failed(request)

    def _outcome(self, request: Request, guard: AnyGuard) -> Flow[Answer | Forward]:
        """Decide on a request that was read, and delay it where that is short and allowed."""
        waited = 0.0
        while True:
            facts = self._with_listed_model(guard, request.facts)
            stated = facts, request.asked.estimate, request.unavailable, request.signals_asked
            decision: Decision = yield _new(Decide, (guard, *stated))
            allowed = decision.ruling.effect < _THROTTLE
            try:
                step: Answer | Delay | Forward
                if request.changes_large_body(decision):
                    work = partial(request.decided, decision, waited)
                    step = yield Compute(work, request.known)
                else:
                    step = request.decided(decision, waited)
            except BaseException:
                yield Settle(guard, decision, RELEASED)
                raise
            if isinstance(step, Delay):
                caller = caller_of(request.facts)
                if self._delayed.take(caller, self.most_delayed):
                    try:
                        yield step
                    finally:
                        self._delayed.give(caller)
                    waited += step.seconds
                    continue
                step = refuse(decision, request.addressee, self.settings.style)
            if allowed and isinstance(step, Answer):
                # It was refused by an answer of our own, which is recorded by itself.
                yield Settle(guard, decision, RELEASED)
            elif allowed or isinstance(step, Answer):
                # A session that is refused only for what its turns may ask for is let in.
                self.recorder.decided(decision, request.dialect)
            return step

    def decide_turn(
        self, request: Request, facts: Mapping[str, object], estimate: Mapping[str, int]
    ) -> Flow[Decision]:
        """Decide on one turn of a session; who asks, and by which policies, is established anew.

        It is for the caller to record, who knows whether the turn can be served so.
        """
        guard = request.guard = self.in_force.ready() or (yield REFRESH)
        identity = yield LookUp(request.caller, self.clock())
        every = self._with_listed_model(guard, {**request.head_facts, **facts, **identity.facts})
        decision: Decision = yield Decide(guard, every, estimate, identity.unavailable)
        return decision

    def evaluate(
        self, facts: Mapping[str, object], estimate: Mapping[str, object]
    ) -> Flow[Decision | None]:
        """Decide on a question whose end nobody tells, None where the guard fails over it."""
        try:
            guard = self.in_force.ready() or (yield REFRESH)
            decision: Decision = yield Decide(guard, facts, estimate, frozenset())
            self.recorder.decided(decision, Dialect.OTHER)
            if decision.allowed:
                yield from settled(guard, decision, Settlement({}), self.recorder)
        except Exception:
            LOG.exception("an evaluation failed; it permits nothing")
            return None
        return decision

    def held(self, request: Request, decision: Decision) -> Reservation:
        """Return what a decision on a request, or on one of its turns, holds from now on."""
        return Reservation(
            request.guard,
            decision,
            self.recorder,
            request.dialect,
            unavailable=request.unavailable,
            lease=self._known_of(request.guard).lease,
            now=self.clock(),
        )

    def policies_of(self, request: Request) -> PolicySet:
        """Return the policies by which a request was decided on last."""
        return self._known_of(request.guard).policies

    def _known_of(self, guard: AnyGuard) -> _Known:
        """Return what is known of the policies that a guard decides by."""
        known = self._known
        if known is None or known.guard is not guard:
            policies = guard.policies
            lease, spellings = lease_of(policies), Spellings(policies.models)
            known = self._known = _Known(guard, policies, lease, spellings)
            self.configured.note(unfed_notes(policies.units))
        return known

    def _with_listed_model(
        self, guard: AnyGuard, facts: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Return facts in which a listed model has its listed name, however a client spells it."""
        model, spellings = facts.get("request.model"), self._known_of(guard).spellings
        if not spellings.names or not isinstance(model, str) or model in spellings.names:
            return facts
        return {**facts, "request.model": spellings.listed(model)}

    def note_failure(self) -> None:
        """Note that the guard failed over what is being handled, which is refused."""
        LOG.exception("the guard failed; what it was asked about is refused")
        self.recorder.failed()

    def _failed(self, request: Request) -> Answer:
        self.recorder.failed()
        answer = request.failed()
        LOG.exception("the guard failed; the request is refused, id %s", request.own_id)
        return answer


class Served:
    """An admitted request while the host serves it over HTTP; it ends once, whatever happens.

    `response` follows what the host sends; `exchange` is what the host's own code is told, and
    tells.
    """

    _over = _charged = False
    """Whether the response is over, and whether what the request was estimated at is charged."""

    def __init__(self, flows: Flows, request: Request, forward: Forward) -> None:
        self._flows = flows
        self._request = request
        self._estimate: Amounts = request.asked.estimate
        self.reservation = flows.held(request, forward.decision)
        self.exchange = Exchange(forward.decision)
        self.response = ResponseTracker(
            forward.decision,
            request.asked,
            request.addressee,
            flows.settings.style,
            policies=flows.policies_of(request),
            strips_usage=forward.strips_usage,
            background=flows.background,
        )

    def state(self, anew: Anew | None = None) -> RequestState:
        """Return the request for the host's own code, with what decides on it `anew`."""
        request, flows = self._request, self._flows
        asked = self.exchange, request.guard, request.addressee, flows.settings.style
        told = anew, flows.recorder, flows.clock, request.unavailable
        return _new(RequestState, (*asked, *told))

    def decide_again(self, facts: Mapping[str, object], added: Amounts) -> Flow[Decision]:
        """Decide on the whole request once more, with what the host's own code adds to it.

        After its response is over the request itself is charged already: what is added then is
        decided on and charged by itself.
        """
        estimate = dict(self._estimate)
        if self._charged:
            estimate = {**dict.fromkeys(estimate, 0), **NOTHING}
        for unit, amount in added.items():
            estimate[unit] = plus(estimate.get(unit, 0), amount)
        decision = yield from self.reservation.decide_again(
            facts, estimate, served=self.response.has_started
        )
        self.exchange.decision = decision
        if self.reservation.held:
            self.response.decision = self.reservation.decision
            self.reservation.taken(self._flows.clock())
        if decision.allowed:
            self._estimate, self._charged = estimate, False
        return decision

    def finish(self, *, failed: bool, left: bool = False) -> Flow[None]:
        """Settle once the response is over: a host may work on for a while after it.

        `failed` tells that the host raised, `left` that the client left.
        """
        if not self.reservation.held:
            return
        if self._over:
            yield from self.reservation.settle(Settlement(self._with_added({}, {})))
            return
        self._over = self._charged = True
        (_, ending), *others = self.response.endings(failed=failed, left=left)
        usage = ending.usage
        if usage is not None:
            if self.reservation.owes:
                # It reserved nothing: what is not metered was used as it was estimated.
                usage = {**self._estimate, **usage}
            if self.exchange.added:
                usage = self._with_added(usage, self._request.asked.estimate)
            if usage is not ending.usage:
                ending = Settlement(usage, ending.model)
        try:
            yield from self.reservation.settle(ending)
        finally:
            # Also where this was cancelled meanwhile.
            for other in others:
                yield from settled(self.reservation.guard, *other, self._flows.recorder)

    def _with_added(self, usage: Amounts, estimate: Amounts) -> Amounts:
        """Return what was used with what the host added; that is charged with it, and once."""
        used = self.exchange.used(usage, estimate)
        self.exchange.added.clear()
        return used
