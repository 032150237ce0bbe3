"""Makes traffic of any size from the sample week: the same week again and again, with new accounts.

    python -m scripts.large_traffic 1000000 > big.jsonl

Each copy of the week has accounts, cards, devices, networks and organisations of its own, and they
all send in the same week, so that the lines stand in the order of their times. Nothing of it is
kept in memory but the sample week itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import IO, Any

WEEK = Path(__file__).resolve().parents[1] / "examples" / "traffic" / "sample-week.jsonl.gz"
_OF_ITS_OWN = (
    "account.id", "account.org", "account.signup", "payment.fingerprint", "device.fingerprint",
    "kyc.subject", "client.network", "request.template", "request.toolset",
)  # fmt: skip


def write(count: int, out: IO[str]) -> None:
    """Write so many lines."""
    with gzip.open(WEEK, "rt") as week:
        rows: list[dict[str, Any]] = [json.loads(line) for line in week]
    copies = -(-count // len(rows))
    for row in rows:
        facts = row["facts"]
        for copy in range(min(copies, count)):
            mine = {n: f"{v}-{copy}" if n in _OF_ITS_OWN else v for n, v in facts.items()}
            out.write(json.dumps({**row, "facts": mine}, separators=(",", ":")) + "\n")
        count -= copies
        if count <= 0:
            return


def main() -> None:
    """Read the command line and write to standard output."""
    parser = argparse.ArgumentParser(description="Make large traffic of the sample week.")
    parser.add_argument("count", type=int, help="how many lines")
    write(parser.parse_args().count, sys.stdout)


if __name__ == "__main__":
    main()
