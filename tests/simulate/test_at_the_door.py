"""An hour of the simulated campaign, sent over HTTP to a real server under the shipped policies.

A simulation hands its facts to the guard. Here each of its requests is also sent, and the server
has to find the same out by itself: who asks from the key and a directory, the place and the kind
of network from the address that a proxy names, tools and the template from the body, use from the
answer. Both must come to the same, request by request.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from guardrail.asgi import GuardrailMiddleware
from guardrail.engine import Decision
from guardrail.guard import Guard
from guardrail.http.parsing import ParsedRequest, RequestParts
from guardrail.http.parsing.reading import read_parts
from guardrail.loading import load_policies
from guardrail.model.effects import Effect
from guardrail.signals import NetworkSignal
from guardrail.signals.directory.identity import credential_id
from guardrail.simulate.customers import Ask, Customers
from guardrail.simulate.draws import stream
from guardrail.simulate.operators import Operator, Take
from guardrail.simulate.population import START, Population
from guardrail.simulate.running import names_of
from guardrail.simulate.skills import Attack, Prices, skill_of
from guardrail.testing import MovableClock

POLICIES = Path(__file__).parents[2] / "policies"
TIERS = ("email", "verified", "enterprise")
HASH_KEY = b"k" * 32
HOUR, NOON = 3600.0, START + 12 * 3600.0
AT_ONCE, LONGEST = 4, 4000
"""How many of the requests that a simulation makes at once are sent, and their most tokens."""
ESTABLISHED = ("account.", "payment.", "kyc.", "device.", "enforcement.")
"""What the host's directory knows of an account, by how the names of the facts begin."""


async def host(scope: Any, receive: Any, send: Any) -> None:
    """Answer as a model that used what the request says it would use."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    used = json.loads(dict(scope["headers"])[b"x-uses"])
    body = json.dumps({"type": "message", "model": "large", "content": [], "usage": used}).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def of_a_product(parts: RequestParts) -> ParsedRequest | None:
    """Read a request as usual; the host's own header says which of its products sent it."""
    product = dict(parts.headers).get(b"x-product")
    if product is None:
        return None
    read = read_parts(parts)
    return read._replace(facts={**read.facts, "request.capability": product.decode()})


class Records:
    """Keeps what the middleware decided, by the ids that its answers carry."""

    def __init__(self) -> None:
        self.by_id: dict[str, Any] = {}

    def write(self, record: Any) -> None:
        """Keep a record."""
        self.by_id[record["id"]] = record

    def close(self) -> None:
        """Close nothing."""


class Campaign:
    """An hour of a population and of a careful operator, with who they are and where they are."""

    def __init__(self, seed: int, accounts: int, fleet: int, pace: float) -> None:
        self.guard = Guard.from_policies(load_policies([POLICIES]), clock=lambda: START, environ={})
        names = names_of(self.guard.policies, TIERS)
        self.both = Both(self.guard)
        self.population = Population(seed, accounts, 3, names)
        self.customers = Customers(self.population, self.both)  # type: ignore[arg-type]
        skill = skill_of(Attack.CAREFUL, stream(seed, "skill"), fleet)
        self.operator = Operator(
            0,
            replace(skill, pace=pace, pays=0.0, passes=0.0),
            fleet=fleet,
            begins=START,
            days=3,
            supply=0.0,
            seed=seed,
            guard=self.both,  # type: ignore[arg-type]
            names=names,
            prices=Prices(),
            take=Take.over(72),
            vpn=self.population.vpn,
        )
        self.asks = [
            (moment, ask) for moment, ask in self.customers.plan(0) if NOON <= moment < NOON + HOUR
        ]
        self.turns = [moment for moment in self.operator.morning(0) if NOON <= moment < NOON + HOUR]

    def places(self) -> Iterator[Mapping[str, Any]]:
        """Yield the facts of each connection from which somebody may ask in this hour."""
        for account in self.population.accounts:
            yield account.trip or account.home
        yield from self.population.vpn
        for puppet in self.operator.accounts:
            yield puppet.facts

    def run(self) -> None:
        """Deliver what is asked for in the hour, in order of time."""
        due: list[tuple[float, int, Ask | None]] = []
        for number, (moment, asked) in enumerate(self.asks):
            due.append((moment, number, asked))
        due += [(moment, len(due) + number, None) for number, moment in enumerate(self.turns)]
        for moment, _, ask in sorted(due, key=lambda one: one[:2]):
            if ask is None:
                self.operator.work(moment)
            else:
                self.customers.deliver(moment, ask, lambda later, again: None)


