"""The benchmarks run, and their arithmetic is right; what they measure is not judged here."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import __main__ as command
from benchmarks import journeys, r5, r30
from benchmarks.footprint import grown
from benchmarks.further_rules import r30_arguments, r30_guard, r30_requests
from benchmarks.journeys import lines_of_code
from benchmarks.results import Result, table
from benchmarks.timing import added, interleaved, ratio
from benchmarks.workload import START, STEP, TIERS, r5_guard, r5_requests
from guardrail.engine.windows import rolling_frees_at, rolling_width
from guardrail.model.rules import Block
from guardrail.testing import MovableClock

LITTLE = 0.002
"""A tenth of the work of `--quick`: figures are not judged here."""


@pytest.mark.parametrize("name", [name for name in command.BENCHMARKS if name != "T9"])
def test_each_benchmark_runs_and_prints_its_row(name, capsys, monkeypatch):
    monkeypatch.setattr(command, "QUICK_SCALE", LITTLE)

    assert command.main([name, "--quick", "--rounds", "1"]) == 0

    shown, progress = capsys.readouterr()
    assert shown.splitlines()[1].startswith(f"{name} ")
    assert progress.startswith(f"{name} …")


def test_memory_is_measured_by_the_key():
    assert grown("budget", 2000, 10_000) > 2000 * 50


def test_journeys_are_counted_and_told_as_a_table_and_as_json(capsys):
    assert journeys.main([]) == 0

    *shown, told = capsys.readouterr().out.splitlines()
    counts = json.loads(told)
    assert [line.split("  ")[0] for line in shown[1:]] == list(counts)
    for journey in counts.values():
        assert journey["steps"] > journey["calls"] > journey["moves"] >= journey["files"] - 1 > 0


def test_calls_files_and_moves_are_those_of_the_package_alone():
    clock = MovableClock(START)

    def work():
        rolling_width(60)
        rolling_frees_at(1, sum([2, 3]))
        clock()
        rolling_width(120)
        json.dumps({})

    once, again = journeys.counted("four calls", work), journeys.counted("four calls", work)

    assert once == journeys.Journey("four calls", 4, 2, 2, once.steps)
    assert 4 < once.steps < 400
    assert again == once


def test_lines_of_code_are_neither_blank_nor_comments_nor_docstrings():
    source = '''
"""What it knows.

And more.
"""

LIMIT = 3  # a comment beside code
"""What it is."""

# A comment.
TEXT = """one

three"""


def f(
    a,
):
    """Return it."""
    ...
'''

    assert lines_of_code(source) == 1 + 3 + 3 + 1


def test_every_file_of_a_folder_is_counted_in_its_room(capsys, tmp_path):
    for name, lines in {
        "alone.py": 1,
        "room/a.py": 2,
        "room/deep/b.py": 4,
        "room/c.lua": 8,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n" * lines, "utf-8")

    assert journeys.main(["--size", str(tmp_path)]) == 0

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "alone.py": {"files": 1, "lines of code": 1},
        "room": {"files": 2, "lines of code": 6},
        "together": {"files": 3, "lines of code": 7},
    }


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["T99"])

    assert left.value.code == 2
    assert "no benchmark `T99`" in capsys.readouterr().err


def test_the_workload_stays_within_its_limits_round_after_round():
    guard, requests, now = r5_guard(), r5_requests(1000), START
    r5.restart()
    for _ in range(3):
        for (facts, estimate), asked in zip(*requests, strict=True):
            now += STEP

            assert guard.decide(facts, estimate, now=now).effect.name == "ALLOW"
            assert r5.decide(*[*asked, now])[0] == "allow"


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, "allow"),
        ({"geo.country": "IR"}, "block"),
        ({"request.capability": "agentic"}, "block"),
    ],
)
def test_r5_by_hand_and_r5_in_yaml_answer_alike(changed, answer):
    facts = {**r5_requests(1).stated[0][0], **changed}
    r5.restart()
    by_hand = [r5.decide(*[*facts.values(), 100, START + n])[0] for n in range(12)]
    guard = r5_guard()
    tokens = {"input_tokens": 60, "output_tokens": 40}
    decided = [str(guard.decide(facts, tokens, now=START + n).effect) for n in range(12)]

    assert decided[:10] == by_hand[:10] == [answer] * 10
    assert decided[-1] in ("allow", by_hand[-1])


OTHERWISE: dict[str, list[object]] = {
    "geo.country": ["IR"],
    "payment.country": ["SY"],
    "request.capability": ["image", "batch", "agentic", "code"],
    "request.model": ["large-1", "large"],
    "request.endpoint": ["/v1/files"],
    "request.tools": [5, 65],
    "request.reasoning": [True],
    "request.stream": [True],
    "client.agent": ["scraper/1", "sdk/0.9"],
    "credential.id": ["key_0000002"],
    "enforcement.status": ["banned", "restricted"],
    "account.credit_usd": [0, 2],
    "network.kind": ["tor"],
    "geo.asn": [64497],
}


def test_r30_by_hand_and_r30_in_yaml_answer_alike():
    draw, guard, now = random.Random(30), r30_guard(), START
    requests, reached = r30_requests(4).stated, set()
    r30.restart()
    for number in range(1500):
        now += draw.choice([0.001, 0.1, 1.0, 3600.0 if number % 500 == 0 else 0.0])
        facts, _ = requests[place := draw.randrange(4)]
        facts = facts | {"account.tier": TIERS[place]}
        for name in draw.sample(sorted(OTHERWISE), draw.choice([0, 0, 1, 2, 3])):
            facts = facts | {name: draw.choice(OTHERWISE[name])}
        amounts = {"input_tokens": 40, "output_tokens": draw.choice([1, 2, 4, 8, 3000])}
        effect, rule, *_ = r30.decide(*[*r30_arguments(facts, amounts), now])
        reached.add((effect, rule))

        assert (number, str(guard.decide(facts, amounts, now=now).effect)) == (number, effect)

    static = {rule.id for rule in guard.policies.rules if isinstance(rule.verb, Block)}
    assert len(static) == 20
    assert {rule for effect, rule in reached if effect == "block"} == static
    assert {"account-rate", "account-tokens-day", "account-output-hour"} <= {
        rule for effect, rule in reached if effect == "throttle"
    }


def test_rounds_are_taken_in_turn_and_compared_round_by_round():
    order: list[str] = []
    speed = iter([9.0, 9.0, 2.0, 1.0, 10.0, 30.0, 6.0, 2.0])

    def contender(name):
        def run():
            order.append(name)
            return next(speed)

        return run

    costs = interleaved({"a": contender("a"), "b": contender("b")}, 3)

    assert "".join(order) == "ababbaab"
    assert costs == {"a": [2.0, 30.0, 6.0], "b": [1.0, 10.0, 2.0]}
    assert ratio(costs, "a", "b") == 3.0
    assert added(costs, "a", "b", "b") == 2.0


def test_a_result_tells_whether_its_target_is_met():
    most = Result(target="T1", what="most", value=2.3, bound=2.2)
    least = Result(target="T2", what="least", value=7.5, bound=7, at_least=True)
    known = Result(target="T1", what="known", value=1.0)

    assert [most.met, least.met, known.met] == [False, True, None]
    assert "NOT MET" in table([most])
    assert "≥ 7.00 ×" in table([least])
