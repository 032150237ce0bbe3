"""However requests end, nothing stays reserved, budgets hold what was served, memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections import Counter

from guardrail.http.flow import Served
from guardrail.http.metering import Meter
from tests.http.driving import (
    ASK,
    JSON,
    Call,
    Guarded,
    Host,
    body_messages,
    chat_stream,
    completion,
    scope_of,
)
from tests.http.visits import (
    ABORTED,
    LENGTH,
    MESSAGES,
    POLICY,
    PROMPT,
    WHOLE,
    Visit,
    model,
    reserved_input,
)

ACCOUNTS = "abcdefgh"
REQUESTS, AT_ONCE = 10_000, 40


class Costs:
    """What visits must have cost each account: lists, summed up anew."""

    def __init__(self):
        self.calls: dict[str, list[int]] = {name: [] for name in ACCOUNTS}
        self.tokens: dict[str, list[int]] = {name: [] for name in ACCOUNTS}
        self.endings: Counter[str] = Counter()

    def add(self, visit):
        calls, tokens = visit.cost
        self.calls[visit.account].append(calls)
        self.tokens[visit.account].append(tokens)
        self.endings[visit.ending] += 1


async def visit_all(guarded, count, draw, costs):
    """Make so many visits, some at once, a third of them aborted."""
    left = iter(range(count))

    async def keep_visiting():
        for _ in left:
            ending = draw.choice(ABORTED if draw.random() < 1 / 3 else WHOLE)
            when = draw.randrange(1, 11) if ending == "is cancelled" else draw.randrange(LENGTH)
            streams = ending == "stream" or (ending in ABORTED and draw.random() < 0.5)
            visit = Visit(draw.choice(ACCOUNTS), ending, when, streams)
            guarded.clock.advance(0.01)
            costs.add(await visit.run(guarded.app))

    await asyncio.gather(*(keep_visiting() for _ in range(AT_ONCE)))


def test_ten_thousand_requests_a_third_aborted_leave_nothing_behind():
    guarded, draw, costs = Guarded(POLICY, model), random.Random(4), Costs()
    blocks = []
    for _ in range(4):
        asyncio.run(visit_all(guarded, REQUESTS // 4, draw, costs))
        gc.collect()
        blocks.append(sys.getallocatedblocks())

    for name in ACCOUNTS:
        whose = {"account.id": f"acct-{name}", "account.org": f"org-{name}"}
        assert guarded.used("places", **whose) == 0
        assert guarded.used("calls", **whose) == sum(costs.calls[name])
        assert guarded.used("tokens", **whose) == sum(costs.tokens[name])
    assert costs.endings.total() == REQUESTS
    assert set(costs.endings) == {*WHOLE, *ABORTED}
    assert not guarded.app.door._tasks
    # A block a request would be 7,500.
    assert blocks[-1] - blocks[0] < 1000


def test_parallel_calls_without_a_cap_never_overrun_a_budget_by_their_output():
    most, calls = 10_000, 200
    body = json.dumps({"model": "small", "messages": MESSAGES}).encode()
    draw, served = random.Random(2), []

    async def host(scope, receive, send):
        await receive()
        await scope["decided"].wait()
        # As much as the model can say, and once in a while what it did say.
        output = draw.choice([200, 200, 200, draw.randrange(1, 200)])
        served.append(PROMPT + output)
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        await send({"type": "http.response.body", "body": completion("small", PROMPT, output)})

    async def wave():
        decided = asyncio.Event()
        scope = scope_of(body=body, decided=decided)
        every = [Call(scope, body_messages(body)) for _ in range(calls)]
        running = [asyncio.ensure_future(call.run(guarded.app)) for call in every]
        await asyncio.sleep(0)
        decided.set()
        await asyncio.gather(*running)
        return [call.status for call in every]

    guarded = Guarded(POLICY.replace("1G", str(most)), host)
    statuses = asyncio.run(wave())

    assert set(statuses) == {200, 429}
    assert 0.9 * most < statuses.count(200) * (200 + reserved_input(body)) <= most
    while 200 in asyncio.run(wave()):
        assert guarded.used("tokens") == sum(served) <= most
    assert sum(served) > most - 200 - 2 * PROMPT


def test_a_request_that_is_over_leaves_nothing_to_the_collector_of_garbage():
    hosts = (
        Host([completion()], headers=JSON),
        Host(chat_stream(), headers=[(b"content-type", b"text/event-stream")]),
    )
    for host in hosts:
        guarded = Guarded(POLICY, host)
        with asyncio.Runner() as runner:
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    call = Call(scope_of(body=ASK), body_messages(ASK))
                    runner.run(call.run(guarded.app))
                    assert call.status == 200
                host.scopes.clear()
                del call
                left = [one for one in gc.get_objects() if isinstance(one, (Served, Meter))]
            finally:
                gc.enable()
        assert left == []
