"""Makes traffic of any size from the sample week: the same week again and again, with new accounts.

    python -m scripts.large_traffic 1000000 > big.jsonl
    python -m scripts.large_traffic 28800000 --copies 53 > bigger.jsonl

Each copy of the week has accounts, cards, devices, networks and organisations of its own, and they
all send in the same week, so that the lines stand in the order of their times. With `--copies`
there are so many, some 475 accounts each, and they send week after week. Nothing of it is kept in
memory but the sample week itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from typing import IO, Any

WEEK = Path(__file__).resolve().parents[1] / "examples" / "traffic" / "sample-week.jsonl.gz"
_LENGTH = 7 * 86400
_OF_ITS_OWN = (
    "account.id", "account.org", "account.signup", "payment.fingerprint", "device.fingerprint",
    "kyc.subject", "client.network", "request.template", "request.toolset",
)  # fmt: skip
_COPY = "\0"
"""Stands in a line's text for the number of its copy; no text of the week holds it."""
_WRITTEN_COPY = json.dumps(_COPY)[1:-1]


def write(count: int, out: IO[str], copies: int | None = None) -> None:
    """Write so many lines, of so many copies of the week; as many as it takes for one week."""
    with gzip.open(WEEK, "rt") as week:
        rows = [json.loads(line) for line in week]
    every = _lines(rows, copies or -(-count // len(rows)))
    while piece := "".join(islice(every, min(count, 10_000))):
        out.write(piece)
        count -= min(count, 10_000)


def _lines(rows: list[dict[str, Any]], copies: int) -> Iterator[str]:
    """Yield lines without an end, in the order of their times."""
    texts = [_text(row) for row in rows]
    written = [str(copy) for copy in range(copies)]
    for week in numbers():
        for row, text in zip(rows, texts, strict=True):
            start = f'{{"ts":{row["ts"] + week * _LENGTH},'
            for copy in written:
                yield start + text.replace(_WRITTEN_COPY, copy)


def _text(row: dict[str, Any]) -> str:
    """Return a row as text without its time, which stands first."""
    facts = {n: f"{v}-{_COPY}" if n in _OF_ITS_OWN else v for n, v in row["facts"].items()}
    rest = {name: value for name, value in row.items() if name != "ts"}
    return json.dumps({**rest, "facts": facts}, separators=(",", ":"))[1:] + "\n"


def main() -> None:
    """Read the command line and write to standard output."""
    parser = argparse.ArgumentParser(description="Make large traffic of the sample week.")
    parser.add_argument("count", type=int, help="how many lines")
    parser.add_argument("--copies", type=int, help="how many copies of the week's accounts")
    asked = parser.parse_args()
    write(asked.count, sys.stdout, asked.copies)


if __name__ == "__main__":
    main()
