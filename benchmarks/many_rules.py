"""T3 and T10: policies of thousands of rules, decided and loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

import yaml

from benchmarks.results import Result
from benchmarks.timing import Contender, interleaved, micros, ratio
from benchmarks.workload import Clock, deciding
from guardrail import Guard
from guardrail.loading import load_policies, load_text

INDEX_MOST, LOAD_MOST = 1.6, 2.5
RULES_AN_ORG = 10
Stated = list[tuple[dict[str, object], dict[str, object]]]


def index_costs(rounds: int, scale: float) -> list[Result]:
    """Return T3: deciding among ten thousand rules of which ten can match, against ten rules."""
    orgs = max(2, int(1000 * scale))
    count = int(10_000 * scale)
    many = Guard.from_policies(load_text(_rules(orgs)), environ={})
    few = Guard.from_policies(load_text(_rules(1)), environ={})
    again = Guard.from_policies(load_text(_rules(orgs)), environ={})
    costs = interleaved(
        {
            "few": deciding(few, _stated(count, 1), Clock()),
            "one": deciding(again, _stated(count, 1), Clock()),
            "many": deciding(many, _stated(count, orgs), Clock()),
        },
        rounds,
    )
    rules = f"{orgs * RULES_AN_ORG:,} rules of which 10 can match"
    rows = (
        ("many", f"{rules}, requests of all organisations, against 10 rules", INDEX_MOST),
        ("one", "… requests of one organisation", None),
    )
    return [
        Result(
            target="T3",
            what=what,
            value=ratio(costs, name, "few"),
            bound=bound,
            note=f"{micros(costs, name):.2f} µs against {micros(costs, 'few'):.2f}",
        )
        for name, what, bound in rows
    ]


def load_costs(rounds: int, scale: float) -> list[Result]:
    """Return T10: loading a thousand rules against PyYAML's C loader, which checks nothing."""
    orgs = max(2, int(100 * scale))
    text = _rules(orgs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "policy.yaml")
        path.write_text(text, "utf-8")
        costs = interleaved({"load": _loading(path), "yaml": _parsing(path)}, rounds)
    note = f"{micros(costs, 'load') / 1e3:.0f} ms against {micros(costs, 'yaml') / 1e3:.0f}"
    what = f"load {orgs * RULES_AN_ORG:,} rules, against CSafeLoader alone"
    value = ratio(costs, "load", "yaml")
    return [Result(target="T10", what=what, value=value, bound=LOAD_MOST, note=note)]


def _loading(path: Path) -> Contender:
    def run() -> float:
        began = perf_counter()
        load_policies([path])
        return perf_counter() - began

    return run


def _parsing(path: Path) -> Contender:
    def run() -> float:
        began = perf_counter()
        with path.open("rb") as file:
            yaml.load(file, yaml.CSafeLoader)
        return perf_counter() - began

    return run


def _rules(orgs: int) -> str:
    """Return a policy with ten rules for every organisation: two budgets and eight blocks."""
    lines = ["guardrail: 1", "policy: many", "rules:"]
    for org in range(orgs):
        mine = f"account.org: org_{org}"
        for unit, most in (("tokens", "500M"), ("requests", "1M")):
            lines += [
                f"  - id: {unit}-{org}",
                f"    when: {{{mine}}}",
                "    unknown: skip",
                f"    budget: {{{unit}: {most}, per: day, key: account.id}}",
            ]
        for n in range(RULES_AN_ORG - 2):
            lines += [
                f"  - id: model-{org}-{n}",
                f"    when: {{{mine}, request.model: withdrawn-{n}}}",
                "    unknown: skip",
                "    block: {reason: withdrawn}",
            ]
    return "\n".join(lines) + "\n"


def _stated(count: int, orgs: int) -> Stated:
    return [
        (
            {
                "account.id": f"acct_{n % 1000:06}",
                "account.org": f"org_{n % orgs}",
                "request.model": "large",
            },
            {"input_tokens": 20 + n % 30, "output_tokens": 30},
        )
        for n in range(count)
    ]
