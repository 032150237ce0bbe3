"""T14 and T15: many rules against the same by hand, and what one further rule adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

from benchmarks import r30
from benchmarks.results import Result
from benchmarks.timing import Contender, Rounds, interleaved, micros, ratio
from benchmarks.workload import R5_POLICY, START, Clock, Requests, deciding, r5_requests
from guardrail import Effect, Guard
from guardrail.loading import load_text

R30_POLICY = Path(__file__).with_name("r30.yaml")
R30_MOST, FURTHER_MOST, LEASED_MOST = 2.0, 2.0, 3.0
SHORT = 2000
"""Requests a round of T15: what one rule adds is little, and shows in many short rounds."""
MORE_ROUNDS = 10
BUSY = 0.01
"""Seconds between requests: each of a thousand accounts asks so often that its records live on."""

YARDSTICK = "calendar budget"
FURTHER: Mapping[str, str] = {
    YARDSTICK: "when: always, budget: {tokens: 900M, per: day, key: account.id}",
    "rate": "when: always, rate: {requests: 6000/minute, key: account.id}",
    "rolling budget": "when: always, budget: {tokens: 900M, per: 24h, key: account.id}",
    "distinct": "when: always, distinct: "
    "{count: request.capability, max: 3, per: 7d, key: account.id}",
    "static": "when: {account.org: org_none}, unknown: skip, block: {reason: none}",
    "escalate": "when: always, rate: {requests: 6000/minute, key: account.id}, "
    "escalate: {after: 200, within: 10m, block_for: 1h}",
    "concurrency": "when: always, concurrency: {max: 8, lease: 10m, key: account.id}",
}
"""The kinds of rules, one of each on top of R5; none of them ever refuses."""


def many_costs(rounds: int, scale: float) -> list[Result]:
    """Return T14: a decision on twenty static rules and ten counters, against R30 by hand."""
    requests = r30_requests(int(10_000 * scale))
    guard = r30_guard()
    _check_admitted(guard, requests)
    costs = interleaved(
        {
            "by hand": r30_by_hand(requests.positional, Clock(BUSY)),
            "decide": deciding(guard, requests.stated, Clock(BUSY), thread_time),
        },
        rounds,
    )
    return [
        Result(
            target="T14",
            what="R30, twenty static rules and ten counters, all admitted, against by hand",
            value=ratio(costs, "decide", "by hand"),
            bound=R30_MOST,
            note=f"{micros(costs, 'decide'):.2f} µs against {micros(costs, 'by hand'):.2f}",
        )
    ]


def further_costs(rounds: int, scale: float) -> list[Result]:
    """Return T15: what a further rule of each kind adds, in further calendar budgets."""
    stated = r5_requests(max(100, int(SHORT * scale)), tier="enterprise").stated
    contenders = {"": deciding(_with(""), stated, Clock(BUSY), thread_time)}
    for kind, rule in FURTHER.items():
        contenders[kind] = deciding(_with(rule), stated, Clock(BUSY), thread_time)
    settled = {"": "", YARDSTICK: FURTHER[YARDSTICK], "concurrency": FURTHER["concurrency"]}
    for kind, rule in settled.items():
        contenders[f"{kind}, settled"] = _settling(_with(rule), stated)
    del contenders["concurrency"]  # its leases have to be given back
    costs = interleaved(contenders, rounds * MORE_ROUNDS)
    rows = [
        _row(costs, f"{kind}, decided", kind, "", FURTHER_MOST)
        for kind in FURTHER
        if kind in costs and kind != YARDSTICK
    ]
    rows.append(
        _row(costs, "concurrency, decided and settled", "concurrency, settled", ", settled",
             LEASED_MOST)
    )  # fmt: skip
    name = f"{YARDSTICK}, settled"
    rows.append(_row(costs, f"{YARDSTICK}, decided and settled", name, ", settled", None))
    return rows


def _row(costs: Rounds, what: str, more: str, less: str, bound: float | None) -> Result:
    yardstick = _beyond(costs, YARDSTICK, "")
    added = _beyond(costs, more, less)
    note = f"{added:.2f} µs against {yardstick:.2f}"
    what = f"a further rule on R5, {what}, against a further {YARDSTICK}"
    return Result(target="T15", what=what, value=added / yardstick, bound=bound, note=note)


def _beyond(costs: Rounds, more: str, less: str) -> float:
    """Return what one contender costs beyond another, in microseconds."""
    return 1e6 * median(a - b for a, b in zip(costs[more], costs[less], strict=True))


def _with(rule: str) -> Guard:
    """Return a guard for R5 and one further rule, if there is one."""
    text = R5_POLICY.read_text("utf-8")
    if rule:
        text += f"\n  - {{id: further, {rule}}}\n"
    return Guard.from_policies(load_text(text), store="memory://", environ={})


def _settling(guard: Guard, stated: Sequence[tuple[Any, Any]]) -> Contender:
    """Return a contender that decides every request and settles it at its estimate."""
    clock = Clock(BUSY)

    def run() -> float:
        decide, settle, now, step = guard.decide, guard.settle, clock.now, clock.step
        began = thread_time()
        for facts, estimate in stated:
            now += step
            settle(decide(facts, estimate, now=now), estimate, now=now)
        took = thread_time() - began
        clock.now = now
        return took / len(stated)

    return run


def r30_guard() -> Guard:
    """Return a guard for R30 with empty counters in memory, whatever the environment says."""
    return Guard.load(R30_POLICY, store="memory://", environ={})


def r30_requests(count: int) -> Requests:
    """Return `count` requests of R5's accounts with what R30 wants to know besides."""
    made: list[tuple[dict[str, object], dict[str, object]]] = []
    positional: list[tuple[Any, ...]] = []
    for number, (facts, estimate) in enumerate(r5_requests(count, tier="enterprise").stated):
        known = facts | _more_facts(number % 1000)
        made.append((known, estimate))
        positional.append(r30_arguments(known, estimate))
    return Requests(made, positional)


