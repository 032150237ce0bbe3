"""Two versions over one reading of traffic decide as each does alone."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from pathlib import Path

import pytest

from guardrail.cli import main
from guardrail.guard import Guard
from guardrail.loading import load_policies, load_text
from guardrail.model.effects import Effect
from guardrail.replay.comparing import Comparison
from guardrail.replay.harm import Place
from guardrail.replay.running import Replay
from tests.replay.test_harm import POLICIES, traffic

CHANGES = (
    ("requests: 6,", "requests: 4,"),
    ("requests: 6,", "requests: 60,"),
    ("geo.country: IR}", "geo.country: US}"),
    ("at: 50%", "at: 90%"),
    ("requests: 40, per: day, key: global}, mode: shadow", "requests: 40, per: day, key: global}"),
    ("below: verified", "at_least: verified"),
)


def write_traffic(path: Path, seed: int) -> None:
    rows = [
        {"ts": ts, "facts": request.facts, "estimate": request.estimate}
        for _, ts, request in traffic(seed)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def decisions(policies: str, path: Path) -> list[dict[str, object]]:
    """Return the decisions that `check` writes down."""
    out = path.with_suffix(".out")
    main(["check", policies, "--traffic", str(path), "--decisions", str(out), "--allow-empty"])
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(6))
def test_a_comparison_is_that_of_two_files_of_decisions(tmp_path, capsys, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    changed = POLICIES
    for before, after in random.Random(seed).sample(CHANGES, 1 + seed % 3):
        changed = changed.replace(before, after)
    Path("old.yaml").write_text(POLICIES)
    Path("new.yaml").write_text(changed)
    path = Path("t.jsonl")
    write_traffic(path, seed)
    old, new = decisions("old.yaml", path), decisions("new.yaml", path)
    capsys.readouterr()
    command = ["diff", "old.yaml", "new.yaml", "--traffic", "t.jsonl", "--format", "json"]
    code = main([*command, "--exit-code"])
    told = json.loads(capsys.readouterr().out)["traffic"]

    matrix = Counter((a["effect"], b["effect"]) for a, b in zip(old, new, strict=True))
    for was in map(str, Effect):
        for now in map(str, Effect):
            assert told["matrix"][was][now] == matrix[was, now]
    assert told["requests"] == len(old) == 300
    order = [str(effect) for effect in Effect]
    kinds: Counter[tuple[object, ...]] = Counter()
    first: dict[tuple[object, ...], object] = {}
    for a, b in zip(old, new, strict=True):
        if a["effect"] != b["effect"]:
            looser = order.index(b["effect"]) < order.index(a["effect"])  # type: ignore[arg-type]
            kind = (looser, a["effect"], b["effect"], (a if looser else b)["rule"])
            kinds[kind] += 1
            first.setdefault(kind, a["line"])
    listed = [(True, one) for one in told["looser"]] + [(False, one) for one in told["stricter"]]
    assert len(listed) == len(kinds)
    for looser, one in listed:
        kind = (looser, one["before"], one["after"], one["rule"])
        assert one["requests"] == kinds[kind]
        assert one["first"]["line"] == first[kind]
    refused = [
        {
            row["facts"].get("account.id")  # type: ignore[attr-defined]
            for row in rows
            if row["effect"] in ("throttle", "block")
        }
        - {None, 7}
        for rows in (old, new)
    ]
    assert {one["account"] for one in told["accounts_refused_first"]} == refused[1] - refused[0]
    assert told["accounts_no_longer_refused"] == len(refused[0] - refused[1])
    assert code == 1


def test_parts_merged_are_the_whole():
    old = load_text(POLICIES)
    new = load_text(POLICIES.replace("requests: 6,", "requests: 9,"))
    whole, parts = Comparison(old, new), []
    with Guard.from_policies(old, environ={}) as a, Guard.from_policies(new, environ={}) as b:
        rows = [
            (Place(ts, "t", line), before, after)
            for (line, ts, _, before), (_, _, _, after) in zip(
                Replay(a).run(traffic(2)), Replay(b).run(traffic(2)), strict=True
            )
        ]
    for row in rows:
        whole.add(*row)
    for number in range(2):
        part = Comparison(old, new)
        for row in rows:
            if (row[1].facts.get("account.id") in ("a1", "a2")) is bool(number):
                part.add(*row)
        parts.append(pickle.loads(pickle.dumps(part)))
    merged = Comparison(old, new)
    for part in parts:
        merged.merge(part)

    assert whole.kinds
    assert merged.matrix == whole.matrix
    assert merged.kinds == whole.kinds
    assert (merged.otherwise, merged.renamed) == (whole.otherwise, whole.renamed)


def test_what_did_not_change_is_said_to_be_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(POLICIES)
    write_traffic(Path("t.jsonl"), 1)
    lines = Path("t.jsonl").read_text().splitlines(keepends=True)
    mistakes = ('"account.id": 7', '"account.tier": "gold"')
    typed = [row for row in lines if not any(one in row for one in mistakes)]
    Path("typed.jsonl").write_text("".join(typed))
    command = ["diff", "p.yaml", "p.yaml", "--exit-code", "--traffic"]
    code = main([*command, "typed.jsonl"])
    out = capsys.readouterr().out
    mistyped = main([*command, "t.jsonl"])

    assert code == 0
    assert mistyped == 1
    assert "GR311 fact `account.id` is `7`, not a string" in capsys.readouterr().out
    assert "looser   no decision became looser\n" in out
    assert "decisions that became looser\n  none\n" in out


def test_a_decision_log_is_compared_and_explained_as_traffic_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(POLICIES)
    row = {
        "v": 1, "ts": 1772366400.5, "id": "d1", "revision": "sha256:x", "effect": "allow",
        "rule": None, "reason": None, "mode": "normal", "ending": "settled",
        "facts": {"account.id": "AbCdEfGhIjKlMnOp", "geo.country": "IR"},
        "estimate": {"input_tokens": 1}, "usage": {"input_tokens": 1},
    }  # fmt: skip
    Path("log.jsonl").write_text(f"{json.dumps(row)}\n")
    Path("q.yaml").write_text(POLICIES.replace("geo.country: IR}", "geo.country: US}"))
    main(["diff", "p.yaml", "q.yaml", "--traffic", "log.jsonl"])
    out = capsys.readouterr().out
    code = main(["explain", "p.yaml", "--traffic", "log.jsonl", "--line", "1"])

    assert "looser   1 request (100.00%) of 1 account\n" in out
    assert (code, capsys.readouterr().out[:5]) == (0, "BLOCK")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--traffic", "none.jsonl"], 2, "cannot read `none.jsonl`"),
        (["--traffic", "bad.jsonl"], 2, "no readable line to compare decisions on"),
        (["--traffic", "t.jsonl", "--by", "geo.contry"], 2, "did you mean `geo.country`?"),
    ],
)
def test_traffic_that_cannot_be_compared_is_said(
    tmp_path, capsys, monkeypatch, arguments, code, told
):
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(POLICIES)
    Path("bad.jsonl").write_text("nonsense\n")
    write_traffic(Path("t.jsonl"), 1)

    assert main(["diff", "p.yaml", "p.yaml", *arguments]) == code
    assert told in capsys.readouterr().err


def test_the_shipped_policies_can_be_compared_with_themselves():
    policies = load_policies([Path(__file__).parents[2] / "policies"])

    assert Comparison(policies, policies).requests == 0
