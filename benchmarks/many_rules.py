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
from guardrail.loading import load_policies

INDEX_MOST, LOAD_MOST = 1.6, 2.5
RULES_AN_ORG = 10
ORGS_A_FILE = 100
Stated = list[tuple[dict[str, object], dict[str, object]]]


def index_costs(rounds: int, scale: float) -> list[Result]:
    """Return T3: deciding among ten thousand rules of which ten can match, against ten rules."""
    orgs = max(2, int(1000 * scale))
    count = int(10_000 * scale)
    with tempfile.TemporaryDirectory() as folder:
        few = Guard.load(_written(Path(folder, "few"), 1), store="memory://", environ={})
        large = load_policies([_written(Path(folder, "many"), orgs)])
    many, again = (Guard.from_policies(large, environ={}) for _ in range(2))
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
    with tempfile.TemporaryDirectory() as name:
        folder = _written(Path(name, "policies"), orgs)
        costs = interleaved({"load": _loading(folder), "yaml": _parsing(folder)}, rounds)
    note = f"{micros(costs, 'load') / 1e3:.0f} ms against {micros(costs, 'yaml') / 1e3:.0f}"
    what = f"load {orgs * RULES_AN_ORG:,} rules, against CSafeLoader alone"
    value = ratio(costs, "load", "yaml")
    return [Result(target="T10", what=what, value=value, bound=LOAD_MOST, note=note)]


def _loading(folder: Path) -> Contender:
    def run() -> float:
        began = perf_counter()
        load_policies([folder])
        return perf_counter() - began

    return run


def _parsing(folder: Path) -> Contender:
    def run() -> float:
        began = perf_counter()
        for path in folder.iterdir():
            with path.open("rb") as file:
                yaml.load(file, yaml.CSafeLoader)
        return perf_counter() - began

    return run


def _written(folder: Path, orgs: int) -> Path:
    """Write policies with ten rules for every organisation, a thousand a file."""
    folder.mkdir()
    for first in range(0, orgs, ORGS_A_FILE):
        rules = _rules(range(first, min(orgs, first + ORGS_A_FILE)))
        Path(folder, f"{first:06}.yaml").write_text(rules, "utf-8")
    return folder


def _rules(orgs: range) -> str:
    """Return ten rules for every organisation: two budgets and eight blocks."""
    lines = ["guardrail: 1", *(["policy: many"] if 0 in orgs else []), "rules:"]
    for org in orgs:
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
