"""T1 and T12: one decision on R5 against the same decided by hand, and what reading more costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from benchmarks.results import Result
from benchmarks.timing import Contender, added, interleaved, micros, ratio
from benchmarks.workload import (
    R5_POLICY,
    Clock,
    addresses_served,
    by_hand,
    deciding,
    r5_guard,
    r5_requests,
)
from guardrail import Decision, Guard
from guardrail.loading import load_text

DECIDE_MOST, LOOK_UP_MOST = 2.2, 0.8
BUSY = 0.0001
"""Seconds between requests where nearly all are to be refused."""


def decision_costs(rounds: int, scale: float) -> list[Result]:
    """Return T1: a decision, what follows from reading it, and the ways that are not the usual."""
    requests = r5_requests(int(20_000 * scale))
    stated = requests.stated
    costs = interleaved(
        {
            "by hand": by_hand(requests.positional, Clock()),
            "decide": deciding(r5_guard(), stated, Clock()),
            "read": _then(r5_guard(), stated, _read),
            "limits": _then(r5_guard(), stated, _limits),
            "settled": _settling(r5_guard(), stated),
            "no signal": deciding(_guard_without_signal(), _declared(stated), Clock()),
        },
        rounds,
    )

    def row(name: str, what: str, bound: float | None = None) -> Result:
        note = f"{micros(costs, name):.2f} µs against {micros(costs, 'by hand'):.2f}"
        return Result(
            target="T1", what=what, value=ratio(costs, name, "by hand"), bound=bound, note=note
        )

    return [
        row("decide", "Guard.decide on R5, against R5 by hand", DECIDE_MOST),
        row("read", "… and effect, rule and retry_after read"),
        row("limits", "… and limits read"),
        row("settled", "… and settled at another usage"),
        row("no signal", "… the country in a declared fact (no geo signal)"),
        _refusals(rounds, scale),
    ]


def look_up_costs(rounds: int, scale: float) -> list[Result]:
    """Return T12: what looking the country up from the address adds to a decision."""
    requests = r5_requests(int(20_000 * scale))
    costs = interleaved(
        {
            "by hand": by_hand(requests.positional, Clock()),
            "given": deciding(r5_guard(), requests.stated, Clock()),
            "looked up": deciding(r5_guard(), _with_addresses(requests.stated, 5000), Clock()),
            "unknown": deciding(r5_guard(), _with_addresses(requests.stated, 20_000), Clock()),
        },
        rounds,
    )

    def row(name: str, what: str, bound: float | None) -> Result:
        note = f"{micros(costs, name):.2f} µs against {micros(costs, 'given'):.2f}"
        extra = added(costs, name, "given", "by hand")
        return Result(target="T12", what=what, value=extra, unit="R5", bound=bound, note=note)

    return [
        row("looked up", "country looked up from client.ip, beyond country given", LOOK_UP_MOST),
        row("unknown", "… of more addresses in turn than are remembered", None),
    ]


def _refusals(rounds: int, scale: float) -> Result:
    requests = r5_requests(int(20_000 * scale), tier="anon")
    costs = interleaved(
        {
            "by hand": by_hand(requests.positional, Clock(BUSY)),
            "decide": deciding(r5_guard(), requests.stated, Clock(BUSY)),
        },
        rounds,
    )
    note = f"{micros(costs, 'decide'):.2f} µs against {micros(costs, 'by hand'):.2f}"
    what = "… refused by the rate, against the same refused by hand"
    return Result(target="T1", what=what, value=ratio(costs, "decide", "by hand"), note=note)


def _then(
    guard: Guard, stated: Sequence[tuple[Any, Any]], read: Callable[[Decision], object]
) -> Contender:
    clock = Clock()

    def run() -> float:
        decide, now, step = guard.decide, clock.now, clock.step
        began = perf_counter()
        for facts, estimate in stated:
            now += step
            read(decide(facts, estimate, now=now))
        took = perf_counter() - began
        clock.now = now
        return took / len(stated)

    return run


def _read(decision: Decision) -> object:
    return decision.effect, decision.rule, decision.retry_after


def _limits(decision: Decision) -> object:
    return decision.limits


def _settling(guard: Guard, stated: Sequence[tuple[Any, Any]]) -> Contender:
    clock = Clock()
    usage = {"input_tokens": 31, "output_tokens": 17}

    def run() -> float:
        decide, settle, now, step = guard.decide, guard.settle, clock.now, clock.step
        began = perf_counter()
        for facts, estimate in stated:
            now += step
            settle(decide(facts, estimate, now=now), usage, now=now)
        took = perf_counter() - began
        clock.now = now
        return took / len(stated)

    return run


def _guard_without_signal() -> Guard:
    text = R5_POLICY.read_text("utf-8").replace("geo.country", "request.country")
    text = text.replace("facts:\n", "facts:\n  request.country: {type: country}\n")
    return Guard.from_policies(load_text(text), environ={})


def _declared(stated: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return [
        ({name.replace("geo.country", "request.country"): facts[name] for name in facts}, estimate)
        for facts, estimate in stated
    ]


def _with_addresses(stated: Sequence[tuple[Any, Any]], count: int) -> list[tuple[Any, Any]]:
    """Return the requests with one of some addresses of allowed countries for the country."""
    addresses = addresses_served(min(len(stated), count))
    return [
        (
            {name: value for name, value in facts.items() if name != "geo.country"}
            | {"client.ip": addresses[n % len(addresses)]},
            estimate,
        )
        for n, (facts, estimate) in enumerate(stated)
    ]
