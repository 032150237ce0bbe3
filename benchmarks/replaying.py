"""T8: replaying recorded traffic through R5, against reading and decoding the file alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

from benchmarks.results import Result
from benchmarks.timing import Contender, Rounds, interleaved, micros, ratio
from benchmarks.workload import R5_POLICY, START, STEP, r5_requests
from guardrail import Guard
from guardrail.loading import load_policies
from guardrail.replay.running import Replay
from guardrail.replay.tally import Tally
from guardrail.traffic.lines import LineSource
from guardrail.traffic.reading import recorded_requests
from guardrail.traffic.requests import BadLines

REPLAY_MOST, SECONDS_MOST = 6.0, 300.0
CAMPAIGN = 28_800_000
"""Requests of the drain that a replay must get through in minutes."""


class Line(msgspec.Struct):
    """What is decoded of a line, at the least."""

    ts: float
    facts: dict[str, str]
    estimate: dict[str, int]
    usage: dict[str, int]
    duration: float = 0.0


def replay_costs(rounds: int, scale: float) -> list[Result]:
    """Return T8: a replay with usage settled, and how long the whole campaign would take."""
    count = int(100_000 * scale)
    with tempfile.TemporaryDirectory() as folder:
        at_once, later = Path(folder, "at-once.jsonl"), Path(folder, "later.jsonl")
        _write(at_once, count, 0.0)
        _write(later, count, 8.0)
        costs = interleaved(
            {
                "decode": _decoding(at_once, count),
                "replay": _replaying(at_once, count),
                "decode later": _decoding(later, count),
                "replay later": _replaying(later, count),
            },
            rounds,
        )
    whole = median(costs["replay"]) * CAMPAIGN
    return [
        _row(
            costs, "", "check --traffic on R5, usage settled, against decoding alone", REPLAY_MOST
        ),
        _row(costs, " later", "… settled 8 s later, 16 requests in flight", None),
        Result(
            target="T8",
            what="… 28.8 million lines on one core, at the same pace",
            value=whole,
            unit="s",
            bound=SECONDS_MOST,
        ),
    ]


def _row(costs: Rounds, when: str, what: str, bound: float | None) -> Result:
    replay, decode = f"replay{when}", f"decode{when}"
    note = f"{micros(costs, replay):.2f} µs a line against {micros(costs, decode):.2f}"
    value = ratio(costs, replay, decode)
    return Result(target="T8", what=what, value=value, bound=bound, note=note)


def _write(path: Path, count: int, duration: float) -> None:
    encode = msgspec.json.encode
    with path.open("wb") as file:
        for n, (facts, estimate) in enumerate(r5_requests(count).stated):
            row = {
                "ts": START + n * STEP,
                "facts": facts,
                "estimate": estimate,
                "usage": {"input_tokens": 20 + n * 7 % 50, "output_tokens": 5 + n % 30},
            }
            file.write(encode(row | {"duration": duration} if duration else row) + b"\n")


def _decoding(path: Path, count: int) -> Contender:
    def run() -> float:
        decode = msgspec.json.Decoder(Line).decode
        began = perf_counter()
        with path.open("rb") as file:
            for line in file:
                decode(line)
        return (perf_counter() - began) / count

    return run


def _replaying(path: Path, count: int) -> Contender:
    policies = load_policies([R5_POLICY])

    def run() -> float:
        guard = Guard.from_policies(policies, environ={})
        replay, tally, bad = Replay(guard), Tally(policies), BadLines()
        began = perf_counter()
        with LineSource(str(path)) as source:
            add = tally.add
            for _, ts, request, decision in replay.run(recorded_requests(source, bad)):
                add(ts, request, decision)
            replay.finish()
        tally.finish()
        took = perf_counter() - began
        assert tally.requests == count, "a line was lost"
        return took / count

    return run