def _more_facts(number: int) -> dict[str, object]:
    return {
        "request.model": ("small", "medium")[number % 2],
        "request.endpoint": "/v1/chat/completions",
        "request.tools": number % 4,
        "request.reasoning": False,
        "request.stream": number % 3 == 0,
        "client.agent": ("OpenAI/Python 2.8.1", "sdk/2.1")[number % 2],
        "credential.id": f"key_{number + 1000:07}",
        "enforcement.status": "unrestricted",
        "account.credit_usd": 5 + number,
        "payment.country": "DE",
        "client.network": f"192.0.{number % 200}.0/32",
        "network.kind": ("residential", "business", "mobile")[number % 3],
        "geo.asn": 3320 + number % 20,
    }


def r30_arguments(facts: Mapping[str, Any], estimate: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a request as the arguments of R30 by hand, but for the time."""
    output = estimate["output_tokens"]
    return (*facts.values(), estimate["input_tokens"] + output, output)


def r30_by_hand(positional: Sequence[tuple[Any, ...]], clock: Clock) -> Contender:
    """Return the yardstick: the same requests decided by R30 by hand, begun afresh."""
    r30.restart()

    def run() -> float:
        decide: Callable[..., object] = r30.decide
        now, step = clock.now, clock.step
        began = thread_time()
        for arguments in positional:
            now += step
            decide(*arguments, now)
        took = thread_time() - began
        clock.now = now
        return took / len(positional)

    return run


def _check_admitted(guard: Guard, requests: Requests) -> None:
    """Decide every request once both ways, and then let by hand begin afresh.

    Raises:
        RuntimeError: one is not allowed, or the two differ.
    """
    r30.restart()
    now = START - BUSY * len(requests.stated)
    for (facts, estimate), arguments in zip(*requests, strict=True):
        now += BUSY
        decided = guard.decide(facts, estimate, now=now).effect
        by_hand = r30.decide(*[*arguments, now])[0]
        if decided is not Effect.ALLOW or by_hand != "allow":
            raise RuntimeError(f"decided as {decided}, by hand as {by_hand}: {facts}")
