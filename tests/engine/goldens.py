"""What decisions told, and left in the store, when they were last looked at by people.

    python -m tests.engine.goldens            compare all of them
    python -m tests.engine.goldens --record   write them anew, after a change that is wanted

A row holds a seed and a digest of all that a random history over a random policy set told
(effect, rule, reason, wait, obligations, shadow, errors, limits, explanation) and of the store's
records after each step. The shipped policies have a row for each thousand lines of the sample week.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from guardrail.guard import Guard
from guardrail.loading import load_policies
from guardrail.model.amounts import DAY
from guardrail.model.policy import PolicySet
from guardrail.stores.memory import MemoryStore
from tests.engine.policies import START, policy_set, request
from tests.engine.tracing import MOVES, Subject, after, told_shortly

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = Path(__file__).with_name("goldens.txt")
SEEDS = 2000
LENGTH = 12
INDEXED = (None, None, None, "geo.country", "request.tools", "account.id")
CHUNK = 1000
MINUTE = 60.0
EXPLAINED = 20
"""Of so many requests of the week, one is explained."""

WAYS: Mapping[str, Mapping[str, bool]] = {
    "in memory": {"fused": True},
    "in numbers": {"asking": True, "follows": True},
    "in steps": {"follows": True},
}


def digest(told: object) -> str:
    """Return a short digest of plain values."""
    text = json.dumps(told, default=repr, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def random_set(seed: int) -> tuple[PolicySet, int]:
    """Return the policy set of a seed, and how many keys its store may hold."""
    indexed = INDEXED[seed % len(INDEXED)]
    count = 3 if indexed else 1 + seed % 7
    return policy_set(seed, count, indexed), 3 if seed % 11 == 0 else 1000


def history(seed: int, way: str) -> str:
    """Return the digest of a random history, decided in one of the ways."""
    policies, most = random_set(seed)
    subject = Subject(policies, max_keys=most, **WAYS[way])
    rng, now = Random(seed), START
    rows: list[object] = []
    written: dict[str, tuple[object, float]] = {}
    for _ in range(LENGTH):
        now += rng.choice(MOVES)
        decision = subject.decide(request(rng), now)
        row = {**told_shortly(decision), "explained": decision.explain().as_dict()}
        rows.append(plain(row))
        after(rng, now, subject, subject)
        rows.append(just_written(plain(subject.contents()["shared"]), written, now))
    return digest(rows)


def just_written(
    records: Mapping[str, object], written: dict[str, tuple[object, float]], now: float
) -> dict[str, object]:
    """Return the records that changed within the last minute: no store forgets them sooner.

    Of older ones it is for their hashes to say which are still there, and those differ in each
    process. `written` has each record as it last changed, with the time (seconds).
    """
    for key, record in records.items():
        if key not in written or written[key][0] != record:
            written[key] = record, now
    return {key: record for key, record in records.items() if now - written[key][1] <= MINUTE}


def plain(value: Any) -> Any:
    """Return a value with every mapping's keys as text, so that their order is one.

    The bands of rules are left out: these sets have none.
    """
    if isinstance(value, Mapping):
        return {repr(key): plain(entry) for key, entry in value.items() if key != "bands"}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return repr(value)


def sample_week(lines: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield a name and a digest for each thousand of so many lines (None: of all).

    The shipped policies decide them; what they left in the store comes with the last of all.
    """
    store = MemoryStore()
    # Actors are named under a secret that is drawn when a guard is made: here it is always one.
    with patch("os.urandom", bytes):
        guard = Guard.from_policies(load_policies([ROOT / "policies"]), store=store, environ={})
    rows: list[object] = []
    number = 0
    with gzip.open(ROOT / "examples/traffic/sample-week.jsonl.gz", "rt") as week:
        for number, line in enumerate(islice(week, lines), 1):
            asked = json.loads(line)
            decision = guard.decide(asked["facts"], asked.get("estimate"), now=asked["ts"])
            row = told_shortly(decision)
            if number % 20 == 0:
                explained = decision.explain().as_dict()
                rules = [{**rule, "place": None} for rule in explained["rules"]]
                row["explained"] = {**explained, "rules": rules, "revision": None, "id": None}
            rows.append(plain(row))
            if "usage" in asked:
                guard.settle(decision, asked["usage"], now=asked["ts"] + asked.get("duration", 0))
            if number % CHUNK == 0:
                yield f"week {number}", digest(rows)
                rows = []
    if lines is not None:
        return
    # Which of the records that are kept for less than a week are left, is for their hashes to say.
    kept = [(key, record) for lifetime, key, record in store.kept() if lifetime > 7 * DAY]
    rows.append(plain(sorted(kept)))
    yield f"week {number} and what it left", digest(rows)


def known() -> dict[str, str]:
    """Return the digests on record, by name."""
    rows = GOLDENS.read_text(encoding="ascii").splitlines()
    return dict(row.rsplit(" ", 1) for row in rows)


def differing(seeds: Iterable[int], ways: Iterable[str]) -> list[str]:
    """Return the histories that no longer tell what they told."""
    recorded = known()
    return [
        f"seed {seed} {way}"
        for seed in seeds
        for way in ways
        if history(seed, way) != recorded[f"seed {seed}"]
    ]


def main() -> None:
    """Compare all goldens, or record them."""
    words = argparse.ArgumentParser()
    words.add_argument("--record", action="store_true")
    words.add_argument("--seeds", type=int, nargs=2, default=(0, SEEDS))
    given = words.parse_args()
    if given.record:
        rows = [f"seed {seed} {history(seed, 'in steps')}" for seed in range(SEEDS)]
        rows += [f"{name} {value}" for name, value in sample_week()]
        GOLDENS.write_text("\n".join(rows) + "\n", encoding="ascii")
        return
    recorded = known()
    wrong = differing(range(*given.seeds), WAYS)
    wrong += [name for name, value in sample_week() if recorded[name] != value]
    print("\n".join(wrong) or "all goldens are equal")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
