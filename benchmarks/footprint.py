"""T9: how much memory a counter takes, and that a flood of new keys takes no more.

Each measurement runs in a process of its own: `python -m benchmarks.footprint KIND KEYS`.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

from benchmarks.results import Result
from benchmarks.workload import START
from guardrail import Guard
from guardrail.loading import load_text
from guardrail.stores.memory import MemoryStore

BYTES_MOST, FLOOD_MOST = 150.0, 1.1
VERBS = {
    "budget": "budget: {tokens: 500M, per: day, key: account.id}",
    "rate": "rate: {requests: 600/minute, key: account.id}",
}
TOKENS = {"input_tokens": 40, "output_tokens": 30}


def memory_costs(rounds: int, scale: float) -> list[Result]:
    """Return T9: bytes a counter, its key included, and the growth under a flood of guests."""
    keys = max(20_000, int(1_000_000 * scale))
    guests, room = keys // 10, keys // 100
    asked = [(kind, keys, keys) for kind in VERBS]
    asked += [("guests", room, keys), ("guests", guests, room)]
    with ThreadPoolExecutor(2) as pool:
        *taken, full, flooded = pool.map(_in_own_process, *zip(*asked, strict=True))
    rows = [
        Result(
            target="T9",
            what=f"memory a counter and its key, {keys:,} keys: {kind}",
            value=took / keys,
            unit="bytes",
            bound=BYTES_MOST,
        )
        for kind, took in zip(VERBS, taken, strict=True)
    ]
    growth = Result(
        target="T9",
        what=f"memory after {guests:,} unknown guests, against the {room:,} there is room for",
        value=flooded / full,
        bound=FLOOD_MOST,
        note=f"{flooded / 1e6:.1f} MB against {full / 1e6:.1f}",
    )
    return [*rows, growth]


def _in_own_process(kind: str, keys: int, most: int) -> int:
    arguments = [kind, str(keys), str(most)]
    command = [sys.executable, "-m", "benchmarks.footprint", *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(run.stdout)


def grown(kind: str, keys: int, most: int) -> int:
    """Return the bytes that counting `keys` new keys takes, in a store that has room for `most`."""
    verb = VERBS.get(kind, VERBS["budget"])
    text = f"guardrail: 1\npolicy: p\nrules: [{{id: r, when: always, {verb}}}]\n"
    guard = Guard.from_policies(load_text(text), store=MemoryStore(max_keys=most), environ={})
    fact, name = ("client.network", "10.{0}/32") if kind == "guests" else ("account.id", "a{0:09}")
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(keys):
            guard.decide({fact: name.format(n)}, TOKENS, now=START + n * 1e-6)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    print(grown(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
