"""Make the embedded country database from the address ranges that Debian's tor-geoipdb carries.

    apt-get download tor-geoipdb && dpkg-deb -x tor-geoipdb_*.deb geo
    python scripts/make_geo.py geo/usr/share/tor guardrail/data/country.mmdb

The same ranges make the same bytes: the file is dated by its source, not by the clock. Equal parts
of the search tree are stored once, which makes it less than half the size of a plain tree.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import re
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path

import maxminddb
from mmdb_writer import SearchTreeLeaf, SearchTreeNode, TreeWriter

from guardrail.model.facts import COUNTRIES

Tree = SearchTreeNode | SearchTreeLeaf | None

LICENCE = "CC BY-SA 4.0"
KNOWN = {
    "8.8.8.8": "US",
    "1.1.1.1": "AU",
    "114.114.114.114": "CN",
    "2001:4860:4860::8888": "US",
    "10.0.0.1": None,
    "fd00::1": None,
}


@dataclass(frozen=True, slots=True)
class Range:
    """The addresses from `first` to `last`, both included, of one country."""

    first: int
    last: int
    country: str


class SourceError(Exception):
    """The source is not what this script was written for."""


class TreeBuilder:
    """Builds search trees in which equal subtrees are one object."""

    def __init__(self) -> None:
        """Start without any node."""
        self._leaves: dict[str, SearchTreeLeaf] = {}
        self._nodes: dict[tuple[int, int], SearchTreeNode] = {}

    def tree(self, ranges: Sequence[Range], width: int) -> Tree:
        """Return the tree over all addresses of `width` bits; `ranges` are sorted and disjoint."""
        firsts = [each.first for each in ranges]
        lasts = [each.last for each in ranges]

        def subtree(low: int, high: int, base: int, bits: int) -> Tree:
            if low == high:
                return None
            if firsts[low] <= base and lasts[low] >= base + (1 << bits) - 1:
                return self._leaf(ranges[low].country)
            middle = base + (1 << bits - 1)
            left = subtree(low, bisect_left(firsts, middle, low, high), base, bits - 1)
            right = subtree(bisect_left(lasts, middle, low, high), high, middle, bits - 1)
            return self._joined(left, right)

        return subtree(0, len(ranges), 0, width)

    def grafted(self, tree: Tree, branch: Tree, depth: int) -> Tree:
        """Return `tree` with `branch` in place of what lies `depth` zero bits down in it."""
        if depth == 0:
            return branch
        left, right = (tree.left, tree.right) if isinstance(tree, SearchTreeNode) else (tree, tree)
        return self._joined(self.grafted(left, branch, depth - 1), right)

    def _leaf(self, country: str) -> SearchTreeLeaf:
        return self._leaves.setdefault(country, SearchTreeLeaf(country))

    def _joined(self, left: Tree, right: Tree) -> Tree:
        if left is right and not isinstance(left, SearchTreeNode):
            return left
        return self._nodes.setdefault((id(left), id(right)), SearchTreeNode(left, right))


def ranges_in(path: Path) -> Iterator[Range]:
    """Yield the ranges of a source file that have a country.

    Raises:
        SourceError: a line is not `first,last,code`.
    """
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            first, last, country = line.split(",")
            # IPv4 addresses are written as numbers, IPv6 addresses in their usual notation.
            edges = [
                int(ipaddress.ip_address(int(x) if x.isdecimal() else x)) for x in (first, last)
            ]
        except ValueError as error:
            raise SourceError(f"{path}:{number}: `{line}` is not first,last,code") from error
        if country in COUNTRIES:
            yield Range(edges[0], edges[1], country)


def generated(path: Path) -> int:
    """Return the instant a source file says it was generated, in seconds since the epoch.

    Raises:
        SourceError: its header names another licence, or no date.
    """
    header = "".join(line for line in path.read_text("ascii").splitlines(True) if line[0] == "#")
    date = re.search(r"^# Generated: (.+)$", header, re.MULTILINE)
    if date is None or f"License:   {LICENCE}" not in header:
        raise SourceError(f"{path}: the header lacks a date or the licence {LICENCE}")
    return int(parsedate_to_datetime(date[1]).timestamp())


def write(v4: Sequence[Range], v6: Sequence[Range], built: int, path: Path) -> None:
    """Write a database of the countries of IPv4 and IPv6 ranges, dated `built`.

    Raises:
        SourceError: there are no ranges.
    """
    builder = TreeBuilder()
    # The format keeps IPv4 at ::/96.
    root = builder.grafted(builder.tree(v6, 128), builder.tree(v4, 32), 96)
    if not isinstance(root, SearchTreeNode):
        raise SourceError("there are no ranges")
    metadata = {
        "ip_version": 6,
        "database_type": "guardrail-country",
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "description": {"en": f"IPFire Location, https://location.ipfire.org/, {LICENCE}"},
        "build_epoch": built,
    }
    TreeWriter(root, metadata).write(str(path))


def differences(path: Path, ranges: Sequence[Range], width: int) -> Iterator[str]:
    """Yield what a database says otherwise than sorted ranges do, at their edges and between."""
    address = ipaddress.IPv4Address if width == 32 else ipaddress.IPv6Address
    with maxminddb.open_database(path) as reader:
        expected = {edge: each.country for each in ranges for edge in (each.first, each.last)}
        gaps = {one.last + 1: None for one, two in pairwise(ranges) if one.last + 1 < two.first}
        for at, country in (expected | gaps).items():
            found = reader.get(address(at))
            if found != country:
                yield f"{address(at)} is {found}, not {country}"


def main() -> int:
    """Make the file, read it back, and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="the folder with `geoip` and `geoip6`")
    parser.add_argument("target", type=Path, help="the .mmdb file to write")
    arguments = parser.parse_args()
    try:
        v4, v6 = (list(ranges_in(arguments.source / name)) for name in ("geoip", "geoip6"))
        write(v4, v6, generated(arguments.source / "geoip"), arguments.target)
    except (OSError, SourceError) as error:
        print(error, file=sys.stderr)
        return 1
    wrong = [*differences(arguments.target, v4, 32), *differences(arguments.target, v6, 128)]
    with maxminddb.open_database(arguments.target) as reader:
        wrong += [ip for ip, country in KNOWN.items() if reader.get(ip) != country]
    if wrong:
        print(
            f"{arguments.target} is wrong at {len(wrong)} addresses: {wrong[:5]}", file=sys.stderr
        )
        return 1
    digest = hashlib.sha256(arguments.target.read_bytes()).hexdigest()
    print(f"{arguments.target}: {len(v4)} + {len(v6)} ranges, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