class Both:
    """Takes the place of a guard in a simulation, and has each request decided on twice.

    `handed` has what the guard said that was handed all facts, by the id of the door's answer.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.policies = guard.policies
        self.accounts: dict[str, Mapping[str, object]] = {}
        self.handed: dict[str, tuple[Decision, Mapping[str, Any]]] = {}
        self.client: httpx.Client
        self.clock: MovableClock

    def decide(self, facts: Mapping[str, Any], usage: Mapping[str, int], *, now: float) -> Decision:
        """Have requests decided on, one by one; return the first refusal, or the last decision."""
        count = usage["requests"]
        used = usage["input_tokens"], usage["output_tokens"]
        into, out = (max(1, min(tokens // count, LONGEST)) for tokens in used)
        for _ in range(min(count, AT_ONCE)):
            decision = self._one(facts, into, out, now)
            if decision.effect >= Effect.THROTTLE:
                break
        return decision

    def settle(self, decision: Decision, usage: Mapping[str, int], *, now: float) -> None:
        """Settle nothing: each request was settled when it had been answered."""

    def _one(self, facts: Mapping[str, Any], into: int, out: int, now: float) -> Decision:
        used = {"input_tokens": into, "output_tokens": out}
        decision = self.guard.decide(facts, {"requests": 1, **used}, now=now)
        if decision.effect < Effect.THROTTLE:
            self.guard.settle(decision, used, now=now)
        self.clock.set(now)
        answer = self._send(facts, into, out)
        self.handed[answer.headers["request-id"]] = decision, facts
        return decision

    def _send(self, facts: Mapping[str, Any], into: int, out: int) -> httpx.Response:
        known = {name: value for name, value in facts.items() if name.startswith(ESTABLISHED)}
        self.accounts[credential_id(str(facts["credential.id"]), HASH_KEY)] = known
        body: dict[str, Any] = {
            "model": facts["request.model"],
            "max_tokens": out,
            "messages": [{"role": "user", "content": "x" * (4 * into)}],
        }
        if "request.template" in facts:
            body["system"] = f"You are {facts['request.template']}."
        if facts["request.tools"]:
            body["tools"] = [
                {"name": f"{facts['request.toolset']}-{number}", "input_schema": {"type": "object"}}
                for number in range(facts["request.tools"])
            ]
        return self.client.post(
            "/v1/messages",
            json=body,
            headers={
                "x-api-key": str(facts["credential.id"]),
                "x-forwarded-for": f"203.0.113.9, {facts['client.ip']}",
                "x-product": str(facts["request.capability"]),
                "x-uses": json.dumps({"input_tokens": into, "output_tokens": out}),
            },
        )


def databases(campaign: Campaign, folder: Path) -> tuple[Path, Path, NetworkSignal]:
    """Write where every address is: a database of countries, one of AS numbers, lists of kinds."""
    countries = MMDBWriter(4, "Country", languages=["en"])
    systems = MMDBWriter(4, "ASN", languages=["en"])
    kinds: dict[str, set[str]] = {}
    for place in {str(place["client.ip"]): place for place in campaign.places()}.values():
        address = IPSet([place["client.ip"]])
        countries.insert_network(address, {"country": {"iso_code": place["geo.country"]}})
        systems.insert_network(address, {"autonomous_system_number": place["geo.asn"]})
        kinds.setdefault(str(place["network.kind"]), set()).add(str(place["client.ip"]))
    countries.to_db_file(str(folder / "countries.mmdb"))
    systems.to_db_file(str(folder / "asn.mmdb"))
    for kind, addresses in kinds.items():
        (folder / f"{kind}.txt").write_text("\n".join(sorted(addresses)) + "\n")
    lists = {kind: [folder / f"{kind}.txt"] for kind in kinds}
    return folder / "countries.mmdb", folder / "asn.mmdb", NetworkSignal.open(lists)


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application by uvicorn in a thread; give its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_what_a_simulation_hands_over_is_what_the_door_finds_out(tmp_path: Path) -> None:
    campaign = Campaign(3, accounts=120, fleet=60, pace=24 * 30.0)
    both = campaign.both
    countries, systems, network = databases(campaign, tmp_path)
    both.clock, records = MovableClock(NOON), Records()
    app = GuardrailMiddleware(
        host,
        policies=POLICIES,
        directory=lambda credential: both.accounts.get(credential.id),
        credentials=["x-api-key"],
        proxies=["127.0.0.0/8"],
        geo=countries,
        signals=[network],
        classifiers=[of_a_product],
        hash_key=HASH_KEY,
        store="memory://",
        decision_sink=records,
        clock=both.clock,
        environ={"GUARDRAIL_GEO_ASN": str(systems)},
    )
    with served(app) as address, httpx.Client(base_url=address) as both.client:
        campaign.run()
    refused: Counter[str | None] = Counter()
    for number, (handed, facts) in both.handed.items():
        found = records.by_id[number]
        refused[handed.rule] += handed.effect >= Effect.THROTTLE
        assert found["effect"] == str(handed.effect), (found, facts)
        # What is refused for its head alone names a rule that needs no body.
        if found["estimate"]:
            assert (found["rule"], found["reason"]) == (handed.rule, handed.reason), (found, facts)
    # It is an hour in which accounts are refused for what others did that act as they do.
    assert refused["linked-newcomers-together"] > 20, refused
    sent = len(both.handed)
    assert sent > 1000
